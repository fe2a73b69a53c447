//! A federation's certificates, made on the spot.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519,
    SanType,
};
use sheaf_common::id::{Federation, Identity, Role};

use crate::tls::{CredentialPaths, Credentials};

/// A certificate authority.
pub(super) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A party that trusts this authority and is vouched for by it.
    pub(super) fn party(&self, role: Role, name: &str) -> Credentials {
        self.party_of(self, role, name)
    }

    /// A party that trusts this authority and is vouched for by another.
    pub(super) fn party_of(&self, other: &Self, role: Role, name: &str) -> Credentials {
        let federation: Federation = "hearts".parse().unwrap();
        let mut params = CertificateParams::default();
        let uri = format!("sheaf://{federation}/{role}/{name}");
        params.subject_alt_names = vec![
            SanType::URI(uri.as_str().try_into().unwrap()),
            SanType::DnsName(Identity::server_dns_name(&federation).as_str().try_into().unwrap()),
        ];
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.signed_by(&key, &other.issuer).unwrap();
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
            ca: file("ca.crt", self.certificate.pem()),
        };
        Credentials::load(&paths).unwrap()
    }
}
