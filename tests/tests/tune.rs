//! `sheaf tune` against a federation of processes: it finds what works, lives with what does not, and goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sheaf_common::id::{Role, RunId};
use sheaf_common::message::{Reply, Request};
use sheaf_tests::{Federation, Operator, binary};

const SITES: [&str; 3] = ["a", "b", "c"];

/// Two clouds of points.
fn csv(site: u32) -> String {
    let mut text = String::from("x,label\n");
    for i in 0..60u32 {
        let (label, centre) = if (i + site).is_multiple_of(3) { ("yes", 1.0) } else { ("no", -1.0) };
        text += &format!("{:.4},{label}\n", centre + 1.8 * (f64::from(i * 37 % 101) / 101.0 - 0.5));
    }
    text
}

fn run(more: &str) -> String {
    format!(
        r#"
name = "toy"
rounds = 4
seed = 7
{more}
model = {{ architecture = "softmax" }}
[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}]
[training]
optimizer = "sgd"
validation_split = 0.2
[cohort]
sites = ["a", "b", "c"]
round_timeout = "100s"
max_attempts = 1
"#
    )
}

/// A federation with three sites, and a folder with a search.
async fn federation(run: &str, search: &str) -> Result<(Federation, Operator, PathBuf)> {
    let mut federation = Federation::new()?;
    let address = federation.start_server()?;
    for (number, site) in SITES.iter().enumerate() {
        federation.start_site(site, &csv(number as u32))?;
    }
    let operator = federation.connect(Role::Operator, "op").await?;
    let dir = federation.path().join("search");
    fs::create_dir(&dir)?;
    let identity = federation.issue(Role::Operator, "op")?.replace("[identity]\n", "");
    fs::write(dir.join("operator.toml"), format!("server = \"{address}\"\n{identity}"))?;
    fs::write(dir.join("run.toml"), run)?;
    fs::write(dir.join("search.toml"), search)?;
    Ok((federation, operator, dir))
}

fn tune(dir: &Path, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary("sheaf")?);
    command.current_dir(dir).env_remove("SHEAF_CONFIG").args(["tune", "search.toml"]).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

