//! A backup of a server at work, and everything from it elsewhere; what the disk's failures are told as.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use sheaf_common::id::Role;
use sheaf_common::message::Request;
use sheaf_common::status::RunState;
use sheaf_tests::{Federation, binary, wait_for};

const ROUNDS: usize = 60;

/// A run in which every site gives another update, and a round takes a moment.
fn run() -> String {
    format!(
        r#"
name = "toy"
rounds = {ROUNDS}
secure_aggregation = "off"
model = {{ architecture = "constant", parameters = 20000 }}
task = {{ type = "none" }}
cohort = {{ sites = ["a", "b"], round_timeout = "100s" }}
"#
    )
}

fn server(federation: &Federation, config: &str, arguments: &[&str]) -> Result<Output> {
    let config = federation.path().join(config);
    Ok(Command::new(binary("sheaf-server")?).args(arguments).arg("--config").arg(config).output()?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr })
        .into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_server_ends_elsewhere_with_the_same_model() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for name in ["a", "b"] {
        federation.start_site(name, "")?;
    }
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let id = operator.submit(&run()).await?;
    operator.wait_until(&id, |status| status.history.len() >= 2).await?;
    let backup = federation.path().join("backup");
    let to = backup.to_str().context("no UTF-8")?;
    let output = server(&federation, "server.toml", &["backup", to])?;
    assert!(said(&output).starts_with("copied 1 runs and"), "{}", said(&output));
    let output = server(&federation, "server.toml", &["backup", to])?;
    assert!(said(&output).contains("nothing is ever overwritten"), "{}", said(&output));
    let expected = operator.wait_for_end(&id).await?;
    assert_eq!(expected.history.len(), ROUNDS);
    federation.kill_server();

    // Where there is a server already nothing is brought back; elsewhere everything is.
    let output = server(&federation, "server.toml", &["restore", to])?;
    assert!(said(&output).contains("server is already there"), "{}", said(&output));
    fs::rename(federation.path().join("server"), federation.path().join("lost"))?;
    let output = server(&federation, "server.toml", &["restore", to])?;
    assert!(said(&output).starts_with("brought 1 runs and"), "{}", said(&output));
    federation.start_server()?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let status = operator.status(&id).await?;
    assert!(status.history.len() < ROUNDS, "the backup was of a run that went on");
    let log = federation.path().join("server/audit.log").display().to_string();
    assert!(
        federation.sheaf(&["audit", "verify", &log])?.contains("entries"),
        "the log came along and goes on"
    );
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    assert_eq!(status.global, expected.global);
    Ok(())
}

/// A blob of a data directory or backup.
fn a_blob(folder: &Path) -> Result<std::path::PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    folders.retain(|path| !path.ends_with("partial"));
    let entry = fs::read_dir(folders.first().context("no blob")?)?.next().context("no blob")?;
    Ok(entry?.path())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_damaged_or_none_is_refused() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    operator.submit(&run()).await?;
    let backup = federation.path().join("backup");
    let to = backup.to_str().context("no UTF-8")?;
    assert!(server(&federation, "server.toml", &["backup", to])?.status.success());
    federation.kill_server();
    fs::rename(federation.path().join("server"), federation.path().join("lost"))?;
    let refused = |sentence: &str| -> Result<()> {
        let output = server(&federation, "server.toml", &["restore", to])?;
        let said = said(&output);
        assert!(!output.status.success() && said.contains(sentence), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
        assert!(!federation.path().join("server").exists(), "nothing is written");
        Ok(())
    };
    let blob = a_blob(&backup.join("blobs"))?;
    let whole = fs::read(&blob)?;
    // The blob may be a link to the server's own, which stays as it is.
    fs::remove_file(&blob)?;
    refused("cannot be copied whole")?;
    fs::write(&blob, &whole[..whole.len() / 2])?;
    refused("is damaged: use another backup")?;
    fs::write(&blob, &whole)?;
    let database = fs::read(backup.join("sheaf.db"))?;
    fs::write(backup.join("sheaf.db"), &database[..database.len() / 2])?;
    refused("the server's database")?;
    fs::remove_file(backup.join("sheaf.db"))?;
    refused("it holds no sheaf.db")
}

/// The server with files that may not grow beyond `kilobytes`: what a full disk is to it.
fn on_a_full_disk(federation: &Federation, kilobytes: u32) -> Result<Output> {
    let script = format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" --config \"$1\"");
    let config = federation.write_server_toml()?;
    Ok(Command::new("bash").args(["-c", &script]).arg(binary("sheaf-server")?).arg(config).output()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_server_with_the_way_on_and_the_run_ends_right() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let id = operator.submit(&run()).await?;
    operator.ask(&Request::Runs).await?;
    federation.kill_server();
    for name in ["a", "b"] {
        federation.start_site(name, "")?;
    }
    // There is room for a few more entries of the journal.
    let output = on_a_full_disk(&federation, 256)?;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    // Whichever grew beyond its room first.
    let (database, log) = ("the server's database failed:", "cannot write the audit log");
    assert!([database, log].iter().any(|what| said.starts_with(&format!("sheaf-server: {what}"))), "{said}");
    assert!(said.contains("has space, then start"), "{said}");
    assert!(said.contains("goes on where it was"), "{said}");
    federation.start_server()?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let status = operator.wait_for_end(&id).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    assert!(status.history.iter().all(|record| record.attempt == 1), "no round was tried twice");
    wait_for("the site to have been away", || federation.log("a").contains("not connected").then_some(()))?;
    Ok(())
}
