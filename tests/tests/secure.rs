//! Secure aggregation end to end: real processes, real certificates, real training. The sum is right, sites may
//! vanish and come back, and nothing that the server keeps holds a single site's update.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sheaf_common::metrics::Report;
use sheaf_common::status::{Answer, RoundOutcome, RunState, RunStatus};
use sheaf_tests::{Federation, Operator, Part, wait_for};

/// Two clouds of points, of which site `site` sees mostly one.
fn csv(site: u32) -> String {
    let mut text = String::from("x,z,label\n");
    for i in 0..60u32 {
        let positive = (i + site).is_multiple_of(3);
        let wave = f64::from(i * 37 % 101) / 101.0 - 0.5;
        let centre = if positive { 1.0 } else { -1.0 };
        let label = if positive { "yes" } else { "no" };
        text += &format!("{:.4},{:.4},{label}\n", centre + wave, f64::from(site) * 0.1 - wave);
    }
    text
}

fn run(secure: bool, rounds: u32, cohort: &str) -> String {
    let secure = if secure { "[secagg]\nstage_timeout = \"60s\"\n" } else { "" };
    let off = if secure.is_empty() { "secure_aggregation = \"off\"\n" } else { "" };
    format!(
        r#"
name = "toy"
rounds = {rounds}
seed = 7
{off}
model = {{ architecture = "softmax" }}

[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}, {{ column = "z", type = "numeric" }}]

[training]
optimizer = "sgd"
learning_rate = 0.5
batch_size = 16
local_epochs = 2
validation_split = 0.2

{secure}
[cohort]
round_timeout = "100s"
max_examples = 64
{cohort}
"#
    )
}

async fn federation(sites: &[&str]) -> Result<(Federation, Operator)> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for (number, site) in sites.iter().enumerate() {
        federation.start_site(site, &csv(number as u32))?;
    }
    let operator = federation.connect(sheaf_common::id::Role::Operator, "op").await?;
    Ok((federation, operator))
}

fn accuracy(status: &RunStatus) -> Result<f64> {
    let report = status.final_metrics.as_ref().and_then(Report::classification);
    Ok(report.with_context(|| format!("no final metrics: {status:?}"))?.accuracy)
}

const FOUR: &str = "min_sites = 4\nmin_updates = 3";

#[tokio::test(flavor = "multi_thread")]
async fn a_secure_run_learns_what_a_plain_one_learns_and_hides_every_update() -> Result<()> {
    let (_federation, mut operator) = federation(&["a", "b", "c", "d"]).await?;
    let plain = operator.submit(&run(false, 3, FOUR)).await?;
    let plain = operator.wait_for_end(&plain).await?;
    assert_eq!(plain.summary.state, RunState::Completed, "{:?}", plain.summary);
    let secure = operator.submit(&run(true, 3, FOUR)).await?;
    let secure = operator.wait_for_end(&secure).await?;
    assert_eq!(secure.summary.state, RunState::Completed, "{:?}", secure.summary);
    assert_eq!(secure.history.len(), 3);
    for (record, plain) in secure.history.iter().zip(&plain.history) {
        assert!(matches!(record.outcome, RoundOutcome::Completed(_)), "{record:?}");
        let sum = record.secure.as_ref().context("the round was not summed securely")?;
        assert_eq!((sum.sites, sum.num_examples), (4, 4 * 48));
        assert!(sum.rounding_error < 1e-3, "{sum:?}");
        // Whatever one site counted or weighed stays unknown.
        assert!(record.participants.iter().all(|site| site.num_examples.is_none()), "{record:?}");
        let (loss, plain) = (record.train_loss.context("no loss")?, plain.train_loss.context("no loss")?);
        assert!((loss - plain).abs() < 1e-3, "{loss} against {plain}");
        assert!(record.global_metrics.is_some() && record.local_metrics.is_some());
    }
    assert!((accuracy(&secure)? - accuracy(&plain)?).abs() < 0.005);
    Ok(())
}

