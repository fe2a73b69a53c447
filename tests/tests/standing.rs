//! Who may take part, end to end: a site that is sent away is cut off, stays away over restarts, and costs the run
//! nothing but its own part.

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::message::{Reply, Request};
use sheaf_common::status::{RunState, Standing};
use sheaf_tests::{Federation, Operator, Part, wait_for};

const RUN: &str = r#"
name = "toy"
rounds = 3
model = { architecture = "constant", parameters = 100 }
task = { type = "none" }
cohort = { min_sites = 3, round_timeout = "60s" }
"#;

async fn stand(operator: &mut Operator, site: &str, standing: Standing) -> Result<Reply> {
    operator.ask(&Request::Stand { site: site.parse()?, standing, keep_updates: false }).await
}

async fn standing_of(operator: &mut Operator, site: &str) -> Result<(Standing, bool)> {
    let Reply::Sites(sites) = operator.ask(&Request::Sites).await? else { anyhow::bail!("no sites") };
    let found = sites.iter().find(|status| status.site.as_str() == site).context("an unknown site")?;
    Ok((found.standing, found.connection.is_some()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_site_is_cut_off_and_cannot_return_even_after_a_restart() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for name in ["a", "b", "c", "d"] {
        federation.start_site(name, "")?;
        wait_for("the site to connect", || federation.log(name).contains("connected").then_some(()))?;
    }
    let mut operator = federation.connect(Role::Operator, "op").await?;
    assert_eq!(standing_of(&mut operator, "d").await?, (Standing::Admitted, true));
    let reply = stand(&mut operator, "d", Standing::Revoked).await?;
    assert_eq!(reply, Reply::Stands { site: "d".parse()?, standing: Standing::Revoked, counted: Vec::new() });
    assert_eq!(standing_of(&mut operator, "d").await?, (Standing::Revoked, false));
    wait_for("the site to be told", || {
        federation.log("d").contains("it was revoked by operator op").then_some(())
    })?;
    wait_for("the site to be refused", || federation.log("d").contains("is revoked for good").then_some(()))?;
    // It cannot be taken back.
    let Reply::Refused(why) = stand(&mut operator, "d", Standing::Admitted).await? else {
        anyhow::bail!("a revoked site was taken back")
    };
    assert!(why.contains("revoked for good"), "{why}");
    federation.kill_server();
    federation.start_server()?;
    operator = federation.connect(Role::Operator, "op").await?;
    let run = operator.submit(RUN).await?;
    let status = operator.wait_for_end(&run).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{:?}", status.summary);
    assert!(status.history.iter().all(|round| round.participants.len() == 3), "{:?}", status.history);
    assert_eq!(standing_of(&mut operator, "d").await?, (Standing::Revoked, false));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_site_comes_back_when_it_is_resumed() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for name in ["a", "b", "c"] {
        federation.start_site(name, "")?;
    }
    let mut operator = federation.connect(Role::Operator, "op").await?;
    stand(&mut operator, "c", Standing::Suspended).await?;
    let run = operator.submit(RUN).await?;
    let status = operator.status(&run).await?;
    assert_eq!(status.summary.completed_rounds, 0);
    stand(&mut operator, "c", Standing::Admitted).await?;
    let status = operator.wait_for_end(&run).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{:?}", status.summary);
    assert!(status.history.iter().all(|round| round.participants.len() == 3), "{:?}", status.history);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_is_in_a_masked_sum_already_counts_and_the_operator_is_told() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let run = operator.submit(RUN).await?;
    let mut sites = Vec::new();
    for name in ["a", "b", "c"] {
        sites.push(federation.connect_site(name).await?);
    }
    // All go as far as the question for shares, which none of them answers.
    let mut work = tokio::task::JoinSet::new();
    for mut site in sites {
        work.spawn(async move {
            let task = site.task().await?;
            site.take_part(&task.id, &[0.5; 100], Part::Vector).await?;
            anyhow::Ok(site)
        });
    }
    let sites = work.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let reply = stand(&mut operator, "c", Standing::Revoked).await?;
    let told = Reply::Stands { site: "c".parse()?, standing: Standing::Revoked, counted: vec![run] };
    assert_eq!(reply, told);
    drop(sites);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_may_send_nobody_away() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let mut viewer = federation.connect(Role::Viewer, "eye").await?;
    let Reply::Refused(why) = stand(&mut viewer, "a", Standing::Revoked).await? else {
        anyhow::bail!("a viewer revoked a site")
    };
    assert!(why.contains("a viewer may look but not touch"), "{why}");
    Ok(())
}
