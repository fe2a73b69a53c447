//! A language model end to end: a GGUF file imported with the command line, taught answers by three sites with low-rank
//! adapters under encryption, exported whole and as an adapter, and scored by a site without a server.
//!
//! The run is that of `examples/smollm2-lora`; the model is a tiny one with the same kinds of tensors and tokens.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::metrics::Report;
use sheaf_common::status::RunState;
use sheaf_tests::{Federation, binary};

const TINY: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../common/src/model/foreign/gguf/reference/tiny.gguf");
const EXAMPLE: &str = include_str!("../../examples/smollm2-lora/run.toml");

/// Questions of which the answer is a letter that follows from them.
fn questions(site: usize) -> String {
    let one = |at: usize| {
        let letter = char::from(b'a' + (at % 3) as u8);
        format!("{{\"question\": \"{letter}{site}\", \"answer\": \"{letter}{letter}{letter}\"}}\n")
    };
    (0..40).map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_sites_teach_a_language_model_answers() -> Result<()> {
    let mut federation = Federation::new()?;
    let address = federation.start_server()?;
    for (number, site) in ["east", "north", "west"].into_iter().enumerate() {
        let policy = "min_metric_count = 8";
        federation.start_site_by(policy, site, &questions(number), "format = \"jsonl\"\n")?;
    }
    let pki = federation.path().join("pki");
    let sheaf = |arguments: &[&str]| -> Result<String> {
        let output = Command::new(binary("sheaf")?)
            .args(["--server", &address.to_string(), "--cert"])
            .arg(pki.join("operator-op.crt"))
            .arg("--key")
            .arg(pki.join("operator-op.key"))
            .arg("--ca")
            .arg(pki.join("ca.crt"))
            .args(arguments)
            .output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "sheaf {arguments:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let card = sheaf(&["model", "import", TINY, "--name", "smollm2"])?;
    // Adapters of rank 8 on 32 to 32 and 32 to 16 values, in two layers.
    let adapters = 2 * (8 * (32 + 32) + 8 * (32 + 16));
    assert!(card.contains("lora = {}: 1,792 parameters"), "{card}");

    let text = EXAMPLE
        .replace("dataset = \"smollm2-lora\"", "dataset = \"data\"")
        .replace("max_length = 160", "max_length = 48")
        .replace("local_epochs = 2", "local_epochs = 10")
        .replace("learning_rate = 3e-3", "learning_rate = 3e-2");
    let run_file = federation.path().join("run.toml");
    fs::write(&run_file, text)?;
    sheaf(&["run", "submit", &run_file.display().to_string()])?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let status = operator.wait_for_end(&"smollm2-lora".parse()?).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    assert_eq!(status.num_params, adapters);
    let last = language(status.final_metrics.as_ref())?;
    // A fifth of each site's forty, of which each answer has three letters and an end.
    assert_eq!((last.num_examples, last.num_tokens), (24, 96));
    let first = status.history.first().and_then(|record| record.global_metrics.as_ref());
    let first = language(first)?;
    assert!(last.loss < first.loss - 0.3, "{first:?} {last:?}");
    assert!(last.token_accuracy > first.token_accuracy, "{first:?} {last:?}");
    assert!((last.perplexity / last.loss.exp() - 1.0).abs() < 1e-9, "{last:?}");

    let out = |name: &str| federation.path().join(name);
    let trained = out("trained");
    sheaf(&["model", "export", "smollm2-lora", "--out", &trained.display().to_string()])?;
    let loss = score(&out("east.toml"), &run_file, &trained)?;
    assert!(loss < first.loss, "{loss} {first:?}");
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"] {
        assert!(trained.join(file).exists(), "{file}");
    }
    let adapter = out("adapter");
    sheaf(&["model", "export", "smollm2-lora", "--adapter", "--out", &adapter.display().to_string()])?;
    let config: serde_json::Value = serde_json::from_slice(&fs::read(adapter.join("adapter_config.json"))?)?;
    assert_eq!(config["task_type"], "CAUSAL_LM");
    Ok(())
}

fn language(report: Option<&Report>) -> Result<sheaf_common::metrics::LanguageReport> {
    let report = report.context("there is a validation split")?;
    if let Report::Language(report) = report { Ok(*report) } else { anyhow::bail!("{report:?}") }
}

/// The mean loss of the exported model on all of a site's answers.
fn score(site: &Path, run: &Path, model: &Path) -> Result<f64> {
    let scored = Command::new(binary("sheaf-client")?)
        .arg("--config")
        .arg(site)
        .arg("evaluate")
        .arg("--run")
        .arg(run)
        .arg("--model")
        .arg(model)
        .arg("--json")
        .output()?;
    anyhow::ensure!(scored.status.success(), "{}", String::from_utf8_lossy(&scored.stderr));
    let scored: serde_json::Value = serde_json::from_slice(&scored.stdout)?;
    assert_eq!(scored["models"][0]["metrics"]["task"], "language");
    scored["models"][0]["metrics"]["loss"].as_f64().context("a loss")
}