/// The best model is an earlier one than the last, which the sites then no longer have.
#[tokio::test(flavor = "multi_thread")]
async fn the_model_that_validation_chose_is_tested_at_the_end() -> Result<()> {
    let (_federation, mut operator) = federation(&["a", "b", "c", "d"]).await?;
    let chosen = "[validation]\nmonitor = \"accuracy\"\nrestore_best = true\ntest_split = 0.17\n[cohort]";
    let mut tests = Vec::new();
    for secure in [false, true] {
        let text = run(secure, 6, FOUR).replace("[cohort]", chosen);
        let id = operator.submit(&text).await?;
        let status = operator.wait_for_end(&id).await?;
        assert_eq!(status.summary.detail, "", "{:?}", status.summary);
        assert!(status.result < status.summary.completed_rounds, "{:?}", status.best);
        let validation = status.final_metrics.as_ref().context("no final metrics")?;
        // Of 60 examples at each site ten are for the test, and a fifth of the rest for validation.
        assert_eq!(validation.num_examples(), 4 * 10);
        let test = status.test_metrics.context("no test")?;
        assert_eq!(test.num_examples(), 4 * 10);
        tests.push(test.classification().context("no classification")?.accuracy);
    }
    assert!((tests[0] - tests[1]).abs() < 0.02, "{tests:?}");
    Ok(())
}

/// Twelve validation examples are too few for one of the sites; what it trains counts all the same.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_few_examples_stay_at_the_site() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for (number, least) in [12, 13, 12].into_iter().enumerate() {
        let policy = format!("min_metric_count = {least}");
        federation.start_site_by(&policy, &format!("site-{number}"), &csv(number as u32), "")?;
    }
    let mut operator = federation.connect(sheaf_common::id::Role::Operator, "op").await?;
    for secure in [false, true] {
        let id = operator.submit(&run(secure, 1, "min_sites = 3\nmin_updates = 3")).await?;
        let status = operator.wait_for_end(&id).await?;
        assert_eq!(status.summary.state, RunState::Completed, "{:?}", status.summary);
        let record = status.history.first().context("no round")?;
        for metrics in [&record.global_metrics, &record.local_metrics, &status.final_metrics] {
            assert_eq!(metrics.as_ref().map(Report::num_examples), Some(24), "secure: {secure}");
        }
        let answered = record.participants.iter().filter(|site| site.answer == Answer::Accepted);
        assert_eq!(answered.count(), 3);
    }
    let log = fs::read_to_string(federation.path().join("site-1.log"))?;
    let sentence = "they are of 12 examples, and policy.min_metric_count of site.toml asks for 13";
    assert!(log.contains(sentence), "{log}");
    Ok(())
}

const WIDE: usize = 400_000;

#[tokio::test(flavor = "multi_thread")]
async fn no_blob_of_the_server_goes_along_with_a_sites_update() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let mut operator = federation.connect(sheaf_common::id::Role::Operator, "op").await?;
    let text = format!(
        "name = \"wide\"\nrounds = 1\nmodel = {{ architecture = \"constant\", parameters = {WIDE} }}\n\
         task = {{ type = \"none\" }}\ncohort = {{ min_sites = 3, round_timeout = \"100s\" }}\n"
    );
    operator.submit(&text).await?;
    // Every site's update is known here: independent noise, so that it can be told apart in anything.
    let updates: Vec<Vec<f32>> =
        (0..3).map(|_| (0..WIDE).map(|_| rand::random_range(-0.9..0.9f32)).collect()).collect();
    let mut sites = Vec::new();
    for name in ["a", "b", "c"] {
        sites.push(federation.connect_site(name).await?);
    }
    let mut work = tokio::task::JoinSet::new();
    for (mut site, update) in sites.into_iter().zip(updates.clone()) {
        work.spawn(async move {
            let task = site.task().await?;
            // All shares are withheld, so that the server keeps the vectors while it waits for them.
            site.take_part(&task.id, &update, Part::Vector).await?;
            Ok::<_, anyhow::Error>(site)
        });
    }
    let sites = work.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let mut seen: Vec<Vec<u8>> = Vec::new();
    collect(&federation.path().join("server"), &mut seen)?;
    drop(sites);
    // 16 bits of a value and 2 of the sum over three sites: three bytes each.
    let masked: Vec<&Vec<u8>> =
        seen.iter().filter(|blob| blob.len() >= 3 * WIDE && blob.len() < 4 * WIDE).collect();
    assert_eq!(masked.len(), 3, "the server holds one masked vector of each site");
    for (blob, update) in
        seen.iter().filter(|blob| blob.len() >= 2 * WIDE).flat_map(|b| updates.iter().map(move |u| (b, u)))
    {
        // As ring elements of two, three or four bytes, and as values.
        for width in 2..=4 {
            let integers = blob.chunks_exact(width).map(|bytes| {
                bytes.iter().rev().fold(0u32, |value, byte| value << 8 | u32::from(*byte)) as f64
            });
            let found = correlation(integers, update);
            assert!(found.abs() < 0.01, "correlation {found} at {width} bytes a value");
        }
        let (floats, _) = blob.as_chunks::<4>();
        let floats = floats.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        let found = correlation(floats.map(|value| if value.is_finite() { value } else { 0.0 }), update);
        assert!(found.abs() < 0.01, "correlation {found} as values");
    }
    for blob in masked {
        // Masked elements are uniform: their bytes fill every value alike.
        let mut counts = [0u64; 256];
        for byte in blob {
            counts[usize::from(*byte)] += 1;
        }
        let expected = blob.len() as f64 / 256.0;
        let chi: f64 = counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: 6 standard deviations above the mean is 390.
        assert!(chi < 390.0, "chi-square {chi}");
    }
    // The measure sees what there is to see: an update goes along with itself, quantised.
    let quantised = updates[0].iter().map(|value| f64::from((value * 100.0).round()));
    assert!(correlation(quantised, &updates[0]) > 0.99);
    Ok(())
}

