//! The life of a certificate, end to end, with certificates that live for seconds: renewed by itself, exchanged under
//! way, ended, and moved to another authority.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sheaf_common::id::Role;
use sheaf_server::pki::{self, Authority, Card, Wanted};
use sheaf_tests::{Federation, wait_for};
use sheaf_transport::files;
use sheaf_transport::key::PrivateKey;

fn count(federation: &Federation, log: &str, what: &str) -> usize {
    federation.log(log).matches(what).count()
}

/// Replaces a party's key and certificate by ones that live for `seconds`, as an authority in `pki` makes them.
fn replace(pki: &Path, into: &Path, role: Role, name: &str, seconds: i64) -> Result<()> {
    let (authority, key) = (Authority::open(pki)?, PrivateKey::generate()?);
    let (holder, lifetime) = (name.parse()?, Some(time::Duration::seconds(seconds)));
    let wanted = Wanted { role, ..Wanted::site(&holder, lifetime) };
    let chain = authority.issue(&key, &wanted, time::OffsetDateTime::now_utc())?;
    let file = |extension: &str| into.join(format!("{role}-{name}.{extension}"));
    if file("key").exists() {
        fs::remove_file(file("key"))?;
    }
    files::write_key(&file("key"), &key.pem())?;
    Ok(files::replace(&file("crt"), &files::pem(&chain))?)
}

#[test]
fn a_site_renews_its_certificate_by_itself_and_stays_longer_than_the_first_one_lives() -> Result<()> {
    let mut federation = Federation::new()?;
    let pki = federation.path().join("pki");
    pki::issuing(&pki, &federation.path().join("issuing"), None)?;
    federation.configure_server("[enrolment]\nauthority = \"issuing\"\ncertificate_lifetime = \"1h\"\n");
    federation.start_server()?;
    federation.issue(Role::Site, "a")?;
    replace(&pki, &pki, Role::Site, "a", 20)?;
    let first = Card::read(&pki.join("site-a.crt"))?;
    federation.start_site("a", "")?;
    wait_for("the site to connect", || (count(&federation, "a", "software") > 0).then_some(()))?;
    assert!(federation.log("a").contains("this site's certificate ends soon"));
    wait_for("the renewal", || {
        federation.log("a").contains("renewed this site's certificate").then_some(())
    })?;
    let second = Card::read(&pki.join("site-a.crt"))?;
    assert!(second.until > first.until + time::Duration::minutes(30), "{}", second.until);
    assert_ne!(second.public_key, first.public_key, "the key is new too");
    wait_for("the site to come with it", || (count(&federation, "a", "software") == 2).then_some(()))?;
    wait_for("the first one's end", || (time::OffsetDateTime::now_utc() > first.until).then_some(()))?;
    std::thread::sleep(Duration::from_secs(2));
    let list = federation.sheaf(&["site", "list"])?;
    assert!(list.contains("connected") && list.contains("ends today"), "{list}");
    assert_eq!(count(&federation, "server", "your certificate has expired"), 0);
    assert!(!federation.path().join("pki/site-a.key.next").exists());
    Ok(())
}

#[test]
fn without_a_signing_server_an_operator_approves_the_renewal() -> Result<()> {
    let mut federation = Federation::new()?;
    let pki = federation.path().join("pki");
    federation.start_server()?;
    federation.issue(Role::Site, "a")?;
    replace(&pki, &pki, Role::Site, "a", 30)?;
    federation.start_site("a", "")?;
    wait_for("the request", || federation.log("a").contains("an operator must approve it").then_some(()))?;
    let requests = federation.sheaf(&["site", "requests"])?;
    assert!(requests.contains("renewal"), "{requests}");
    federation.sheaf(&["site", "approve", "a", "--pki", &pki.display().to_string()])?;
    wait_for("the renewal", || {
        federation.log("a").contains("renewed this site's certificate").then_some(())
    })?;
    wait_for("the site to come with it", || (count(&federation, "a", "software") == 2).then_some(()))?;
    let list = federation.sheaf(&["site", "list"])?;
    assert!(list.contains("days left"), "{list}");
    Ok(())
}

