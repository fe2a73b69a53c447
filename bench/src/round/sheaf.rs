//! Ours: `sheaf-server` and N `sheaf-client`s with certificates of their own.

use std::time::Duration;

use anyhow::{Result, ensure};
use sheaf_common::id::Role;
use sheaf_tests::Federation;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::Work;
use crate::case::Sample;
use crate::process::{Watch, loopback_bytes};

/// How often the server is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);

pub(super) fn run(work: Work, secure_aggregation: &str) -> Result<Sample> {
    Runtime::new()?.block_on(measure(work, secure_aggregation))
}

async fn measure(work: Work, secure_aggregation: &str) -> Result<Sample> {
    let Work { megabytes, clients, rounds } = work;
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let names: Vec<String> = (0..clients).map(|number| format!("site-{number}")).collect();
    for name in &names {
        federation.start_site(name, "")?;
    }
    let watch = Watch::over(vec![federation.server_id()?]);
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let (cpu, bytes) = (watch.cpu_seconds(), loopback_bytes()?);
    let parameters = u64::from(megabytes) * 1_000_000 / 4;
    let run = operator
        .submit(&format!(
            r#"
name = "round"
rounds = {rounds}
secure_aggregation = "{secure_aggregation}"
model = {{ architecture = "constant", parameters = {parameters} }}
task = {{ type = "none" }}
cohort = {{ sites = {names:?}, round_timeout = "1h" }}
"#
        ))
        .await?;
    let status = loop {
        let status = operator.status(&run).await?;
        if status.summary.state.is_final() {
            break status;
        }
        sleep(LOOK).await;
    };
    ensure!(status.history.len() as u32 == rounds, "the run ended early: {}", status.summary.detail);
    // Rounds are too short to be told apart from outside; the first one costs as much as the others.
    let counted = status.history.iter().skip(1);
    Ok(Sample {
        seconds: counted.map(|round| round.ended.since(round.started).as_secs_f64()).collect(),
        server_rss_mb: Some(watch.peak_mb()),
        cpu_seconds: Some((watch.cpu_seconds() - cpu) / f64::from(rounds)),
        wire: Some((loopback_bytes()? - bytes) as f64 / work.payload(rounds)),
    })
}
