//! The federation's certificate authority: how it is made, and how it is opened again to issue certificates.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose, SanType,
};
use sheaf_common::id::Federation;
use sheaf_transport::key::PrivateKey;
use time::{Duration, OffsetDateTime};

use super::card::{AUTHORITY_URI, Card, Holder};
use super::{BACKDATED, CA_CERTIFICATE, CA_KEY, PkiError, files};

const LIFETIME: Duration = Duration::days(3652);

/// Makes a federation: its authority's key and certificate in `dir`, which is made if it is not there.
///
/// Returns the path of the certificate. Nothing is overwritten.
pub fn init(dir: &Path, federation: &Federation) -> Result<PathBuf, PkiError> {
    let key = PrivateKey::generate()?;
    let certificate = params(federation, OffsetDateTime::now_utc())?.self_signed(&key)?;
    files::make_private_dir(dir)?;
    let path = dir.join(CA_CERTIFICATE);
    files::write_pair((&dir.join(CA_KEY), &key.pem()), (&path, &certificate.pem()))?;
    Ok(path)
}

fn params(federation: &Federation, now: OffsetDateTime) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, federation.as_str());
    params.distinguished_name.push(DnType::CommonName, "certificate authority");
    params.subject_alt_names = vec![SanType::URI(format!("{AUTHORITY_URI}{federation}").try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now - BACKDATED;
    params.not_after = now + LIFETIME;
    Ok(params)
}

/// An authority, ready to issue certificates.
pub struct Authority {
    pub(super) federation: Federation,
    pub(super) until: OffsetDateTime,
    pub(super) certificate: String,
    pub(super) issuer: Issuer<'static, PrivateKey>,
}

impl Authority {
    /// Opens the authority that [`init`] made in `dir`.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join(CA_CERTIFICATE);
        let certificate = super::card::read_text(&path)?;
        let card = Card::parse(&path, &certificate)?;
        let federation = match card.holder {
            Holder::Authority(federation) => federation,
            Holder::Party(identity) => return Err(PkiError::NoAuthority(path, identity.to_string())),
        };
        let key = PrivateKey::read(&dir.join(CA_KEY))?;
        if key.public_key() != card.public_key {
            return Err(PkiError::ForeignKey(dir.join(CA_KEY)));
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Self { federation, until: card.until, certificate, issuer })
    }

    /// The federation whose authority it is.
    pub fn federation(&self) -> &Federation {
        &self.federation
    }
}
