//! Updates in fewer bytes: every encoding learns what plain values do, also after a crash, and nobody slips another in.

use std::fs;

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::message::SiteMessage;
use sheaf_common::metrics::Report;
use sheaf_common::status::{Answer, RunState, RunStatus};
use sheaf_tests::perceptron::csv;
use sheaf_tests::{Federation, Operator, update};

fn run(model: &str, rounds: u32, sites: &str, compression: &str) -> String {
    format!(
        r#"
name = "small"
rounds = {rounds}
seed = 7
secure_aggregation = "off"
model = {model}
compression = {compression}
[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}, {{ column = "z", type = "numeric" }}]
[training]
learning_rate = 0.01
batch_size = 16
local_epochs = 2
validation_split = 0.2
[cohort]
sites = [{sites}]
round_timeout = "100s"
"#
    )
}

const WIDE: &str = r#"{ architecture = "mlp", hidden = [400, 100] }"#;

async fn federation() -> Result<(Federation, Operator)> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for (number, site) in ["a", "b"].into_iter().enumerate() {
        federation.start_site(site, &csv(number as u32))?;
    }
    let operator = federation.connect(Role::Operator, "op").await?;
    Ok((federation, operator))
}

fn accuracy(status: &RunStatus) -> Result<f64> {
    let metrics = status.final_metrics.as_ref().and_then(Report::classification);
    Ok(metrics.context("there is a validation split")?.accuracy)
}

/// Bytes of each update that a site sent, by its audit log.
fn sent(federation: &Federation, site: &str) -> Result<Vec<u64>> {
    let log = fs::read_to_string(federation.path().join(site).join("audit.log"))?;
    let entries = log.lines().filter(|line| line.contains("sending"));
    let bytes = entries.filter_map(|line| {
        let (_, rest) = line.split_once("\"bytes\":")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    Ok(bytes.collect())
}

#[tokio::test]
async fn every_encoding_learns_and_sends_what_it_promises() -> Result<()> {
    let (federation, mut operator) = federation().await?;
    let mut seen = 0;
    for (compression, share) in [
        ("{ zstd = true }", 1.0),
        (r#"{ encoding = "bf16" }"#, 0.501),
        (r#"{ encoding = "int8", zstd = true }"#, 0.26),
        (r#"{ encoding = "top-k", share = 0.05 }"#, 0.051),
    ] {
        let id = operator.submit(&run(WIDE, 4, r#""a", "b""#, compression)).await?;
        let status = operator.wait_for_end(&id).await?;
        assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
        assert!(accuracy(&status)? > 0.9, "{compression}: {}", accuracy(&status)?);
        let updates = sent(&federation, "a")?;
        let most = (status.num_params * 4) as f64 * share;
        assert_eq!(updates.len() - seen, 4, "{compression}");
        assert!(
            updates[seen..].iter().all(|bytes| (*bytes as f64) < most),
            "{compression}: {updates:?} of {most}"
        );
        seen = updates.len();
    }
    Ok(())
}

#[tokio::test]
async fn what_is_left_out_survives_a_site_that_is_killed() -> Result<()> {
    let text = run(WIDE, 5, r#""a", "b""#, r#"{ encoding = "top-k", share = 0.02 }"#);
    let mut ends = Vec::new();
    for kill in [false, true] {
        let (mut federation, mut operator) = federation().await?;
        let id = operator.submit(&text).await?;
        if kill {
            operator.wait_until(&id, |status| status.history.len() >= 2).await?;
            federation.kill_site("b");
            federation.start_site("b", &csv(1))?;
        }
        let status = operator.wait_for_end(&id).await?;
        assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
        ends.push(status.global);
    }
    assert_eq!(ends[0], ends[1]);
    Ok(())
}

#[tokio::test]
async fn an_update_in_another_form_is_not_counted() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    federation.start_site("a", &csv(0))?;
    let mut rogue = federation.connect_site("rogue").await?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let softmax = r#"{ architecture = "softmax" }"#;
    let text = run(softmax, 1, r#""a", "rogue""#, r#"{ encoding = "bf16" }"#);
    let text = text.replace("round_timeout", "min_updates = 1\nround_timeout");
    let id = operator.submit(&text).await?;
    let task = rogue.task().await?;
    let plain = rogue.put(&vec![0.5; task.job.params.numel() as usize]).await?;
    let reason = rogue.refusal(update(&task, plain)).await?;
    assert_eq!(reason, "its values do not travel as the run's `[compression]` says");
    let last = rogue.evaluation().await?;
    rogue.say(&SiteMessage::Evaluated { task: last, metrics: None }).await?;
    let status = operator.wait_for_end(&id).await?;
    let answers: Vec<_> = status.history[0].participants.iter().map(|site| &site.answer).collect();
    assert_eq!(answers, [&Answer::Accepted, &Answer::Rejected(reason)]);
    Ok(())
}
