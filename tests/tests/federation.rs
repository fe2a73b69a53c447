//! A whole federation of processes: it learns, survives its crashes, and treats everybody by their certificate.

use anyhow::{Context, Result};
use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Role};
use sheaf_common::message::{Reply, Request, SiteMessage};
use sheaf_common::metrics::Report;
use sheaf_common::status::{Answer, RoundOutcome, RunState, RunStatus};
use sheaf_tests::{Federation, Operator, update};

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

fn run(rounds: u32, sites: &str, more: &str) -> String {
    format!(
        r#"
name = "toy"
rounds = {rounds}
seed = 7
secure_aggregation = "off"
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

[cohort]
sites = [{sites}]
round_timeout = "100s"
{more}
"#
    )
}

const THREE: &str = r#""a", "b", "c""#;

async fn federation(sites: &[&str]) -> Result<(Federation, Operator)> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for (number, site) in sites.iter().enumerate() {
        federation.start_site(site, &csv(number as u32))?;
    }
    let operator = federation.connect(Role::Operator, "op").await?;
    Ok((federation, operator))
}

fn completed(status: &RunStatus) -> Vec<BlobId> {
    let global = |outcome: &RoundOutcome| match outcome {
        RoundOutcome::Completed(global) => Some(*global),
        RoundOutcome::Abandoned(_) => None,
    };
    status.history.iter().filter_map(|record| global(&record.outcome)).collect()
}

