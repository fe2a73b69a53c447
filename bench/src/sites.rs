//! One server and very many sites, each with an identity, a connection and a socket of its own, all of them in this process:
//! when they have nothing to do, and when all of them are in a round.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sheaf_common::id::Role;
use sheaf_common::message::{Reply, Request, SiteMessage};
use sheaf_tests::{Federation, ScriptedSite, update};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::case::{Case, Group, Sample};
use crate::process::Watch;
use crate::settings::Settings;

/// So long idle sites are watched: two signs of life of each.
const WHILE: Duration = Duration::from_secs(30);

/// How often the server is asked how far it is.
const LOOK: Duration = Duration::from_millis(2);

/// Values of the model that a crowd trains.
const VALUES: u32 = 1000;
/// Rounds of a crowd; the first is not counted.
const ROUNDS: u32 = 3;

pub(crate) fn idle_groups(settings: &Settings) -> Vec<Group> {
    let sites = settings.idle;
    group("idle sites", sites, 0.0, move || Runtime::new()?.block_on(idle(sites)))
}

pub(crate) fn crowd_groups(settings: &Settings) -> Vec<Group> {
    let sites = settings.crowd;
    group("crowd", sites, f64::from(VALUES) * 4.0 / 1e6, move || Runtime::new()?.block_on(crowd(sites)))
}

fn group(
    workload: &'static str,
    clients: u32,
    size_mb: f64,
    run: impl Fn() -> Result<Sample> + 'static,
) -> Vec<Group> {
    vec![vec![Case { workload, contestant: "Sheaf", size_mb, clients, run: Box::new(run) }]]
}

/// A server, and its sites.
async fn connected(count: u32) -> Result<(Federation, Vec<ScriptedSite>, Watch)> {
    let mut federation = Federation::new()?;
    federation.limit(&format!("connections = {0}\nconnections_per_address = {0}\n", 2 * count.max(1)));
    federation.start_server()?;
    let watch = Watch::over(vec![federation.server_id()?]);
    let mut sites = Vec::new();
    for number in 0..count {
        let name = format!("site-{number}");
        federation.issue(Role::Site, &name)?;
        sites.push(federation.connect_site(&name).await?);
    }
    Ok((federation, sites, watch))
}

async fn idle(count: u32) -> Result<Sample> {
    let (_federation, _sites, watch) = connected(count).await?;
    // What connecting took is over.
    sleep(Duration::from_secs(2)).await;
    let cpu = watch.cpu_seconds();
    sleep(WHILE).await;
    Ok(Sample {
        seconds: vec![WHILE.as_secs_f64()],
        server_rss_mb: Some(watch.peak_mb()),
        cpu_seconds: Some(watch.cpu_seconds() - cpu),
        wire: None,
    })
}

async fn crowd(count: u32) -> Result<Sample> {
    let (federation, sites, watch) = connected(count).await?;
    let mut at_work = JoinSet::new();
    for site in sites {
        at_work.spawn(train(site));
    }
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let cpu = watch.cpu_seconds();
    operator.submit(&text(count)).await?;
    // No message holds the records of so many sites: it is looked when rounds end.
    let mut ends = Vec::new();
    while ends.len() < ROUNDS as usize {
        let Reply::Runs(runs) = operator.ask(&Request::Runs).await? else { bail!("the server does not say") };
        let summary = runs.first().context("the run is gone")?;
        let done = summary.completed_rounds as usize;
        ensure!(
            done == ROUNDS as usize || !summary.state.is_final(),
            "the run ended early: {}",
            summary.detail
        );
        ends.resize(done, Instant::now());
        sleep(LOOK).await;
    }
    Ok(Sample {
        seconds: ends.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect(),
        server_rss_mb: Some(watch.peak_mb()),
        cpu_seconds: Some((watch.cpu_seconds() - cpu) / f64::from(ROUNDS)),
        wire: None,
    })
}

/// Gets the model in each round and gives as many values back, until the connection ends.
async fn train(mut site: ScriptedSite) -> Result<()> {
    loop {
        let task = site.task().await?;
        site.fetch(task.job.global).await?;
        let delta = site.put(&[1.0; VALUES as usize]).await?;
        site.say(&SiteMessage::Update(Box::new(update(&task, delta)))).await?;
    }
}

fn text(count: u32) -> String {
    format!(
        r#"
name = "crowd"
rounds = {ROUNDS}
secure_aggregation = "off"
model = {{ architecture = "constant", parameters = {VALUES} }}
task = {{ type = "none" }}
cohort = {{ min_sites = {count}, round_timeout = "1h" }}
"#
    )
}
