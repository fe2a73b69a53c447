//! Whom the federation's CA vouches for, and whom it does not: every way in which a certificate can be no good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, SignatureAlgorithm, date_time_ymd,
};
use sheaf_common::id::Role;

use super::*;
use crate::tls::{CredentialPaths, Credentials};

/// A certificate authority that exists in memory only.
pub(crate) struct Ca {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(&self, asked: &Asked<'_>) -> (Certificate, KeyPair) {
        let key = KeyPair::generate_for(asked.algorithm).unwrap();
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = asked.uris.iter().map(uri).collect();
        params.is_ca = IsCa::ExplicitNoCa;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2030, 1, 1);
        params.extended_key_usages = vec![asked.usage.clone()];
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// What a certificate says.
pub(crate) struct Asked<'a> {
    pub(crate) uris: &'a [&'a str],
    pub(crate) usage: ExtendedKeyUsagePurpose,
    pub(crate) algorithm: &'static SignatureAlgorithm,
}

pub(crate) const SITE: Asked<'static> = Asked {
    uris: &["sheaf://hearts/site/north"],
    usage: ExtendedKeyUsagePurpose::ClientAuth,
    algorithm: &PKCS_ED25519,
};

/// Seconds from 1970 to a day of 2025, on which all these certificates are valid.
const VALID: u64 = 1_750_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Our own files, loaded as a program loads them.
pub(crate) fn load(ca: &Ca, (certificate, key): &(Certificate, KeyPair)) -> Credentials {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let paths = CredentialPaths {
        certificate: file("own.crt", certificate.pem()),
        key: file("own.key", key.serialize_pem()),
        ca: file("ca.crt", ca.certificate.pem()),
    };
    Credentials::load(&paths).unwrap()
}

/// The federation's judge, at a site called south.
pub(crate) fn judge(ca: &Ca) -> Authority {
    let south = Asked { uris: &["sheaf://hearts/site/south"], ..SITE };
    load(ca, &ca.issue(&south)).authority().clone()
}

fn refusal(ca: &Ca, certificate: &[u8], now: u64) -> NotOurs {
    judge(ca).verify(certificate, at(now)).expect_err("refused")
}

fn untrusted(error: &NotOurs) -> bool {
    matches!(error, NotOurs::Untrusted(_))
}

#[test]
fn what_a_site_signs_is_checked_with_the_key_of_its_certificate() {
    let ca = Ca::new();
    let own = ca.issue(&SITE);
    let credentials = load(&ca, &own);
    assert_eq!(credentials.certificate(), own.0.der()[..]);

    let (identity, key) = judge(&ca).verify(&credentials.certificate(), at(VALID)).unwrap();
    assert_eq!(identity.to_string(), "sheaf://hearts/site/north");
    let signature = credentials.sign(b"roster").unwrap();
    let key = UnparsedPublicKey::new(&ED25519, key);
    assert!(key.verify(b"roster", &signature).is_ok());
    assert!(key.verify(b"another", &signature).is_err());
}

#[test]
fn another_role_is_told_and_left_to_the_caller() {
    let ca = Ca::new();
    let (certificate, _) = ca.issue(&Asked { uris: &["sheaf://hearts/operator/ada"], ..SITE });
    let (identity, _) = judge(&ca).verify(certificate.der(), at(VALID)).unwrap();
    assert_eq!((identity.role, identity.name.as_str()), (Role::Operator, "ada"));
}

#[test]
fn a_servers_certificate_is_not_for_the_role_of_a_client() {
    let ca = Ca::new();
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let (certificate, _) = ca.issue(&Asked { uris: &["sheaf://hearts/server/hub"], usage, ..SITE });
    assert!(untrusted(&refusal(&ca, certificate.der(), VALID)));
}

#[test]
fn another_ca_is_not_believed() {
    let ca = Ca::new();
    let (certificate, _) = Ca::new().issue(&SITE);
    let error = refusal(&ca, certificate.der(), VALID);
    assert!(untrusted(&error), "{error}");
    assert!(error.to_string().starts_with("the federation's CA does not vouch for it: "), "{error}");
}

#[test]
fn a_certificate_signs_no_certificate() {
    let ca = Ca::new();
    let (_, key) = ca.issue(&SITE);
    let params = CertificateParams::default();
    let north = Ca { certificate: params.self_signed(&key).unwrap(), issuer: Issuer::new(params, key) };
    let (forged, _) = north.issue(&SITE);
    assert!(untrusted(&refusal(&ca, forged.der(), VALID)));
    assert!(untrusted(&refusal(&ca, ca.certificate.der(), VALID)), "nor is the CA a party");
}

#[test]
fn a_certificate_holds_between_its_two_dates() {
    let ca = Ca::new();
    let (certificate, _) = ca.issue(&SITE);
    for now in [0, 1_577_836_799, 1_893_456_001] {
        let error = refusal(&ca, certificate.der(), now);
        assert!(untrusted(&error), "{error}");
    }
    for now in [1_577_836_800, VALID, 1_893_456_000] {
        assert!(judge(&ca).verify(certificate.der(), at(now)).is_ok(), "{now}");
    }
}

#[test]
fn who_is_not_named_as_a_party_of_this_federation_is_a_stranger() {
    let ca = Ca::new();
    let cases: [(&[&str], &str); 4] = [
        (&["sheaf://lungs/site/north"], "it is of federation lungs"),
        (&["https://hearts.example.org"], "it has no sheaf:// URI"),
        (&[], "it has no subject alternative name"),
        (&["sheaf://hearts/site/north", "sheaf://hearts/site/east"], "it has more than one sheaf:// URI"),
    ];
    for (uris, why) in cases {
        let (certificate, _) = ca.issue(&Asked { uris, ..SITE });
        let error = refusal(&ca, certificate.der(), VALID).to_string();
        assert_eq!(error, format!("it names no party of this federation: {why}"));
    }
}

#[test]
fn a_key_of_another_kind_neither_signs_nor_counts() {
    let ca = Ca::new();
    let own = ca.issue(&Asked { algorithm: &PKCS_ECDSA_P256_SHA256, ..SITE });
    assert!(matches!(refusal(&ca, own.0.der(), VALID), NotOurs::Key));
    let error = load(&ca, &own).sign(b"roster").unwrap_err();
    assert_eq!(error.to_string(), "its key is not an Ed25519 key: issue a new one with `sheaf pki issue`");
}

#[test]
fn what_is_no_certificate_is_refused() {
    let ca = Ca::new();
    let (certificate, _) = ca.issue(&SITE);
    let whole = certificate.der().to_vec();
    let longer = [&whole[..], &[0]].concat();
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for bytes in [&[][..], &whole[..whole.len() - 1], &longer, &damaged] {
        assert!(untrusted(&refusal(&ca, bytes, VALID)), "{} bytes", bytes.len());
    }
}
