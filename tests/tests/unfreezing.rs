//! Gradual unfreezing, end to end: what travels grows between rounds, and everybody makes the same of it.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::status::RunState;
use sheaf_tests::perceptron::{self, Perceptron};
use sheaf_tests::{Federation, binary};

/// Head, then the last hidden layer too; the first one never.
const PHASES: &str = r#"unfreeze = [{ round = 1, trainable = "head" }, { round = 3, trainable = "last:1" }]"#;

/// What is trained from round 3 on.
const LAST: [&str; 2] = ["layers.1.weight", "layers.1.bias"];
/// What is trained from the first round on.
const HEAD: [&str; 2] = ["layers.2.weight", "layers.2.bias"];
/// What is never trained.
const FIRST: [&str; 2] = ["layers.0.weight", "layers.0.bias"];

fn run(more: &str) -> String {
    perceptron::run(4, PHASES, more)
}

#[tokio::test]
async fn one_site_in_the_clear_gives_what_it_gives_alone() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    federation.start_site("a", &perceptron::csv(0))?;
    let base = Perceptron::import(&federation)?;
    let text = format!("secure_aggregation = \"off\"\n{}", run("sites = [\"a\"]"));
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let id = operator.submit(&text).await?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    // The last hidden layer, 4 to 3, and the head, 3 to 2.
    assert_eq!(status.num_params, 15 + 8);

    let run_file = federation.path().join("run.toml");
    fs::write(&run_file, &text)?;
    let output = Command::new(binary("sheaf-client")?)
        .arg("--config")
        .arg(federation.path().join("a.toml"))
        .args(["train", "--run"])
        .arg(&run_file)
        .arg("--model")
        .arg(federation.path().join("base"))
        .arg("--out")
        .arg(federation.path().join("alone"))
        .output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let alone = Perceptron::read(&federation.path().join("alone"))?;

    let together = Perceptron::export(&federation, &id, None)?;
    let after_one = Perceptron::export(&federation, &id, Some(1))?;
    let after_two = Perceptron::export(&federation, &id, Some(2))?;
    for name in FIRST {
        assert_eq!(together.values(name)?, base.values(name)?, "{name} is not trained");
        assert_eq!(alone.values(name)?, base.values(name)?, "{name} is not trained");
    }
    for name in LAST {
        assert_eq!(after_one.values(name)?, base.values(name)?, "{name} is not trained in round 1");
        assert_eq!(after_two.values(name)?, base.values(name)?, "{name} is not trained in round 2");
        assert_ne!(together.values(name)?, base.values(name)?, "{name} is trained in rounds 3 and 4");
    }
    for name in HEAD {
        assert_ne!(after_one.values(name)?, base.values(name)?, "{name} is trained from round 1 on");
    }
    // The server adds a difference where the site alone goes on from its values: one rounding in every round.
    for name in LAST.into_iter().chain(HEAD) {
        for (together, alone) in together.values(name)?.iter().zip(alone.values(name)?) {
            assert!((together - alone).abs() < 1e-5, "{name}: {together} is not {alone}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_site_makes_the_grown_model_of_a_secure_sum_by_itself_whatever_is_killed() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for (number, site) in (0..).zip(["a", "b", "c"]) {
        federation.start_site(site, &perceptron::csv(number))?;
    }
    let base = Perceptron::import(&federation)?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let id = operator.submit(&run("sites = [\"a\", \"b\", \"c\"]")).await?;
    // In the round at whose end what travels grows, and in the one that trains it first.
    for completed in [1, 2] {
        operator.wait_until(&id, |status| status.summary.completed_rounds >= completed).await?;
        federation.kill_server();
        federation.start_server()?;
        operator = federation.connect(Role::Operator, "op").await?;
    }
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    let trained = Perceptron::export(&federation, &id, None)?;
    for name in FIRST {
        assert_eq!(trained.values(name)?, base.values(name)?, "{name} is not trained");
    }
    for name in LAST.into_iter().chain(HEAD) {
        assert_ne!(trained.values(name)?, base.values(name)?, "{name} is trained");
    }
    let record = |round: usize| {
        let history = status.history.iter().find(|record| record.round as usize == round)?;
        Some(history.record.as_ref()?.body.clone())
    };
    let (second, third) = (record(2).context("no record")?, record(3).context("no record")?);
    assert_eq!(third.model_in, second.model_out, "the grown parameters are those that were agreed on");
    for site in ["a", "b", "c"] {
        let log = federation.log(site);
        let grown = second.model_out.short();
        let makes = |line: &str| line.contains("the model is what follows from it") && line.contains(&grown);
        assert!(log.lines().any(makes), "{site} did not make {grown} by itself: {log}");
    }
    Ok(())
}
