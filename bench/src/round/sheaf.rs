//! Ours: `sheaf-server` and N `sheaf-client`s with certificates of their own.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use sheaf_common::id::Role;
use sheaf_common::message::{Reply, Request, SiteMessage};
use sheaf_common::params::from_bytes;
use sheaf_common::status::{Answer, MemberStatus};
use sheaf_tests::{Federation, Operator, PATIENCE, Part, ScriptedSite};
use sheaf_transport::blobs::BlobDir;
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

/// Whoever is connected knows after this how long the path's packets may be.
const SETTLE: Duration = Duration::from_secs(3);

/// What a client adds to each value in a round, at least; nobody adds more than twice as much.
const STEP: f64 = 0.001;

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
        settle(&mut operator, work.clients).await?;
        began = Instant::now();
    }
    let run = operator.submit(&text(work, PLAIN)).await?;
    // A client that works has the model, as those of others have when they are asked.
    let works = |member: &MemberStatus| member.progress.is_some() || member.answer != Answer::Pending;
    loop {
        let status = operator.status(&run).await?;
        let works = status.current.iter().flat_map(|round| &round.members).any(works);
        if works || !status.history.is_empty() {
            return Ok(Sample { seconds: vec![began.elapsed().as_secs_f64()], ..Sample::default() });
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until so many clients are connected and have settled.
async fn settle(operator: &mut Operator, clients: u32) -> Result<()> {
    let began = Instant::now();
    loop {
        ensure!(began.elapsed() < PATIENCE, "{clients} clients were not connected after {PATIENCE:?}");
        let Reply::Sites(sites) = operator.ask(&Request::Sites).await? else {
            bail!("the server does not say")
        };
        if sites.iter().filter(|site| site.connection.is_some()).count() >= clients as usize {
            break;
        }
        sleep(LOOK).await;
    }
    sleep(SETTLE).await;
    Ok(())
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
    settle(&mut operator, work.clients).await?;
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
    let blobs = BlobDir::open(federation.path().join("server/blobs"))?;
    // Quantizing for a secure sum rounds at random, which a mean over all values does not show.
    let model = from_bytes(&blobs.read(status.global)?);
    let mean = model.iter().map(|value| f64::from(*value)).sum::<f64>() / model.len() as f64;
    let grown = mean / (STEP * f64::from(rounds));
    ensure!((0.99..2.01).contains(&grown), "the model has grown by {grown} steps a round");
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
