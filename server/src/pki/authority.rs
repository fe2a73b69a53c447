//! An authority: how it is made, and how it is opened again to issue certificates.

use std::fmt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sheaf_common::enrolment::Chain;
use sheaf_common::id::{Federation, Role};
use sheaf_transport::files;
use sheaf_transport::key::PrivateKey;
use time::{Duration, OffsetDateTime};

use super::card::{AUTHORITY_URI, Card, Holder};
use super::leaf::{self, Wanted};
use super::{CA_CERTIFICATE, CA_KEY, ISSUING_CERTIFICATE, ISSUING_KEY, PkiError, backdated};

const LIFETIME: Duration = Duration::days(3652);

/// Makes a federation: its authority's key and certificate in `dir`, which is made if it is not there.
///
/// Returns the path of the certificate. Nothing is overwritten.
pub fn init(dir: &Path, federation: &Federation) -> Result<PathBuf, PkiError> {
    let key = PrivateKey::generate()?;
    let uri = format!("{AUTHORITY_URI}{federation}");
    let params = params(federation, "certificate authority", uri, 1, OffsetDateTime::now_utc(), LIFETIME)?;
    let certificate = params.self_signed(&key)?;
    files::make_private_dir(dir)?;
    let path = dir.join(CA_CERTIFICATE);
    files::write_pair((&dir.join(CA_KEY), &key.pem()), (&path, &certificate.pem()))?;
    Ok(path)
}

/// Makes an issuing authority in `out`, which makes certificates of sites alone, signed by the authority in `dir`.
///
/// Its certificate says `clientAuth`, so that TLS believes no server of it, and names the one role in its URI, which
/// every side of Sheaf holds it to.
pub fn issuing(dir: &Path, out: &Path, days: Option<u32>) -> Result<PathBuf, PkiError> {
    let root = Authority::open(dir)?;
    if root.limit.is_some() {
        return Err(PkiError::NoAuthority(dir.join(ISSUING_CERTIFICATE), "an issuing authority".into()));
    }
    if !root.makes_authorities {
        return Err(PkiError::NoRoom(dir.join(CA_CERTIFICATE)));
    }
    let now = OffsetDateTime::now_utc();
    let lifetime = root.lifetime(days.map(leaf::days), now)?;
    let uri = format!("{AUTHORITY_URI}{}/{}", root.federation, Role::Site);
    let mut params = params(&root.federation, "issuing authority for sites", uri, 0, now, lifetime)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = PrivateKey::generate()?;
    let certificate = params.signed_by(&key, &root.issuer)?;
    files::make_private_dir(out)?;
    files::ensure(&out.join(CA_CERTIFICATE), &root.certificate)?;
    let path = out.join(ISSUING_CERTIFICATE);
    files::write_pair((&out.join(ISSUING_KEY), &key.pem()), (&path, &certificate.pem()))?;
    Ok(path)
}

fn params(
    federation: &Federation,
    name: &str,
    uri: String,
    below: u8,
    now: OffsetDateTime,
    lifetime: Duration,
) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, federation.as_str());
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = backdated(now, lifetime);
    params.not_after = now + lifetime;
    Ok(params)
}

/// An authority, ready to issue certificates.
pub struct Authority {
    pub(super) federation: Federation,
    pub(super) until: OffsetDateTime,
    /// The root's certificate, by which everybody knows everybody; PEM.
    pub(super) certificate: String,
    /// The one role that it may make; of an issuing authority.
    pub(super) limit: Option<Role>,
    /// What stands between its certificates and the root.
    between: Option<CertificateDer<'static>>,
    makes_authorities: bool,
    issuer: Issuer<'static, PrivateKey>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, key redacted)", self.federation)
    }
}

impl Authority {
    /// Opens what [`init`] or [`issuing`] made in `dir`.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let root = super::card::read_text(&dir.join(CA_CERTIFICATE))?;
        let is_issuing = dir.join(ISSUING_CERTIFICATE).exists();
        let (path, key_path) = if is_issuing {
            (dir.join(ISSUING_CERTIFICATE), dir.join(ISSUING_KEY))
        } else {
            (dir.join(CA_CERTIFICATE), dir.join(CA_KEY))
        };
        let certificate = if is_issuing { super::card::read_text(&path)? } else { root.clone() };
        let card = Card::parse(&path, &certificate)?;
        let (federation, limit) = match card.holder {
            Holder::Authority(federation) => (federation, None),
            Holder::Issuing(federation, role) => (federation, Some(role)),
            Holder::Party(identity) => return Err(PkiError::NoAuthority(path, identity.to_string())),
        };
        let key = PrivateKey::read(&key_path)?;
        if key.public_key() != card.public_key {
            return Err(PkiError::ForeignKey(key_path));
        }
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes());
        let between = der.ok().filter(|_| is_issuing);
        Ok(Self {
            federation,
            until: card.until,
            certificate: root,
            limit,
            between,
            makes_authorities: card.below > 0,
            issuer,
        })
    }

    /// The federation whose authority it is.
    pub fn federation(&self) -> &Federation {
        &self.federation
    }

    /// How long the authority itself is still valid.
    pub fn left(&self, now: OffsetDateTime) -> Duration {
        self.until - now
    }

    /// Makes a certificate for whoever holds the secret half of `key`, with what links it to the root.
    pub fn issue(
        &self,
        key: &impl PublicKeyData,
        wanted: &Wanted<'_>,
        now: OffsetDateTime,
    ) -> Result<Chain, PkiError> {
        if let Some(limit) = self.limit.filter(|limit| *limit != wanted.role) {
            return Err(PkiError::Limited(limit));
        }
        let mut params = leaf::params(&self.federation, wanted)?;
        let lifetime = self.lifetime(wanted.lifetime, now)?;
        params.not_before = backdated(now, lifetime);
        params.not_after = now + lifetime;
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok([certificate.der()].into_iter().chain(&self.between).map(|der| der.to_vec()).collect())
    }

    /// No certificate outlives its authority: it would stop working without anybody being told.
    fn lifetime(&self, asked: Option<Duration>, now: OffsetDateTime) -> Result<Duration, PkiError> {
        let left = self.left(now);
        if !left.is_positive() {
            return Err(PkiError::Expired(self.federation.clone()));
        }
        let Some(asked) = asked else { return Ok(left.min(leaf::LIFETIME)) };
        if asked > left || !asked.is_positive() {
            return Err(PkiError::Lifetime { asked: asked.whole_days(), most: left.whole_days() });
        }
        Ok(asked)
    }
}
