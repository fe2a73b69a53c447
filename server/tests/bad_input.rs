//! What `sheaf-server` says to a configuration that it cannot use: one sentence, a non-zero exit, nothing written.

use std::fs;
use std::process::Command;

use anyhow::Result;
use sheaf_common::id::Role;
use sheaf_server::pki::{self, IssueOptions};

/// Starts the server on `config` and returns its complaint.
fn complaint(folder: &std::path::Path, config: &str) -> Result<String> {
    let path = folder.join("server.toml");
    fs::write(&path, config)?;
    let output = Command::new(env!("CARGO_BIN_EXE_sheaf-server")).arg("--config").arg(&path).output()?;
    assert!(!output.status.success());
    assert!(!folder.join("data").exists(), "nothing is written");
    let text = String::from_utf8(output.stderr)?;
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    Ok(text.trim().replace(&format!("{}/", folder.display()), ""))
}

fn identity(party: &str) -> String {
    format!("[identity]\ncertificate = \"pki/{party}.crt\"\nkey = \"pki/{party}.key\"\nca = \"pki/ca.crt\"\n")
}

#[test]
fn each_mistake_gets_its_sentence() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let (folder, pki) = (temp.path(), temp.path().join("pki"));
    pki::init(&pki, &"test".parse()?)?;
    for (role, name) in [(Role::Server, "hub"), (Role::Site, "a")] {
        pki::issue(&pki, role, &name.parse()?, &IssueOptions::default())?;
    }
    let good = "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n";
    let hub = identity("server-hub");
    let cases = [
        (
            format!("listen = \"localhost\"\ndata_dir = \"data\"\n{hub}"),
            "sheaf-server: server.toml:1: listen: `localhost` is no address; write \"0.0.0.0:4433\" or \"127.0.0.1:0\"",
        ),
        (
            format!("{good}{hub}[retention]\nrounds = \"a month\"\n"),
            "sheaf-server: server.toml:8: retention.rounds: `a month` is no duration; write \"30d\", \"12h\" or \"forever\"",
        ),
        (format!("lisen = \"x\"\n{good}{hub}"), "sheaf-server: server.toml:1: unknown field `lisen`"),
        (good.to_owned(), "sheaf-server: server.toml:1: missing field `identity`"),
        (format!("{good}{}", identity("server-nobody")), "sheaf-server: cannot read pki/server-nobody.crt"),
        (
            format!("{good}{}", identity("site-a")),
            "sheaf-server: the certificate is sheaf://test/site/a; `sheaf-server` needs one issued with `sheaf pki issue server`",
        ),
        (
            format!("listen = \"192.0.2.1:4433\"\ndata_dir = \"data\"\n{hub}"),
            "sheaf-server: cannot open UDP 192.0.2.1:4433",
        ),
        (
            format!("listen = \"127.0.0.1:0\"\ndata_dir = \"/proc/sheaf\"\n{hub}"),
            "sheaf-server: cannot write /proc/sheaf: No such file or directory (os error 2); choose another data_dir, or see that it can be written",
        ),
        (
            format!("{good}{hub}[limits]\nhandshakes = 0\n"),
            "sheaf-server: server.toml:8: limits.handshakes: 0 lets nobody in; write 1 or more",
        ),
        (
            format!("{good}congestion = \"reno\"\n{hub}"),
            "sheaf-server: server.toml:3: unknown variant `reno`, expected `cubic` or `bbr`",
        ),
        (
            format!("{good}listen_tcp = \"443\"\n{hub}"),
            "sheaf-server: server.toml:3: listen_tcp: `443` is no address; write \"0.0.0.0:4433\" or \"127.0.0.1:0\", or \"off\"",
        ),
        (
            format!("{good}listen_tcp = \"192.0.2.1:443\"\n{hub}"),
            "sheaf-server: cannot open TCP 192.0.2.1:443",
        ),
    ];
    for (config, sentence) in cases {
        let said = complaint(folder, &config)?;
        assert!(said.starts_with(sentence), "{said}\nexpected {sentence}");
    }
    std::os::unix::fs::symlink("server-hub.crt", pki.join("loose.crt"))?;
    fs::copy(pki.join("server-hub.key"), pki.join("loose.key"))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(pki.join("loose.key"), mode)?;
    let said = complaint(folder, &format!("{good}{}", identity("loose")))?;
    assert_eq!(
        said,
        "sheaf-server: pki/loose.key can be read by others than its owner: run `chmod 600 pki/loose.key`"
    );
    Ok(())
}