/// A site whose line broke, or that was killed, dials again before the server has missed it.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_comes_back_before_it_was_missed_gets_its_task_again() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    federation.start_site("a", &csv(0))?;
    let mut lost = federation.connect_site("b").await?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let id = operator.submit(&run(1, r#""a", "b""#, "")).await?;
    let asked = lost.task().await?;
    let mut back = federation.connect_site("b").await?;
    let again = back.task().await?;
    assert_eq!(again.id, asked.id, "the same attempt");
    let numel = usize::try_from(again.job.params.numel())?;
    let delta = back.put(&vec![0.25; numel]).await?;
    back.say(&SiteMessage::Update(Box::new(update(&again, delta)))).await?;
    let last = back.evaluation().await?;
    back.say(&SiteMessage::Evaluated { task: last, metrics: None }).await?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    assert_eq!((status.history.len(), status.history[0].attempt), (1, 1));
    drop(lost);
    Ok(())
}

/// The global parameters after each round of an undisturbed run.
async fn undisturbed(rounds: u32) -> Result<Vec<BlobId>> {
    let (_federation, mut operator) = federation(&["a", "b", "c"]).await?;
    let id = operator.submit(&run(rounds, THREE, "")).await?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    Ok(completed(&status))
}

#[tokio::test]
async fn three_sites_learn_together_and_the_metrics_are_pooled() -> Result<()> {
    let (federation, mut operator) = federation(&["a", "b", "c"]).await?;
    let id = operator.submit(&run(5, THREE, "")).await?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    assert_eq!(status.history.len(), 5);
    let metrics = status.final_metrics.as_ref().and_then(Report::classification);
    let metrics = metrics.context("there is a validation split")?;
    assert_eq!(metrics.num_examples, 36, "12 validation examples at each of three sites");
    assert!(metrics.accuracy > 0.95, "{metrics:?}");
    let losses: Vec<f64> = status
        .history
        .iter()
        .filter_map(|r| r.global_metrics.as_ref()?.classification())
        .map(|m| m.loss)
        .collect();
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
    for participant in &status.history[0].participants {
        assert_eq!((&participant.answer, participant.num_examples), (&Answer::Accepted, Some(48)));
    }
    let model = operator.export(&id, &federation.path().join("export")).await?;
    assert_eq!(model.len() as u64, status.num_params * 4);
    assert_eq!(BlobId::of(&model), status.global);
    Ok(())
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bits_whatever_is_killed() -> Result<()> {
    let rounds = 6;
    let expected = undisturbed(rounds).await?;
    assert_eq!(expected.len(), rounds as usize);

    let (mut federation, mut operator) = federation(&["a", "b", "c"]).await?;
    let id = operator.submit(&run(rounds, THREE, "")).await?;
    for kill_after in [1, 2, 4] {
        operator.wait_until(&id, |status| completed(status).len() >= kill_after).await?;
        if kill_after == 2 {
            federation.kill_site("b");
            federation.start_site("b", &csv(1))?;
        } else {
            federation.kill_server();
            federation.start_server()?;
            operator = federation.connect(Role::Operator, "op").await?;
        }
    }
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(completed(&status), expected);
    Ok(())
}

#[tokio::test]
async fn a_server_killed_while_a_site_is_still_out_goes_on_with_the_same_round() -> Result<()> {
    let expected = undisturbed(2).await?;

    let (mut federation, mut operator) = federation(&["a", "b"]).await?;
    let id = operator.submit(&run(2, THREE, "")).await?;
    // The cohort is complete for a moment; then `c` is gone before it can answer, and so is the server.
    federation.start_site("c", &csv(2))?;
    operator.wait_until(&id, |status| status.current.is_some() || !status.history.is_empty()).await?;
    federation.kill_site("c");
    federation.kill_server();
    federation.start_server()?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    federation.start_site("c", &csv(2))?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(completed(&status), expected);
    assert!(status.history.iter().all(|record| record.attempt == 1), "no round was tried twice");
    Ok(())
}

#[tokio::test]
async fn a_site_that_cannot_meet_the_contract_says_why_without_showing_data() -> Result<()> {
    let (mut federation, mut operator) = federation(&["a", "b"]).await?;
    federation.start_site("c", "x,label\n1.5,yes\n-1.0,secret-label\n")?;
    let id = operator.submit(&run(1, THREE, "min_updates = 2")).await?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    let c: ClientId = "c".parse()?;
    let answer = status.history[0].participants.iter().find(|p| p.site == c).map(|p| p.answer.clone());
    let Some(Answer::Declined(reason)) = answer else { panic!("{answer:?}") };
    assert!(reason.contains('z'), "names the missing column: {reason}");
    assert!(!reason.contains("secret-label"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn a_site_that_misbehaves_is_refused_by_reason_and_the_round_goes_on() -> Result<()> {
    let (federation, mut operator) = federation(&["a"]).await?;
    let id = operator.submit(&run(1, THREE, "min_updates = 1")).await?;
    // As long as this one has not answered the round is not over.
    let mut slow = federation.connect_site("b").await?;
    let mut rogue = federation.connect_site("c").await?;
    let open = slow.task().await?;
    let task = rogue.task().await?;
    let length = usize::try_from(task.job.params.numel())?;

    let error = rogue.put(&vec![0.0; length + 1]).await.unwrap_err().to_string();
    assert!(error.contains("an update of this run has 40 bytes, not 44"), "{error}");
    let error = rogue.fetch(BlobId::of(b"somebody's update")).await.unwrap_err().to_string();
    assert!(error.contains("nothing that you were sent names it"), "{error}");
    // The global parameters are no update, although the server has a blob of that name and length.
    let reason = rogue.refusal(update(&task, task.job.global)).await?;
    assert_eq!(reason, "its blob never arrived");
    let sound = rogue.put(&vec![0.25; length]).await?;
    let reason = rogue.refusal(update(&task, sound)).await?;
    assert_eq!(reason, "c has already answered toy round 1");
    slow.say(&SiteMessage::Declined { task: open.id, reason: "enough".into() }).await?;
    let last = slow.evaluation().await?;
    slow.say(&SiteMessage::Evaluated { task: last, metrics: None }).await?;
    let last = rogue.evaluation().await?;
    rogue.say(&SiteMessage::Declined { task: last, reason: "\u{1b}[2Jbored".into() }).await?;

    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    let answers: Vec<&Answer> = status.history[0].participants.iter().map(|p| &p.answer).collect();
    let refused = Answer::Rejected("its blob never arrived".into());
    assert_eq!(answers, [&Answer::Accepted, &Answer::Declined("enough".into()), &refused]);
    assert_eq!(operator.export(&id, &federation.path().join("export")).await?.len(), length * 4);
    Ok(())
}

#[tokio::test]
async fn garbage_costs_its_sender_the_connection_and_nobody_else() -> Result<()> {
    let (federation, mut operator) = federation(&["a", "b"]).await?;
    for garbage in [&[0xff; 64][..], &[4, 0, 0, 0, 0xee, 0xee, 0xee, 0xee], &[0xff, 0xff, 0xff, 0x7f]] {
        let mut rogue = federation.connect_site("c").await?;
        rogue.babble(garbage).await?;
        assert!(rogue.hear().await.is_err(), "the connection ends");
    }
    let id = operator.submit(&run(1, r#""a", "b""#, "")).await?;
    assert_eq!(operator.wait_for_end(&id).await?.summary.state, RunState::Completed);
    Ok(())
}

#[tokio::test]
async fn disjoint_runs_go_side_by_side_and_others_queue() -> Result<()> {
    let (_federation, mut operator) = federation(&["a", "b", "c"]).await?;
    let first = operator.submit(&run(3, r#""a", "b""#, "")).await?;
    let second = operator.submit(&run(3, r#""b", "c""#, "")).await?;
    assert_eq!((first.as_str(), second.as_str()), ("toy", "toy-2"));
    for id in [&first, &second] {
        assert_eq!(operator.wait_for_end(id).await?.summary.state, RunState::Completed);
    }
    Ok(())
}

#[tokio::test]
async fn a_stopped_run_stops_and_its_sites_are_free() -> Result<()> {
    let (_federation, mut operator) = federation(&["a", "b", "c"]).await?;
    let long = operator.submit(&run(10_000, THREE, "")).await?;
    operator.wait_until(&long, |status| !status.history.is_empty()).await?;
    assert!(matches!(operator.ask(&Request::Stop(long.clone())).await?, Reply::Stopping(_)));
    assert_eq!(operator.wait_for_end(&long).await?.summary.state, RunState::Stopped);
    let next = operator.submit(&run(1, THREE, "")).await?;
    assert_eq!(operator.wait_for_end(&next).await?.summary.state, RunState::Completed);
    Ok(())
}

#[tokio::test]
async fn nobody_acts_beyond_the_role_of_the_certificate() -> Result<()> {
    let (mut federation, mut operator) = federation(&["a", "b", "c"]).await?;
    let refused = federation.connect(Role::Site, "a").await.err().expect("a site is no operator").to_string();
    assert!(refused.contains("a certificate of role site may not do that"), "{refused}");

    let mut viewer = federation.connect(Role::Viewer, "eye").await?;
    let Reply::Refused(why) = viewer.ask(&Request::Stop("toy".parse()?)).await? else {
        panic!("not refused")
    };
    assert!(why.contains("viewer"), "{why}");
    assert!(matches!(viewer.ask(&Request::Runs).await?, Reply::Runs(_)));

    // Nobody fetches what nothing named to them: not an update, nor even a model.
    let id = operator.submit(&run(1, THREE, "")).await?;
    let status = operator.wait_for_end(&id).await?;
    let error = viewer.fetch(status.global, &federation.path().join("stolen")).await.unwrap_err();
    assert!(format!("{error:#}").contains("nothing that you were sent names it"), "{error:#}");

    let stranger = Federation::new()?;
    let foreign = stranger.path().join("pki");
    let address = federation.address()?;
    assert!(Operator::connect(address, &foreign, Role::Operator, "op").await.is_err(), "another CA");
    federation.terminate_server()
}

#[tokio::test]
async fn a_run_that_cannot_work_is_refused_with_its_line() -> Result<()> {
    let (_federation, mut operator) = federation(&[]).await?;
    let Reply::Refused(why) = operator.try_submit(&run(0, THREE, "")).await? else { panic!("accepted") };
    assert_eq!(why, "run.toml:3: rounds: 0 is not between 1 and 100000");
    let missing = run(1, THREE, "").replace(r#"architecture = "softmax""#, r#"name = "bert""#);
    let Reply::Refused(why) = operator.try_submit(&missing).await? else { panic!("accepted") };
    assert!(why.starts_with("run.toml:6: model.name: there is no model `bert`"), "{why}");
    let Reply::Runs(runs) = operator.ask(&Request::Runs).await? else { panic!("no list") };
    assert!(runs.is_empty(), "nothing was queued");
    Ok(())
}
