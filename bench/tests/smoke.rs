//! The bench in its shortest form: every workload of ours runs and comes to figures. Nothing is said about how fast it is.

use std::fs;
use std::io::{self, Write};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What `result.json` has of each contestant, and nothing else.
const FIELDS: [&str; 10] = [
    "clients",
    "contestant",
    "cpu_seconds",
    "max",
    "min",
    "ok",
    "seconds",
    "server_rss_mb",
    "size_mb",
    "workload",
];

#[test]
fn every_workload_comes_to_figures() -> Result<()> {
    let out = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_sheaf-bench"))
        .args([
            "--repeats",
            "1",
            "--rounds",
            "2",
            "--sizes",
            "1,2",
            "--clients",
            "4",
            "--megabytes",
            "2",
            "--idle",
            "3",
            "--crowd",
            "3",
            "--federations",
            "3x1000",
            "--models",
            "mlp,minilm",
            "--steps",
            "5",
            "--out",
        ])
        .arg(out.path())
        .output()?;
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{why}");
    // For whoever reads the log: what a test prints in another way is not shown when it passes.
    io::stderr().write_all(&output.stdout)?;
    let rows: Vec<Value> = serde_json::from_slice(&fs::read(out.path().join("result.json"))?)?;
    for row in &rows {
        let fields: Vec<&String> = row.as_object().context("a row is an object")?.keys().collect();
        assert_eq!(fields, FIELDS);
        assert_eq!(row["ok"], true, "{row}\n{why}");
        let [min, median, max] =
            ["min", "seconds", "max"].map(|field| row[field].as_f64().unwrap_or_default());
        assert!(0.0 < min && min <= median && median <= max, "{row}");
    }
    let workloads: std::collections::BTreeSet<_> =
        rows.iter().filter_map(|row| row["workload"].as_str()).collect();
    let expected = [
        "crowd",
        "idle sites",
        "masking",
        "round",
        "secure round",
        "simulation",
        "start from nothing",
        "start from submit",
        "step of MiniLM, LoRA",
        "step of MiniLM, all",
        "step of MiniLM, head",
        "step of MiniLM, last:2",
        "step of an MLP",
        "transport",
        "unmasking",
        "weighted sum",
    ];
    assert!(workloads.into_iter().eq(expected), "{said}");
    let rounds = rows.iter().filter(|row| row["workload"] == "round");
    for row in rounds {
        assert!(row["server_rss_mb"].as_f64().unwrap_or_default() > 1.0, "{row}");
    }
    assert!(fs::read_to_string(out.path().join("round.svg"))?.contains("</svg>"));
    assert!(said.contains("transfer, of bare quinn's speed"), "{said}");
    Ok(())
}
