//! How a site gets its certificate, end to end: by a token, at once or when the operator signs; and every way in which
//! a token gets nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sheaf_common::id::Role;
use sheaf_common::message::{Hello, Open, Reply, Request};
use sheaf_common::wire::PROTOCOL_VERSION;
use sheaf_server::pki;
use sheaf_tests::{Federation, wait_for};
use sheaf_transport::dial::Dialer;
use sheaf_transport::enrolment::{Desk, EnrollError};
use sheaf_transport::frames;
use sheaf_transport::network::Network;

/// A server that signs by itself, with an authority that makes sites alone.
fn signing() -> Result<Federation> {
    let mut federation = Federation::new()?;
    pki::issuing(&federation.path().join("pki"), &federation.path().join("issuing"), None)?;
    federation.configure_server("[enrolment]\nauthority = \"issuing\"\n");
    federation.start_server()?;
    Ok(federation)
}

fn invite(federation: &Federation, site: &str, expires: &str) -> Result<String> {
    let printed = federation.sheaf(&["site", "invite", site, "--expires", expires])?;
    Ok(printed.lines().next().context("nothing was printed")?.to_owned())
}

fn enroll(federation: &Federation, folder: &str, token: &str) -> Result<Output> {
    let server = federation.address()?.to_string();
    federation.client_output(folder, &["enroll", "--server", &server, "--token", token])
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success(), "it was not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The site's daemon connects with what enrolment wrote.
fn connects(federation: &mut Federation, folder: &str) -> Result<()> {
    federation.start_client(folder, &[])?;
    wait_for("the site to connect", || federation.log(folder).contains("software").then_some(()))
}

#[test]
fn a_token_makes_a_site_whose_key_never_left_it() -> Result<()> {
    let mut federation = signing()?;
    let token = invite(&federation, "st-mary", "1h")?;
    let output = enroll(&federation, "st-mary", &token)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = federation.path().join("st-mary");
    let key = folder.join("site-st-mary.key");
    assert_eq!(fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read(folder.join("ca.crt"))?, fs::read(federation.path().join("pki/ca.crt"))?);
    connects(&mut federation, "st-mary")?;
    let list = federation.sheaf(&["site", "list"])?;
    assert!(list.contains("st-mary") && list.contains("connected"), "{list}");
    // Neither the key nor the token's secret is anywhere at the server.
    let secret = token.split('.').nth(2).context("no secret")?;
    let pem = fs::read_to_string(&key)?;
    let key = pem.lines().nth(1).context("an empty key")?;
    for file in ["server.log", "server/sheaf.db", "server/sheaf.db-wal"] {
        let bytes = fs::read(federation.path().join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(secret) && !text.contains(key), "{file}");
        let raw = hex::decode(secret)?;
        assert!(!bytes.windows(raw.len()).any(|window| window == raw), "{file}");
    }
    Ok(())
}

#[test]
fn a_token_that_is_used_expired_or_wrong_gets_a_sentence_and_a_line_in_the_log() -> Result<()> {
    let mut federation = signing()?;
    let token = invite(&federation, "a", "1h")?;
    assert!(enroll(&federation, "a", &token)?.status.success());
    let again = refusal(&enroll(&federation, "thief", &token)?);
    assert!(again.contains("the token was used already, with another key"), "{again}");
    assert!(!federation.path().join("thief/site-a.key").exists(), "a key was left behind");

    let expired = invite(&federation, "b", "1ms")?;
    let late = refusal(&enroll(&federation, "b", &expired)?);
    assert!(late.contains("the token has expired"), "{late}");

    let token = invite(&federation, "c", "1h")?;
    let mut parts: Vec<&str> = token.split('.').collect();
    let other = "00".repeat(32);
    parts[2] = &other;
    let wrong = refusal(&enroll(&federation, "c", &parts.join("."))?);
    assert!(wrong.contains("the server does not know this token"), "{wrong}");
    assert!(!wrong.contains(&other), "{wrong}");
    let nobody = refusal(&enroll(&federation, "d", &token.replace(".c.", ".d."))?);
    assert!(nobody.contains("the server does not know this token"), "{nobody}");
    let garbled = refusal(&enroll(&federation, "e", &token[..40])?);
    assert!(garbled.contains("this is no token"), "{garbled}");
    for why in ["was used already", "has expired", "does not know this token"] {
        let log = federation.log("server");
        let line = log.lines().find(|line| line.contains(why)).context("it is not logged")?;
        assert!(line.contains("WARN") && line.contains("127.0.0.1:"), "{line}");
    }
    // A restart forgets nothing of it.
    federation.kill_server();
    federation.start_server()?;
    let again =
        refusal(&enroll(&federation, "thief", &invite(&federation, "c", "1h")?.replace(".c.", ".a."))?);
    assert!(again.contains("does not know this token"), "{again}");
    Ok(())
}

#[test]
fn whoever_the_operator_did_not_mean_is_told_nothing() -> Result<()> {
    let ours = signing()?;
    let theirs = signing()?;
    let token = invite(&ours, "a", "1h")?;
    let error = refusal(&enroll(&theirs, "a", &token)?);
    assert!(error.contains("its certificate authorities are others than the operator's"), "{error}");
    assert!(!theirs.path().join("a/site-a.key").exists(), "a key was made for a stranger");
    assert!(!theirs.log("server").contains("enrolled"));
    Ok(())
}

#[test]
fn an_operator_signs_where_the_authority_is_and_the_site_waits() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.configure_server("[enrolment]\n");
    federation.start_server()?;
    assert_eq!(federation.sheaf(&["site", "requests"])?.trim(), "no site waits for a certificate");
    let token = invite(&federation, "a", "1h")?;
    let server = federation.address()?.to_string();
    federation.start_client("a", &["enroll", "--server", &server, "--token", &token])?;
    wait_for("the site to wait", || federation.log("a").contains("waiting for the operator").then_some(()))?;
    // Both see the same key.
    let requests = federation.sheaf(&["--json", "site", "requests"])?;
    let requests: serde_json::Value = serde_json::from_str(&requests)?;
    let key = requests[0]["key"].as_str().context("no key")?;
    assert!(federation.log("a").contains(key), "{key}");
    // It goes on where it was when either side was gone.
    federation.kill_site("a");
    federation.kill_server();
    federation.start_server()?;
    let pki = federation.path().join("pki").display().to_string();
    federation.sheaf(&["site", "approve", "a", "--pki", &pki])?;
    let output = enroll(&federation, "a", &token)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    connects(&mut federation, "a")?;
    let nobody = federation.sheaf_output(&["site", "approve", "a", "--pki", &pki])?;
    assert!(refusal(&nobody).contains("a waits for no certificate"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_reaches_nothing_but_the_desk() -> Result<()> {
    let federation = signing()?;
    let dialer = Dialer::new(federation.address()?.to_string(), Network::default());
    let token = invite(&federation, "a", "1h")?.parse()?;
    // A stranger says at the desk what only a site may say.
    let desk = Desk::open(&dialer, &token, "test").await?;
    let (mut send, mut recv) = desk.connection().open_bi().await?;
    let hello = Hello { protocol: PROTOCOL_VERSION, software: "test".into() };
    frames::write(&mut send, &Open::Operator(hello.clone())).await?;
    frames::write(&mut send, &Request::Runs).await?;
    let reply =
        tokio::time::timeout(std::time::Duration::from_secs(2), frames::read::<Reply>(&mut recv)).await;
    assert!(!matches!(reply, Ok(Ok(_))), "{reply:?}");
    desk.close().await;
    // Too many of them wait.
    let mut last = Ok(());
    for _ in 0..12 {
        last = Desk::open(&dialer, &token, "test").await.map(drop);
    }
    let Err(EnrollError::Lost(why)) = last else { anyhow::bail!("{last:?}") };
    assert!(why.contains("too many attempts: wait a minute"), "{why}");
    assert!(federation.log("server").contains("enrolment: too many attempts"));
    Ok(())
}

/// Connects without a certificate as if to take part, and returns why it ended.
async fn anonymous(federation: &Federation) -> Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(federation.path().join("pki/ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![sheaf_transport::tls::ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls)?;
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    let config = quinn::ClientConfig::new(Arc::new(tls));
    let connecting = endpoint.connect_with(config, federation.address()?, "server.test.sheaf")?;
    Ok(match connecting.await {
        Ok(connection) => connection.closed().await.to_string(),
        Err(error) => error.to_string(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_part_without_a_certificate_whether_or_not_strangers_may_ask_for_one() -> Result<()> {
    let why = anonymous(&signing()?).await?;
    assert!(why.contains("your certificate names no party of a federation"), "{why}");
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let why = anonymous(&federation).await?;
    assert!(why.contains("error 116"), "{why}");
    Ok(())
}

#[test]
fn without_the_table_nobody_is_invited_and_no_stranger_is_let_in() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let refused = federation.sheaf_output(&["site", "invite", "a"])?;
    assert!(refusal(&refused).contains("add the table [enrolment] to server.toml"));
    let token = format!("test.a.{}.{}", "00".repeat(32), "00".repeat(32));
    let error = refusal(&enroll(&federation, "a", &token)?);
    assert!(error.contains("do not trust each other"), "{error}");
    Ok(())
}

/// An authority that knows nothing of Sheaf.
struct Corporate {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Corporate {
    fn new(name: &str, above: Option<&Self>) -> Result<Self> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer)?,
            None => params.self_signed(&key)?,
        };
        Ok(Self { certificate, issuer: rcgen::Issuer::new(params, key) })
    }

    /// Replaces a party's files by ones that say what certs/README.md asks for, and no more.
    fn issue(&self, pki: &Path, role: Role, name: &str) -> Result<()> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let mut params = rcgen::CertificateParams::default();
        let uri = format!("sheaf://test/{role}/{name}");
        params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        if role == Role::Server {
            params.subject_alt_names.push(rcgen::SanType::DnsName("server.test.sheaf".try_into()?));
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        }
        let certificate = params.signed_by(&key, &self.issuer)?;
        let file = |extension: &str| pki.join(format!("{role}-{name}.{extension}"));
        fs::write(file("key"), key.serialize_pem())?;
        Ok(fs::write(file("crt"), certificate.pem() + &self.certificate.pem())?)
    }
}

#[test]
fn a_federation_stands_under_an_authority_of_ones_own() -> Result<()> {
    let mut federation = Federation::new()?;
    let pki = federation.path().join("pki");
    let root = Corporate::new("Corporate Root", None)?;
    let below = Corporate::new("Corporate Devices", Some(&root))?;
    fs::write(pki.join("ca.crt"), root.certificate.pem())?;
    below.issue(&pki, Role::Server, "hub")?;
    below.issue(&pki, Role::Operator, "op")?;
    federation.start_server()?;

    let output = federation.client_output("a", &["csr", "--name", "a", "--federation", "test"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = federation.path().join("a");
    let request = fs::read_to_string(folder.join("site-a.csr"))?;
    let request = rcgen::CertificateSigningRequestParams::from_pem(&request)?;
    // It signs what the request asks for, as such authorities do.
    let certificate = request.signed_by(&below.issuer)?;
    fs::write(folder.join("site-a.crt"), certificate.pem() + &below.certificate.pem())?;
    fs::write(folder.join("ca.crt"), root.certificate.pem())?;
    let identity = "[identity]\ncertificate = \"site-a.crt\"\nkey = \"site-a.key\"\nca = \"ca.crt\"\n";
    let text = format!("server = \"{}\"\nstate_dir = \"state\"\n{identity}", federation.address()?);
    fs::write(folder.join("site.toml"), text)?;
    connects(&mut federation, "a")?;
    let list = federation.sheaf(&["site", "list"])?;
    assert!(list.contains("connected"), "{list}");
    Ok(())
}

#[test]
fn a_revoked_site_is_not_invited_again() -> Result<()> {
    let federation = signing()?;
    let token = invite(&federation, "a", "1h")?;
    federation.sheaf(&["site", "revoke", "a"])?;
    let late = refusal(&enroll(&federation, "a", &token)?);
    assert!(late.contains("site a is revoked for good"), "{late}");
    let refused = federation.sheaf_output(&["site", "invite", "a"])?;
    assert!(refusal(&refused).contains("site a is revoked for good"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuing_authority_makes_no_operator() -> Result<()> {
    let federation = signing()?;
    let (issuing, out) = (federation.path().join("issuing"), federation.path().join("for-mallory"));
    let options = pki::IssueOptions { out: Some(out.clone()), ..pki::IssueOptions::default() };
    let error = pki::issue(&issuing, Role::Operator, &"mallory".parse()?, &options).unwrap_err().to_string();
    assert!(error.contains("makes certificates of a site alone"), "{error}");
    Ok(())
}
