//! What must hold of the certificates, checked with the TLS that Sheaf uses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use sheaf_common::id::{Federation, Identity, Name, Role};
use sheaf_transport::files;
use sheaf_transport::key::PrivateKey;
use sheaf_transport::tls::identity_of_chain;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use super::leaf::issue_at;
use super::*;

fn federation() -> (TempDir, Federation) {
    let dir = TempDir::new().unwrap();
    let federation: Federation = "hearts".parse().unwrap();
    init(dir.path(), &federation).unwrap();
    (dir, federation)
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn party(dir: &Path, role: Role, text: &str) -> Issued {
    issue(dir, role, &name(text), &IssueOptions::default()).unwrap()
}

fn chain(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
}

fn roots(ca: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    Arc::new(roots)
}

/// A TLS 1.3 handshake in memory with certificates on both sides; what the server saw of the client's.
fn handshake(server: &Issued, client: &Issued, dialled: &str) -> Result<Identity, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls13 = &[&rustls::version::TLS13];
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots(&server.ca), provider.clone()).build().unwrap();
    let server_config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(tls13)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain(&server.certificate), PrivateKeyDer::from_pem_file(&server.key).unwrap())?;
    let client_config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(tls13)?
        .with_root_certificates(roots(&client.ca))
        .with_client_auth_cert(
            chain(&client.certificate),
            PrivateKeyDer::from_pem_file(&client.key).unwrap(),
        )?;
    let dialled = ServerName::try_from(dialled.to_owned()).unwrap();
    let mut at_client = ClientConnection::new(Arc::new(client_config), dialled).unwrap();
    let mut at_server = ServerConnection::new(Arc::new(server_config)).unwrap();
    while at_client.wants_write() || at_server.wants_write() {
        let mut wire = Vec::new();
        at_client.write_tls(&mut wire).unwrap();
        at_server.read_tls(&mut wire.as_slice()).unwrap();
        at_server.process_new_packets()?;
        wire.clear();
        at_server.write_tls(&mut wire).unwrap();
        at_client.read_tls(&mut wire.as_slice()).unwrap();
        at_client.process_new_packets()?;
    }
    assert!(!at_client.is_handshaking() && !at_server.is_handshaking());
    let seen = &at_server.peer_certificates().unwrap()[0];
    assert_eq!(seen, &chain(&client.certificate)[0]);
    match Card::read(&client.certificate).unwrap().holder {
        Holder::Party(identity) => Ok(identity),
        Holder::Authority(_) | Holder::Issuing(..) => panic!("a party's certificate"),
    }
}

const SERVER: &str = "server.hearts.sheaf";

#[test]
fn every_client_role_is_accepted_by_the_server() {
    let (dir, federation) = federation();
    let server = party(dir.path(), Role::Server, "main");
    for role in [Role::Site, Role::Operator, Role::Viewer] {
        let client = party(dir.path(), role, "st-mary");
        let seen = handshake(&server, &client, SERVER).unwrap();
        assert_eq!(seen, Identity { federation: federation.clone(), role, name: name("st-mary") });
    }
}

