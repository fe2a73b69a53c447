//! Ours: `sheaf-server` and N `sheaf-client`s with certificates of their own.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sheaf_common::id::Role;
use sheaf_common::message::SiteMessage;
use sheaf_tests::{Federation, Operator, Part, ScriptedSite};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::{Since, Work};
use crate::case::Sample;
use crate::process::{Watch, loopback_bytes};

/// How updates are summed, and how many clients drop out of every round after they shared their keys.
pub(super) type Sum = (&'static str, u32);
pub(super) const PLAIN: Sum = ("off", 0);
pub(super) const SECURE: Sum = ("required", 0);
pub(super) const LOSING: Sum = ("required", 1);

/// How often the server is asked how far it is.
const LOOK: Duration = Duration::from_millis(50);

/// Seconds of each round.
pub(super) fn run(work: Work, sum: Sum) -> Result<Sample> {
    Runtime::new()?.block_on(measure(work, sum))
}

/// Seconds until a client is asked to train.
pub(super) fn start(work: Work, since: Since) -> Result<Sample> {
    Runtime::new()?.block_on(wait_for_task(work, since))
}

async fn wait_for_task(work: Work, since: Since) -> Result<Sample> {
    let mut federation = Federation::new()?;
    // Certificates are there before anything starts, as those of others are.
    federation.issue(Role::Operator, "op")?;
    for name in names(work) {
        federation.issue(Role::Site, &name)?;
    }
    let mut began = Instant::now();
    let mut operator = up(&mut federation, &names(work)).await?;
    if let Since::Submit = since {
        // Until everybody is connected.
        sleep(Duration::from_secs(3)).await;
        began = Instant::now();
    }
    let run = operator.submit(&text(work, PLAIN)).await?;
    while operator.status(&run).await?.current.is_none() {
        sleep(Duration::from_millis(2)).await;
    }
    Ok(Sample { seconds: vec![began.elapsed().as_secs_f64()], ..Sample::default() })
}

fn names(work: Work) -> Vec<String> {
    (0..work.clients).map(|number| format!("site-{number}")).collect()
}

/// Starts the server and these clients.
async fn up(federation: &mut Federation, names: &[String]) -> Result<Operator> {
    federation.start_server()?;
    for name in names {
        federation.start_site(name, "")?;
    }
    federation.connect(Role::Operator, "op").await
}

fn text(work: Work, (secure_aggregation, lost): Sum) -> String {
    let Work { megabytes, rounds, clients } = work;
    let min_updates = clients - lost;
    let (names, parameters) = (names(work), u64::from(megabytes) * 1_000_000 / 4);
    format!(
        r#"
name = "round"
rounds = {rounds}
secure_aggregation = "{secure_aggregation}"
model = {{ architecture = "constant", parameters = {parameters} }}
task = {{ type = "none" }}
cohort = {{ sites = {names:?}, min_sites = {clients}, min_updates = {min_updates}, round_timeout = "1h" }}
"#
    )
}

async fn measure(work: Work, sum: Sum) -> Result<Sample> {
    let rounds = work.rounds;
    let mut federation = Federation::new()?;
    let names = names(work);
    let (lost, whole) = names.split_at(sum.1 as usize);
    let mut operator = up(&mut federation, whole).await?;
    let mut dropouts = JoinSet::new();
    for name in lost {
        federation.issue(Role::Site, name)?;
        dropouts.spawn(drop_out(federation.connect_site(name).await?));
    }
    let watch = Watch::over(vec![federation.server_id()?]);
    let (cpu, bytes) = (watch.cpu_seconds(), loopback_bytes()?);
    let run = operator.submit(&text(work, sum)).await?;
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

/// In every round gives its keys and their shares, and then no update.
async fn drop_out(mut site: ScriptedSite) -> Result<()> {
    loop {
        let task = site.task().await?.id;
        site.take_part(&task, &[], Part::Keys).await?;
        site.say(&SiteMessage::Declined { task, reason: "it is lost".into() }).await?;
    }
}