async fn output(mut command: Command) -> Result<Output> {
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn names(runs: &Value) -> Vec<&str> {
    runs.as_array().into_iter().flatten().filter_map(|run| run["run"].as_str()).collect()
}

#[tokio::test]
async fn a_grid_finds_the_rate_that_learns_and_outlives_the_one_that_diverges() -> Result<()> {
    let search = r#"
run = "run.toml"
method = "grid"
budget_rounds = 12
metric = "accuracy"
[search]
"training.learning_rate" = [1e-6, 1e300, 0.5]
"#;
    let (_federation, mut operator, dir) = federation(&run("secure_aggregation = \"off\""), search).await?;

    let planned = output(tune(&dir, &["--dry-run"])?).await?;
    let planned = String::from_utf8(planned.stdout)?;
    ensure!(
        planned.ends_with("toy: 3 trials of 4 rounds: at most 12 rounds, of budget_rounds = 12\n"),
        "{planned}"
    );
    let Reply::Runs(runs) = operator.ask(&Request::Runs).await? else { panic!("no list") };
    assert!(runs.is_empty(), "nothing was queued");

    let found = output(tune(&dir, &["--out", "found"])?).await?;
    assert!(found.status.success(), "{}", told(&found));
    assert_eq!(told(&found).matches("the server sees each site's update").count(), 1, "{}", told(&found));
    let text = String::from_utf8(found.stdout)?;
    let rows: Vec<Vec<&str>> = text.lines().take(4).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(&rows[1][..3], ["toy-t003", "0.5", "4/4"], "{text}");
    assert_eq!(&rows[2][..3], ["toy-t001", "1e-6", "4/4"], "{text}");
    assert_eq!(&rows[3][..5], ["toy-t002", "1e300", "0/4", "-", "failed"], "{text}");
    assert!(text.contains("the loss became inf"), "says why: {text}");
    assert!(text.trim_end().ends_with("[training]\nlearning_rate = 0.5"), "{text}");

    let status = operator.status(&"toy-t003".parse::<RunId>()?).await?;
    let accuracy =
        status.final_metrics.as_ref().and_then(|report| report.classification()).context("metrics")?.accuracy;
    assert_eq!(rows[1][3], format!("{accuracy:.4}"));
    assert!(accuracy > 0.9, "{text}");
    let results = fs::read_to_string(dir.join("found/results.csv"))?;
    assert!(
        results
            .lines()
            .nth(1)
            .is_some_and(|row| row.starts_with(&format!("toy-t003,3,0.5,4,4,{accuracy},completed"))),
        "{results}"
    );
    assert!(fs::read_to_string(dir.join("found/toy-t002.toml"))?.contains("learning_rate = 1000000"));
    Ok(())
}

#[tokio::test]
async fn halving_under_encryption_is_interrupted_and_goes_on_where_it_was() -> Result<()> {
    let search = r#"
run = "run.toml"
seed = 3
method = "halving"
eta = 2
min_rounds = 2
trials = 4
budget_rounds = 16
[search]
"training.learning_rate" = { log_uniform = [1e-3, 1.0] }
"training.local_epochs" = { integer = [1, 3] }
"#;
    let (_federation, mut operator, dir) = federation(&run(""), search).await?;
    let mut child = tune(&dir, &[])?.spawn()?;
    let first: RunId = "toy-t001".parse()?;
    while operator
        .ask(&Request::Run(first.clone()))
        .await
        .is_ok_and(|reply| matches!(reply, Reply::Refused(_)))
    {
        ensure!(child.try_wait()?.is_none(), "it ended before its first run");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    operator.wait_until(&first, |status| !status.history.is_empty()).await?;
    ensure!(Command::new("kill").args(["-INT", &child.id().to_string()]).status()?.success(), "kill failed");
    let stopped = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
    assert_eq!(stopped.status.code(), Some(130), "{}", told(&stopped));
    assert!(
        told(&stopped).contains("`sheaf tune search.toml --resume` goes on with it"),
        "{}",
        told(&stopped)
    );
    let before = operator.wait_for_end(&first).await?;

    let again = output(tune(&dir, &[])?).await?;
    assert_eq!(again.status.code(), Some(1));
    assert!(
        told(&again).contains("error: there is a run toy-t001 already: `--resume` goes on"),
        "{}",
        told(&again)
    );
    let changed = search.replace("seed = 3", "seed = 4");
    fs::write(dir.join("search.toml"), changed)?;
    let another = output(tune(&dir, &["--resume"])?).await?;
    assert!(
        told(&another).contains("error: the run toy-t001 at the server is not what would be run now"),
        "{}",
        told(&another)
    );
    fs::write(dir.join("search.toml"), search)?;

    let found = output(tune(&dir, &["--resume", "--json"])?).await?;
    assert!(found.status.success(), "{}", told(&found));
    let found: Value = serde_json::from_slice(&found.stdout)?;
    assert_eq!(found["rungs"], json!([{ "trials": 4, "rounds": 2 }, { "trials": 2, "rounds": 4 }]));
    assert_eq!((&found["planned_rounds"], &found["completed_rounds"]), (&json!(16), &json!(16)));
    let order = names(&found["runs"]);
    assert_eq!(order.len(), 6, "{found:#}");
    assert!(
        order[..2].iter().all(|run| run.ends_with("-r2")) && order[2..].iter().all(|run| run.len() == 8),
        "{found:#}"
    );
    let losses: Vec<f64> =
        found["runs"].as_array().context("runs")?.iter().filter_map(|run| run["value"].as_f64()).collect();
    assert!(losses[0] <= losses[1] && losses[2..].is_sorted(), "{losses:?}");
    let climbed: Vec<&str> = order[..2].iter().map(|run| run.trim_end_matches("-r2")).collect();
    assert!(order[2..4].iter().all(|run| climbed.contains(run)), "the best two went on: {order:?}");
    assert_eq!(found["best"]["run"], order[0]);

    let Reply::Runs(runs) = operator.ask(&Request::Runs).await? else { panic!("no list") };
    assert_eq!(runs.len(), 6, "none was repeated");
    assert_eq!(runs.iter().find(|run| run.run == first), Some(&before.summary));
    Ok(())
}
