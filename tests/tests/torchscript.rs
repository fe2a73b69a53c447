//! A TorchScript module that somebody brings, end to end: imported with the command line, run only by the sites that list
//! it, trained in encrypted rounds, exported, and scored by a site without a server. It is `examples/torchscript`, smaller.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use serde_json::Value;
use sheaf_common::id::Role;
use sheaf_common::status::RunState;
use sheaf_tests::{Federation, binary, perceptron};

const RUN: &str = r#"
name = "own"
rounds = 3
seed = 1

[model]
name = "own"

[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes", "never"]
features = [{ column = "x", type = "numeric" }, { column = "z", type = "numeric" }]

[training]
learning_rate = 0.05
batch_size = 12
local_epochs = 2
validation_split = 0.2

[cohort]
sites = ["east", "west", "north"]
min_updates = 3
max_attempts = 1
"#;

/// `scripts/reference/torchscript.py` made it: four values to three labels.
fn module() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/tests/data/torchscript/table.pt")
}

/// Runs a site's program without a server, on a run that starts from the model in a folder.
fn offline(federation: &Federation, site: &str, command: &str, model: &Path) -> Result<Output> {
    Ok(Command::new(binary("sheaf-client")?)
        .arg("--config")
        .arg(federation.path().join(format!("{site}.toml")))
        .args([command, "--json", "--run"])
        .arg(federation.path().join("run.toml"))
        .arg("--model")
        .arg(model)
        .output()?)
}

#[tokio::test]
async fn sites_run_a_module_only_if_their_policy_lists_it_and_train_it_encrypted() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    federation.issue(Role::Operator, "op")?;
    fs::write(federation.path().join("run.toml"), RUN)?;
    let path = module().display().to_string();
    let import = |more: &[&str]| {
        let all = ["model", "import", &path, "--name", "own", "--kind", "torchscript"];
        federation.sheaf(&[&all, more].concat())
    };
    let undescribed = import(&["--inputs", "4"]).unwrap_err().to_string();
    assert!(undescribed.contains("say what the module takes and gives: --outputs"), "{undescribed}");
    let card = import(&["--inputs", "4", "--outputs", "3"])?;
    let hash = blake3::hash(&fs::read(module())?).to_string();
    assert!(card.contains(&format!("torchscript = [\"{hash}\"]")), "{card}");

    let listed = format!("min_metric_count = 5\ntorchscript = [\"{hash}\"]");
    federation.start_site_by(&listed, "east", &perceptron::csv(0), "")?;
    federation.start_site_by(&listed, "west", &perceptron::csv(1), "")?;
    federation.start_site("north", &perceptron::csv(2))?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let run_file = federation.path().join("run.toml").display().to_string();
    federation.sheaf(&["run", "submit", &run_file])?;
    let status = operator.wait_for_end(&"own".parse()?).await?;
    assert_eq!(status.summary.state, RunState::Failed, "{}", status.summary.detail);
    let shown = federation.sheaf(&["run", "show", "own"])?;
    let reason = format!("they add \"{hash}\" to policy.torchscript in its site.toml");
    assert!(shown.contains("this site runs no TorchScript module that it does not know"), "{shown}");
    assert!(shown.contains(&reason), "{shown}");

    // Somebody at the third site trusts it now.
    federation.kill_site("north");
    federation.start_site_by(&listed, "north", &perceptron::csv(2), "")?;
    federation.sheaf(&["run", "submit", &run_file])?;
    let status = operator.wait_for_end(&"own-2".parse()?).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    // All but the parameter that the module itself freezes, and the second name of another.
    assert_eq!(status.num_params, 25 + 2 + 20 + 5 + 5 + 15 + 3);
    let metrics = status.final_metrics.context("there is a validation split")?;
    let metrics = metrics.classification().context("metrics of a classifier")?;
    assert!(metrics.num_examples == 36 && metrics.accuracy >= 0.9, "{metrics:?}");

    let trained = federation.path().join("trained");
    federation.sheaf(&["model", "export", "own-2", "--out", &trained.display().to_string()])?;
    assert_eq!(fs::read(trained.join("model.pt"))?, fs::read(module())?);
    let again = trained.display().to_string();
    federation.sheaf(&["model", "import", &again, "--name", "again"])?;

    let scored = offline(&federation, "north", "evaluate", &trained)?;
    anyhow::ensure!(scored.status.success(), "{}", String::from_utf8_lossy(&scored.stderr));
    let scored: Value = serde_json::from_slice(&scored.stdout)?;
    let accuracy = scored["models"][0]["metrics"]["accuracy"].as_f64().context("an accuracy")?;
    assert!(accuracy >= 0.9, "{scored}");

    // A site that lists another module only is told by `check` what a run would say.
    let text = fs::read_to_string(federation.path().join("north.toml"))?;
    let other = blake3::hash(b"another").to_string();
    fs::write(federation.path().join("north.toml"), text.replace(&hash, &other))?;
    let checked = offline(&federation, "north", "check", &trained)?;
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8(checked.stdout)?.contains(&hash));
    Ok(())
}