#[test]
fn a_certificate_that_ends_ends_its_connection_and_is_refused_with_a_sentence() -> Result<()> {
    let mut federation = Federation::new()?;
    let pki = federation.path().join("pki");
    federation.start_server()?;
    federation.issue(Role::Site, "a")?;
    replace(&pki, &pki, Role::Site, "a", 15)?;
    federation.start_site("a", "")?;
    wait_for("the end", || federation.log("a").contains("your certificate has expired").then_some(()))?;
    wait_for("the refusal", || {
        federation.log("a").contains("our certificate: it has expired").then_some(())
    })?;
    let list = federation.sheaf(&["site", "list"])?;
    assert!(list.contains("away") && list.contains("EXPIRED"), "{list}");
    // A new one in the files is enough.
    replace(&pki, &pki, Role::Site, "a", 3600)?;
    wait_for("the site to come back", || (count(&federation, "a", "software") == 2).then_some(()))?;
    Ok(())
}

#[test]
fn the_server_takes_a_new_certificate_without_dropping_anybody() -> Result<()> {
    let mut federation = Federation::new()?;
    let pki = federation.path().join("pki");
    federation.start_server()?;
    federation.start_site("a", "")?;
    wait_for("the site to connect", || federation.log("a").contains("software").then_some(()))?;
    replace(&pki, &pki, Role::Server, "hub", 3600)?;
    wait_for("the server to see it", || federation.log("server").contains("were read again").then_some(()))?;
    federation.start_site("b", "")?;
    wait_for("another to connect", || federation.log("b").contains("software").then_some(()))?;
    let list = federation.sheaf(&["site", "list"])?;
    assert_eq!(list.matches("connected").count(), 2, "{list}");
    assert_eq!(count(&federation, "a", "not connected"), 0);
    Ok(())
}

#[test]
fn a_federation_moves_to_another_authority_site_by_site() -> Result<()> {
    let mut federation = Federation::new()?;
    let (old, new) = (federation.path().join("pki"), federation.path().join("new"));
    pki::init(&new, &"test".parse()?)?;
    federation.start_server()?;
    for site in ["a", "b", "c"] {
        federation.start_site(site, "")?;
    }
    let connected = |federation: &Federation, sites: &[&str]| {
        let list = federation.sheaf(&["site", "list"]).unwrap_or_default();
        let is = |line: &str, site: &str| line.starts_with(site) && line.contains(" connected");
        sites.iter().all(|site| list.lines().any(|line| is(line, site)))
    };
    let all = ["a", "b", "c"];
    wait_for("the sites to connect", || connected(&federation, &all).then_some(()))?;

    // 1. Everybody trusts both. In this federation all parties read the same file.
    let (first, second) = (fs::read_to_string(old.join("ca.crt"))?, fs::read_to_string(new.join("ca.crt"))?);
    files::replace(&old.join("ca.crt"), &format!("{first}{second}"))?;
    wait_for("the server to trust both", || {
        (count(&federation, "server", "were read again") == 1).then_some(())
    })?;
    // 2. One after the other gets a certificate of the new one: the server, sites, the operator.
    replace(&new, &old, Role::Server, "hub", 3600)?;
    wait_for("the server to move", || (count(&federation, "server", "were read again") == 2).then_some(()))?;
    for site in ["a", "b"] {
        replace(&new, &old, Role::Site, site, 3600)?;
        let moved = || (count(&federation, site, "were read again") >= 2).then_some(());
        wait_for("the site to move", moved)?;
        wait_for("all to be connected", || connected(&federation, &all).then_some(()))?;
    }
    replace(&new, &old, Role::Operator, "op", 3600)?;
    // 3. The old one is trusted no more, and who did not move is out.
    files::replace(&old.join("ca.crt"), &second)?;
    // It is cut, unless it looks at the files first and connects anew while the server looks at them.
    wait_for("the refusal", || {
        federation
            .log("c")
            .contains("our certificate: another authority than the server's made it")
            .then_some(())
    })?;
    wait_for("those who moved to be there", || connected(&federation, &["a", "b"]).then_some(()))?;
    let list = federation.sheaf(&["site", "list"])?;
    let line = list.lines().find(|line| line.starts_with('c')).context("no line")?;
    ensure!(line.contains("away"), "{list}");
    Ok(())
}