/// Pearson's, over as many values as both have; with 400 000 its standard error is 0.0016.
fn correlation(found: impl Iterator<Item = f64> + Clone, update: &[f32]) -> f64 {
    let pairs = || found.clone().zip(update.iter().map(|value| f64::from(*value)));
    let count = pairs().count().max(1) as f64;
    let (sum_x, sum_y) = pairs().fold((0.0, 0.0), |(x, y), (a, b)| (x + a, y + b));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs() {
        let (x, y) = (x - mean_x, y - mean_y);
        (xy, xx, yy) = (xy + x * y, xx + x * x, yy + y * y);
    }
    // Against a constant there is nothing to go along with.
    if xx == 0.0 || yy == 0.0 { 0.0 } else { xy / (xx * yy).sqrt() }
}

/// What lies in a folder.
fn collect(folder: &Path, seen: &mut Vec<Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, seen)?;
        } else {
            seen.push(fs::read(&path)?);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_quantum_run_learns_too() -> Result<()> {
    let (_federation, mut operator) = federation(&["a", "b", "c", "d"]).await?;
    let text = run(true, 2, FOUR).replace("[secagg]", "[secagg]\npost_quantum = true");
    let name = operator.submit(&text).await?;
    let status = operator.wait_for_end(&name).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{:?}", status.summary);
    assert!(status.history.iter().all(|record| record.secure.as_ref().is_some_and(|sum| sum.sites == 4)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_and_a_killed_site_cost_no_secret_and_no_round() -> Result<()> {
    let (mut federation, mut operator) = federation(&["a", "b", "c", "d"]).await?;
    let text = run(true, 6, FOUR);
    let name = operator.submit(&text).await?;
    let mut kills = 0;
    let status = loop {
        let status = operator.status(&name).await?;
        if status.summary.state.is_final() {
            break status;
        }
        if kills < 3 && status.summary.completed_rounds > kills {
            kills += 1;
            federation.kill_server();
            federation.kill_site("b");
            federation.start_server()?;
            federation.start_site("b", &csv(1))?;
            operator = federation.connect(sheaf_common::id::Role::Operator, "op").await?;
        }
    };
    assert_eq!(status.summary.state, RunState::Completed, "{:?}", status.summary);
    assert_eq!(kills, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_vanishes_for_good_costs_its_update_and_not_the_run() -> Result<()> {
    let (mut federation, mut operator) = federation(&["a", "b", "c", "d"]).await?;
    let text = run(true, 4, FOUR).replace("min_sites = 4", "min_sites = 3");
    let text = text.replace("100s", "5s").replace("60s", "5s");
    let name = operator.submit(&text).await?;
    wait_for("the first round", || federation.log("a").contains("over").then_some(()))?;
    federation.kill_site("d");
    let status = operator.wait_for_end(&name).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{:?}", status.summary);
    let completed =
        status.history.iter().filter(|record| matches!(record.outcome, RoundOutcome::Completed(_))).count();
    assert_eq!(completed, 4);
    Ok(())
}
