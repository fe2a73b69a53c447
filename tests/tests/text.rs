//! A real pretrained encoder on real text, end to end: imported with the command line, fine-tuned by two sites with
//! libtorch, exported, and scored by a site without a server.
//!
//! The model and the documents come from the cache that `make test` fills.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::status::RunState;
use sheaf_tests::{Federation, binary};

fn cached(name: &str) -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let path = cache.or_else(home).context("no HOME")?.join("sheaf/data").join(name);
    anyhow::ensure!(path.exists(), "{} is not there: run `make test`, which fetches it", path.display());
    Ok(path)
}

/// The first documents of two topics, each site with its own, as TSV with the columns `topic` and `text`.
fn desks() -> Result<[String; 2]> {
    let table = fs::read_to_string(cached("reuters-r8/reuters-r8-train.tab")?)?;
    let mut desks = ["topic\ttext\n".to_owned(), "topic\ttext\n".to_owned()];
    let header: Vec<&str> = table.lines().next().context("empty table")?.split('\t').collect();
    let column = |wanted: &str| header.iter().position(|name| *name == wanted).context("no such column");
    let (label, text) = (column("Category")?, column("Text")?);
    for topic in ["earn", "crude"] {
        let rows = table.lines().skip(3).map(|line| line.split('\t').collect::<Vec<_>>());
        let documents = rows.filter(|row| row.get(label) == Some(&topic)).take(40);
        for (number, row) in documents.enumerate() {
            desks[number % 2] += &format!("{topic}\t{}\n", row.get(text).context("a short row")?);
        }
    }
    Ok(desks)
}

const RUN: &str = r#"
name = "wire"
rounds = 2
seed = 1
secure_aggregation = "off"

[model]
name = "minilm"
trainable = "last:1"

[task]
type = "text-classification"
dataset = "data"
text = "text"
label = "topic"
labels = ["earn", "crude"]
max_length = 48

[training]
learning_rate = 5e-4
batch_size = 8
local_epochs = 2
validation_split = 0.2

[cohort]
sites = ["east", "west"]
"#;

#[tokio::test]
async fn two_sites_fine_tune_an_encoder_that_neither_has_to_start_with() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for (name, desk) in ["east", "west"].into_iter().zip(desks()?) {
        // Eight are held out of forty.
        let (policy, table) = ("min_metric_count = 8", "format = \"tsv\"\nquotes = false\n");
        federation.start_site_by(policy, name, &desk, table)?;
    }
    let model = cached("minilm")?;
    federation.sheaf(&["model", "import", &model.display().to_string(), "--name", "minilm"])?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    // 1 774 464 values of one layer of 384, or two adapters of rank 8 in each of six layers; and a head of two labels.
    let whole = (RUN.to_owned(), "wire", 1_774_464 + 2 * 384 + 2);
    let adapters = RUN
        .replace("name = \"wire\"", "name = \"adapted\"")
        .replace("trainable = \"last:1\"", "lora = { rank = 8, alpha = 16.0 }")
        .replace("5e-4", "5e-3");
    let adapted = (adapters, "adapted", 6 * 2 * (8 * 384 + 384 * 8) + 2 * 384 + 2);
    for (text, name, num_params) in [whole, adapted] {
        let run_file = federation.path().join(format!("{name}.toml"));
        fs::write(&run_file, text)?;
        federation.sheaf(&["run", "submit", &run_file.display().to_string()])?;
        let status = operator.wait_for_end(&name.parse()?).await?;
        assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
        assert_eq!(status.num_params, num_params);
        let metrics = status.final_metrics.context("there is a validation split")?;
        let metrics = metrics.classification().context("metrics of a classifier")?;
        assert_eq!(metrics.num_examples, 16);
        assert!(metrics.accuracy >= 0.9, "{name}: {metrics:?}");

        let trained = federation.path().join(format!("{name}-trained"));
        federation.sheaf(&["model", "export", name, "--out", &trained.display().to_string()])?;
        let scored = Command::new(binary("sheaf-client")?)
            .arg("--config")
            .arg(federation.path().join("east.toml"))
            .arg("evaluate")
            .arg("--run")
            .arg(&run_file)
            .arg("--model")
            .arg(&trained)
            .arg("--json")
            .output()?;
        anyhow::ensure!(scored.status.success(), "{}", String::from_utf8_lossy(&scored.stderr));
        let scored: serde_json::Value = serde_json::from_slice(&scored.stdout)?;
        assert_eq!(scored["num_examples"], 40);
        let accuracy = scored["models"][0]["metrics"]["accuracy"].as_f64().context("an accuracy")?;
        assert!(accuracy >= 0.9, "{name}: {scored}");
    }
    let adapter = federation.path().join("adapter");
    federation.sheaf(&[
        "model",
        "export",
        "adapted",
        "--adapter",
        "--out",
        &adapter.display().to_string(),
    ])?;
    assert!(
        adapter.join("adapter_config.json").exists() && adapter.join("adapter_model.safetensors").exists()
    );
    let whole = federation
        .sheaf(&["model", "export", "wire", "--adapter", "--out", "nowhere"])
        .unwrap_err()
        .to_string();
    assert!(whole.contains("the run has no adapters"), "{whole}");
    Ok(())
}
