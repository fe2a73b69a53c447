//! Measures a round without training: real processes, N sites that add a constant to a model of any size.
//!
//! `cargo run --release -p sheaf-tests --example round -- 400 8 4` runs 4 rounds of 400 MB with 8 sites, without and
//! then with secure aggregation, and prints the seconds of each round after the first, the server's peak memory
//! and its processor time.

use std::time::Duration;

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_tests::Federation;

#[tokio::main]
async fn main() -> Result<()> {
    let numbers = std::env::args().skip(1).map(|text| text.parse::<u64>()).collect::<Result<Vec<_>, _>>()?;
    let [megabytes, sites, rounds] = numbers[..] else {
        anyhow::bail!("usage: round MEGABYTES SITES ROUNDS");
    };
    let plain = measure("off", megabytes, sites, rounds).await?;
    let secure = measure("required", megabytes, sites, rounds).await?;
    println!("a secure round takes {:.2} times a plain one", secure / plain);
    Ok(())
}

/// Runs a federation of its own and returns the median of the seconds of a round.
async fn measure(secure_aggregation: &str, megabytes: u64, sites: u64, rounds: u64) -> Result<f64> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let names: Vec<String> = (0..sites).map(|number| format!("site-{number}")).collect();
    for name in &names {
        federation.start_site(name, "")?;
    }
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let parameters = megabytes * 1_000_000 / 4;
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
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    anyhow::ensure!(status.history.len() as u64 == rounds, "the run ended early: {}", status.summary.detail);
    let mut seconds: Vec<f64> =
        status.history.iter().skip(1).map(|round| round.ended.since(round.started).as_secs_f64()).collect();
    println!(
        "{megabytes} MB x {sites} sites, secure_aggregation {secure_aggregation:?}: seconds of each round after the first: {seconds:.2?}"
    );
    seconds.sort_by(f64::total_cmp);
    let median = *seconds.get(seconds.len() / 2).context("ask for at least 2 rounds")?;
    println!("median {median:.2} s");
    println!("server: peak memory {:.0} MB", federation.server_peak_memory()? as f64 / 1e6);
    println!("server: processor time {:.1} s for {rounds} rounds", federation.server_cpu_seconds()?);
    Ok(median)
}
