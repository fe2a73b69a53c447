//! Keys and certificates, end to end, with the real programs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::status::RunState;
use sheaf_tests::{Federation, wait_for};

const RUN: &str = r#"
name = "toy"
rounds = 1
model = { architecture = "constant", parameters = 100 }
task = { type = "none" }
cohort = { min_sites = 3, round_timeout = "60s" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn no_program_logs_a_key_even_when_it_logs_everything() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.log_everything();
    federation.start_server()?;
    for name in ["a", "b", "c"] {
        federation.start_site(name, "")?;
    }
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let run = operator.submit(RUN).await?;
    assert_eq!(operator.wait_for_end(&run).await?.summary.state, RunState::Completed);
    for (log, key) in [("server", "server-hub"), ("a", "site-a"), ("b", "site-b"), ("c", "site-c")] {
        let log = federation.log(log);
        assert!(log.contains("TRACE"), "the log is not as talkative as the test wants it");
        let pem = fs::read_to_string(federation.path().join(format!("pki/{key}.key")))?;
        // The first line of the base64 holds algorithm and secret, the rest little more than the public key.
        let secret = pem.lines().nth(1).context("an empty key")?.get(22..60).context("a short key")?;
        assert!(!log.contains(secret), "{key}");
        assert!(!log.contains("PRIVATE KEY"), "{key}");
    }
    Ok(())
}

#[test]
fn neither_side_starts_with_a_key_that_others_can_read() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    federation.issue(Role::Site, "a")?;
    let key = federation.path().join("pki/site-a.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644))?;
    federation.start_site("a", "")?;
    let sentence = format!("can be read by others than its owner: run `chmod 600 {}`", key.display());
    wait_for("the site to refuse", || federation.log("a").contains(&sentence).then_some(()))?;

    let key = federation.path().join("pki/operator-op.key");
    fs::set_permissions(&key, Permissions::from_mode(0o640))?;
    let output = federation.sheaf_output(&["site", "list"])?;
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr)?;
    assert!(error.contains(&format!("run `chmod 600 {}`", key.display())), "{error}");
    Ok(())
}
