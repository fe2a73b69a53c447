//! What a site's people decide, end to end: a run waits for their yes, and nobody's word but an operator's starts one.

use std::process::Command;

use anyhow::{Context, Result, bail};
use sheaf_common::author::{self, Author};
use sheaf_common::id::Role;
use sheaf_common::message::{Reply, Request};
use sheaf_common::run::RunSpec;
use sheaf_common::status::RunState;
use sheaf_common::time::Timestamp;
use sheaf_tests::{Federation, binary, credential_paths, wait_for};
use sheaf_transport::tls::Credentials;

const RUN: &str = r#"
name = "toy"
purpose = "sepsis"
rounds = 2
model = { architecture = "constant", parameters = 100 }
task = { type = "none" }
cohort = { min_sites = 3, round_timeout = "60s" }
"#;

/// Runs a command of `sheaf-client` as a site, and returns what it printed.
fn at_site(federation: &Federation, name: &str, arguments: &[&str]) -> Result<String> {
    let config = federation.path().join(format!("{name}.toml"));
    let output =
        Command::new(binary("sheaf-client")?).arg("--config").arg(config).args(arguments).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_a_yes_at_the_site_and_survives_a_restart_of_the_server_meanwhile() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    federation.start_site_by("approve = \"ask\"\npurposes = [\"sepsis\"]\n", "a", "", "")?;
    federation.start_site("b", "")?;
    federation.start_site("c", "")?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let run = operator.submit(RUN).await?;
    let why = "it waits for a person at the site to approve of it";
    let holds = |status: &sheaf_common::status::RunStatus| {
        status.held.iter().any(|(site, held)| site.as_str() == "a" && held == why)
    };
    let status = operator.wait_until(&run, holds).await?;
    assert_eq!((&status.summary.state, status.history.len()), (&RunState::Waiting, 0), "nothing was tried");
    assert!(status.summary.detail.ends_with(&format!("; a: {why}")), "{}", status.summary.detail);

    let asked = at_site(&federation, "a", &["approve"])?;
    for line in [
        "run       toy, asked for by operator op",
        "purpose   sepsis",
        "leaves    in each of 2 rounds a difference of 100 values (about 400 B)",
        "to        encrypted: the server learns sums over at least 3 sites",
        "approved  not yet: `sheaf-client approve toy`",
    ] {
        assert!(asked.contains(line), "{line:?} in {asked}");
    }
    let error = at_site(&federation, "a", &["approve", "other"]).unwrap_err().to_string();
    assert!(error.contains("run other does not wait for approval here"), "{error}");

    federation.kill_server();
    federation.start_server()?;
    operator = federation.connect(Role::Operator, "op").await?;
    operator.wait_until(&run, holds).await?;
    let approved = at_site(&federation, "a", &["approve", "toy"])?;
    assert!(approved.contains("approved  by "), "{approved}");
    let status = operator.wait_for_end(&run).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{:?}", status.summary);
    assert!(status.history.iter().all(|round| round.attempt == 1), "no attempt was spent on waiting");

    // Both sides have it in writing, and somebody else can check that.
    let checked = at_site(&federation, "a", &["audit", "verify"])?;
    assert!(checked.contains("entries by sheaf://test/site/a, from "), "{checked}");
    let log = std::fs::read_to_string(federation.path().join("a/audit.log"))?;
    for event in [
        r#""event":"standby","run":"toy","held":"it waits for a person"#,
        r#""event":"asked","run":"toy","round":2,"attempt":1,"work":"train","author":"op""#,
        r#""event":"sending","run":"toy","round":1,"attempt":1,"blob":""#,
        r#""masked":true"#,
        r#""event":"saying","run":"toy","round":2,"attempt":1,"what":"shares""#,
    ] {
        assert!(log.contains(event), "{event} in {log}");
    }
    let server_log = federation.path().join("server/audit.log").display().to_string();
    let checked = federation.sheaf(&["audit", "verify", &server_log])?;
    assert!(checked.contains("entries by sheaf://test/server/hub, from "), "{checked}");
    let text = std::fs::read_to_string(&server_log)?;
    assert_eq!(text.matches(r#""event":"started""#).count(), 2, "it goes on over the restart");
    assert!(
        text.contains(r#""event":"round","run":"toy","round":2,"attempt":1,"outcome":{"completed":""#),
        "{text}"
    );
    let forged = federation.path().join("forged.log").display().to_string();
    std::fs::write(&forged, text.replacen(r#""what":"masked vector""#, r#""what":"masked vectos""#, 1))?;
    let output = federation.sheaf_output(&["audit", "verify", &forged])?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("was changed: its signature does not fit"), "{said}");

    // A yes is for one run: the next of the same text waits again, and one for another purpose is declined.
    let again = operator.submit(RUN).await?;
    operator.wait_until(&again, holds).await?;
    let Reply::Stopping(_) = operator.ask(&Request::Stop(again)).await? else { bail!("not stopped") };
    let other =
        operator.submit(&RUN.replace("sepsis", "marketing").replace("rounds = 2", "rounds = 1")).await?;
    wait_for("the site to decline", || federation.log("a").contains("certain purposes only").then_some(()))?;
    let status = operator.wait_for_end(&other).await?;
    assert_eq!(
        status.summary.state,
        RunState::Failed,
        "it cannot be had without the site: {:?}",
        status.summary
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_needs_the_word_of_the_operator_who_submits_it() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    federation.issue(Role::Operator, "eve")?;
    let word = |name: &str, text: &str| -> Result<Author> {
        let credentials =
            Credentials::load(&credential_paths(&federation.path().join("pki"), Role::Operator, name))?;
        let signed_at = Timestamp(0);
        let statement = author::statement(&RunSpec::parse("run.toml", text)?, None, signed_at);
        Ok(Author {
            certificate: credentials.certificate(),
            signed_at,
            signature: credentials.sign(&statement).context("no signature")?.into(),
        })
    };
    let other = RUN.replace("rounds = 2", "rounds = 3");
    for (author, expected) in [
        (word("op", &other)?, "the signature is not for this run"),
        (word("eve", RUN)?, "the run is not signed with the certificate of this connection"),
    ] {
        let request = Request::Submit { file: "run.toml".into(), text: RUN.into(), author };
        let Reply::Refused(why) = operator.ask(&request).await? else { bail!("it was taken") };
        assert!(why.starts_with(expected), "{why}");
    }
    let Reply::Runs(runs) = operator.ask(&Request::Runs).await? else { bail!("no list") };
    assert!(runs.is_empty(), "nothing was queued");
    Ok(())
}
