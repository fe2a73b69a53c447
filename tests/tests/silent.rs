//! A site of which nothing is heard: it is shown as silent, and keeps its place in the round.

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::status::Answer;
use sheaf_tests::{Federation, assert_undisturbed, wait_for};

const SITES: [&str; 4] = ["a", "b", "c", "d"];

/// So many that a site can be frozen in the middle of them.
const ROUNDS: usize = 60;

const RUN: &str = r#"
name = "toy"
rounds = 60
seed = 7
secure_aggregation = "off"
model = { architecture = "constant", parameters = 200000 }

[task]
type = "none"
dataset = "data"

[cohort]
min_sites = 4
min_updates = 4
round_timeout = "110s"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_falls_silent_is_shown_and_keeps_its_place() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for site in SITES {
        federation.start_site(site, "x\n1\n")?;
    }
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let id = operator.submit(RUN).await?;
    operator.wait_until(&id, |status| status.summary.completed_rounds >= 2).await?;
    federation.freeze_site("d", true)?;
    let line = |text: String| text.lines().find(|line| line.starts_with("d ")).map(str::to_owned);
    let seen = wait_for("the site to be shown as silent", || {
        line(federation.sheaf(&["site", "list"]).ok()?).filter(|line| line.contains("silent "))
    })?;
    assert!(seen.contains(" quic "), "{seen}");
    let current = operator.status(&id).await?.current.context("the round is open")?;
    assert_eq!(current.attempt, 1);
    let answers: Vec<&Answer> = current.members.iter().map(|member| &member.answer).collect();
    assert_eq!(answers.len(), SITES.len(), "it is not counted out: {answers:?}");
    assert_eq!(answers.last(), Some(&&Answer::Pending), "it is not counted out: {answers:?}");
    federation.freeze_site("d", false)?;
    assert_undisturbed(&operator.wait_for_end(&id).await?, ROUNDS, SITES.len());
    Ok(())
}