#[test]
fn a_site_cannot_pose_as_the_server() {
    let (dir, _) = federation();
    let site = party(dir.path(), Role::Site, "mallory");
    let client = party(dir.path(), Role::Site, "st-mary");
    let error = handshake(&site, &client, SERVER).unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn a_server_certificate_is_no_client() {
    let (dir, _) = federation();
    let server = party(dir.path(), Role::Server, "main");
    let error = handshake(&server, &party(dir.path(), Role::Server, "other"), SERVER).unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn another_federation_is_a_stranger() {
    let (ours, _) = federation();
    let (theirs, _) = federation();
    let error = handshake(
        &party(ours.path(), Role::Server, "main"),
        &Issued { ca: ours.path().join(CA_CERTIFICATE), ..party(theirs.path(), Role::Site, "st-mary") },
        SERVER,
    )
    .unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn a_server_is_known_by_its_hosts_too() {
    let (dir, _) = federation();
    let options = IssueOptions {
        hosts: ["Fl.Example.org", "127.0.0.1", "::1"].map(|host| host.parse().unwrap()).to_vec(),
        ..IssueOptions::default()
    };
    let server = issue(dir.path(), Role::Server, &name("main"), &options).unwrap();
    let site = party(dir.path(), Role::Site, "st-mary");
    for dialled in [SERVER, "fl.example.org", "127.0.0.1", "::1"] {
        handshake(&server, &site, dialled).unwrap();
    }
    handshake(&server, &site, "elsewhere.example.org").unwrap_err();
    let card = Card::read(&server.certificate).unwrap();
    assert_eq!(card.hosts, [SERVER, "fl.example.org", "127.0.0.1", "::1"]);

    let error = issue(dir.path(), Role::Site, &name("b"), &options).unwrap_err();
    assert!(error.to_string().starts_with("--host is for servers"), "{error}");
}

#[test]
fn what_is_no_host_is_refused() {
    for bad in ["", "a b", "host:9444", "*.example.org", "https://example.org"] {
        assert!(bad.parse::<Host>().is_err(), "{bad}");
    }
}

#[test]
fn keys_are_for_their_owner_alone() {
    let (dir, _) = federation();
    let site = party(dir.path(), Role::Site, "st-mary");
    for key in [site.key, dir.path().join(CA_KEY)] {
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "{}", key.display());
    }
}

#[test]
fn an_authority_whose_key_others_can_read_issues_nothing() {
    let (dir, _) = federation();
    let key = dir.path().join(CA_KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = issue(dir.path(), Role::Site, &name("a"), &IssueOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with(&format!("run `chmod 600 {}`", key.display())), "{error}");
}

#[test]
fn nothing_is_overwritten_and_no_half_is_left() {
    let (dir, federation) = federation();
    let site = party(dir.path(), Role::Site, "st-mary");
    let before = [CA_KEY, CA_CERTIFICATE, "site-st-mary.key", "site-st-mary.crt"]
        .map(|file| (file, fs::read(dir.path().join(file)).unwrap()));
    assert!(matches!(init(dir.path(), &federation), Err(PkiError::Write(WriteError::AlreadyThere(_)))));
    let again = || issue(dir.path(), Role::Site, &name("st-mary"), &IssueOptions::default());
    assert!(matches!(again(), Err(PkiError::Write(WriteError::AlreadyThere(_)))));
    for (file, content) in before {
        assert_eq!(fs::read(dir.path().join(file)).unwrap(), content, "{file}");
    }

    fs::remove_file(&site.key).unwrap();
    let error = again().unwrap_err().to_string();
    assert!(error.contains("site-st-mary.crt is already there"), "{error}");
    assert!(!site.key.exists(), "a key without its certificate was left behind");
}

#[test]
fn a_party_can_get_a_folder_of_its_own() {
    let (dir, _) = federation();
    let out = dir.path().join("to/st-mary");
    let options = IssueOptions { out: Some(out.clone()), ..IssueOptions::default() };
    let issued = issue(dir.path(), Role::Site, &name("st-mary"), &options).unwrap();
    assert_eq!(issued.ca, out.join("ca.crt"));
    assert_eq!(fs::read(&issued.ca).unwrap(), fs::read(dir.path().join("ca.crt")).unwrap());
    assert!(!out.join(CA_KEY).exists());

    let (other, _) = federation();
    let error = issue(other.path(), Role::Site, &name("st-john"), &options).unwrap_err().to_string();
    assert!(error.contains("ca.crt is already there"), "{error}");
}

#[test]
fn authorities_of_one_name_are_told_apart_by_their_keys() {
    let ((one, _), (other, _)) = (federation(), federation());
    let key = |path: &Path| Card::read(path).unwrap().authority_key.unwrap();
    let (ours, theirs) = (key(&one.path().join(CA_CERTIFICATE)), key(&other.path().join(CA_CERTIFICATE)));
    assert_ne!(ours, theirs);
    assert_eq!(key(&party(one.path(), Role::Site, "a").certificate), ours);
    assert_eq!(key(&party(other.path(), Role::Site, "a").certificate), theirs);
}

#[test]
fn lifetimes() {
    let (dir, _) = federation();
    let now = OffsetDateTime::now_utc();
    let ca = Card::read(&dir.path().join(CA_CERTIFICATE)).unwrap();
    assert_eq!((ca.until - now).whole_days() / 365, 10);

    let site = Card::read(&party(dir.path(), Role::Site, "a").certificate).unwrap();
    assert!(site.from <= now - Duration::minutes(59) && site.until > now + Duration::days(364));

    let for_days = |at, text: &str, days| {
        issue_at(at, dir.path(), Role::Site, &name(text), &IssueOptions { days, ..IssueOptions::default() })
    };
    let short = Card::read(&for_days(now, "b", Some(3)).unwrap().certificate).unwrap();
    assert_eq!((short.until - now).whole_hours() / 24, 2, "three days but for what passed since");
    for days in [0, 40_000, u32::MAX] {
        assert!(matches!(for_days(now, "c", Some(days)), Err(PkiError::Lifetime { .. })), "{days}");
    }
    let late = ca.until - Duration::days(9);
    assert_eq!(Card::read(&for_days(late, "d", None).unwrap().certificate).unwrap().until, ca.until);
    assert!(matches!(for_days(ca.until, "e", None), Err(PkiError::Expired(_))));
}

#[test]
fn the_right_folder_and_the_right_key_are_needed() {
    let (dir, _) = federation();
    let (other, _) = federation();
    let site = party(dir.path(), Role::Site, "a");

    fs::copy(other.path().join(CA_KEY), dir.path().join(CA_KEY)).unwrap();
    assert!(matches!(Authority::open(dir.path()), Err(PkiError::ForeignKey(_))));

    fs::copy(&site.certificate, dir.path().join(CA_CERTIFICATE)).unwrap();
    assert!(matches!(Authority::open(dir.path()), Err(PkiError::NoAuthority(..))));

    fs::remove_file(other.path().join(CA_KEY)).unwrap();
    let Err(error) = Authority::open(other.path()) else { panic!("opened without a key") };
    let key = other.path().join(CA_KEY);
    assert!(error.to_string().starts_with(&format!("cannot read {}", key.display())), "{error}");
}

/// What whoever has an authority's key can make with it, whatever our own code would refuse.
fn forge(issuing: &Path, role: Role) -> Issued {
    let key = PrivateKey::read(&issuing.join(ISSUING_KEY)).unwrap();
    let pem = fs::read_to_string(issuing.join(ISSUING_CERTIFICATE)).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&pem, key).unwrap();
    let (own, mallory) = (PrivateKey::generate().unwrap(), name("mallory"));
    let wanted = Wanted { role, name: &mallory, hosts: &[], lifetime: None };
    let params = leaf::params(&"hearts".parse().unwrap(), &wanted).unwrap();
    let leaf = params.signed_by(&own, &issuer).unwrap().pem();
    let file = |extension: &str| issuing.join(format!("{role}-forged.{extension}"));
    files::write_pair((&file("key"), &own.pem()), (&file("crt"), &(leaf + &pem))).unwrap();
    Issued { certificate: file("crt"), key: file("key"), ca: issuing.join(CA_CERTIFICATE) }
}

#[test]
fn an_issuing_authority_speaks_for_sites_alone_even_in_a_thiefs_hands() {
    let (dir, _) = federation();
    let issuing_dir = dir.path().join("issuing");
    let certificate = issuing(dir.path(), &issuing_dir, Some(30)).unwrap();
    let card = Card::read(&certificate).unwrap();
    assert_eq!(card.holder.to_string(), "sheaf://hearts/site");
    let server = party(dir.path(), Role::Server, "main");
    let site = party(&issuing_dir, Role::Site, "st-mary");
    handshake(&server, &site, SERVER).unwrap();
    assert_eq!(chain(&site.certificate).len(), 2);
    let until = Card::read(&site.certificate).unwrap().until;
    assert_eq!(until, card.until, "no certificate outlives its authority");

    let error = issue(&issuing_dir, Role::Operator, &name("ada"), &IssueOptions::default()).unwrap_err();
    assert!(matches!(error, PkiError::Limited(Role::Site)), "{error}");
    let error = issuing(&issuing_dir, &dir.path().join("below"), None).unwrap_err();
    assert!(matches!(error, PkiError::NoAuthority(..)), "{error}");

    for role in [Role::Operator, Role::Viewer] {
        let forged = chain(&forge(&issuing_dir, role).certificate);
        let error = identity_of_chain(&forged).unwrap_err().to_string();
        let mallory = format!("it is sheaf://hearts/{role}/mallory");
        assert_eq!(error, format!("{mallory}, but who issued it may make hearts/site alone"));
    }
    let site = party(dir.path(), Role::Site, "st-john");
    let error = handshake(&forge(&issuing_dir, Role::Server), &site, SERVER).unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn a_request_gets_a_certificate_for_its_key_under_the_name_that_the_signer_gives() {
    let (dir, _) = federation();
    let key = PrivateKey::generate().unwrap();
    let csr = sheaf_transport::enrolment::request(&key, &name("st-mary"), None).unwrap();
    let path = dir.path().join("a.csr");
    fs::write(&path, csr.pem().unwrap()).unwrap();
    let request = SigningRequest::read(&path).unwrap();
    assert_eq!(request.name(), Some(name("st-mary")));
    let signed = sign(dir.path(), &request, Role::Site, &name("other"), &IssueOptions::default()).unwrap();
    let card = Card::read(&signed.certificate).unwrap();
    assert_eq!(card.holder.to_string(), "sheaf://hearts/site/other");
    assert_eq!(card.public_key, key.public_key());
    assert!(!signed.key.exists(), "the key is the site's own");

    // A request that asks to be somebody else, or an authority, gets none of it.
    let wish =
        sheaf_transport::enrolment::request(&key, &name("x"), Some(&"lungs".parse().unwrap())).unwrap();
    let request = SigningRequest::parse(wish.der()).unwrap();
    let signed = sign(dir.path(), &request, Role::Viewer, &name("eye"), &IssueOptions::default()).unwrap();
    assert_eq!(Card::read(&signed.certificate).unwrap().holder.to_string(), "sheaf://hearts/viewer/eye");
}

#[test]
fn a_request_must_be_signed_by_the_key_that_it_names_and_that_key_be_ed25519() {
    let key = PrivateKey::generate().unwrap();
    let good = sheaf_transport::enrolment::request(&key, &name("a"), None).unwrap();
    let mut bytes = good.der().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(matches!(SigningRequest::parse(&bytes), Err(BadRequest::Damaged(_))));
    for cut in 0..bytes.len() {
        assert!(SigningRequest::parse(&good.der()[..cut]).is_err(), "{cut}");
    }
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&other).unwrap();
    assert!(matches!(SigningRequest::parse(request.der()), Err(BadRequest::Key)));
}

#[test]
fn what_is_no_certificate_is_named() {
    let (dir, _) = federation();
    let file = dir.path().join("x.crt");
    let reading = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        Card::read(&file).unwrap_err().to_string()
    };
    assert!(reading(b"hello").contains("is not a PEM certificate"));
    assert!(reading(&[0xff, 0xfe]).contains("is not a PEM certificate"));
    let damaged = b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
    assert!(reading(damaged).contains("holds a damaged certificate"));
    assert!(reading(&fs::read(dir.path().join(CA_KEY)).unwrap()).contains("is a private key"));
    let foreign = rcgen::generate_simple_self_signed(["example.org".to_owned()]).unwrap().cert.pem();
    assert!(reading(foreign.as_bytes()).contains("was not made by `sheaf pki`"));
    assert!(Card::read(&dir.path().join("none.crt")).unwrap_err().to_string().starts_with("cannot read"));
}
