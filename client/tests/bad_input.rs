//! What `sheaf-client` says to a `site.toml` that it cannot use: one sentence, a non-zero exit, nothing written.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

/// Runs the daemon on `config` and returns its complaint.
fn complaint(folder: &Path, config: &str) -> Result<String> {
    let path = folder.join("site.toml");
    fs::write(&path, config)?;
    let output = Command::new(env!("CARGO_BIN_EXE_sheaf-client")).arg("--config").arg(&path).output()?;
    assert!(!output.status.success());
    assert!(!folder.join("state").exists(), "nothing is written");
    let text = String::from_utf8(output.stderr)?;
    assert_eq!(text.trim().lines().count(), 1, "{text}");
    Ok(text.trim().replace(&format!("{}/", folder.display()), ""))
}

const IDENTITY: &str = "[identity]\ncertificate = \"a.crt\"\nkey = \"a.key\"\nca = \"ca.crt\"\n";

#[test]
fn each_mistake_gets_its_sentence() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let good = "server = \"127.0.0.1:4433\"\nstate_dir = \"state\"\n";
    let cases = [
        (
            format!("{good}device = \"tpu\"\n{IDENTITY}"),
            "sheaf-client: site.toml:3: there is no device \"tpu\": write \"auto\", \"cpu\" or \"cuda:N\"",
        ),
        (format!("{good}colour = 1\n{IDENTITY}"), "sheaf-client: site.toml:3: unknown field `colour`"),
        (good.to_owned(), "sheaf-client: site.toml:1: missing field `identity`"),
        (
            format!("server = \"hub\"\nstate_dir = \"state\"\n{IDENTITY}"),
            "sheaf-client: site.toml:1: server: `hub`",
        ),
        (
            format!("{good}{IDENTITY}\n[datasets.heart]\npath = \"nowhere.csv\"\n"),
            "sheaf-client: site.toml:9: datasets.heart.path: nowhere.csv does not exist",
        ),
        (format!("{good}{IDENTITY}"), "sheaf-client: cannot read a.crt"),
    ];
    for (config, sentence) in cases {
        let said = complaint(folder.path(), &config)?;
        assert!(said.starts_with(sentence), "{said}\nexpected {sentence}");
    }
    Ok(())
}
