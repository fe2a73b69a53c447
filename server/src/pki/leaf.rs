//! A party's key and certificate.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use rustls::pki_types::DnsName;
use sheaf_common::id::{Identity, Name, Role};
use sheaf_transport::key::PrivateKey;
use time::{Duration, OffsetDateTime};

use super::{Authority, BACKDATED, CA_CERTIFICATE, PkiError, files};

const DEFAULT_DAYS: i64 = 365;

/// A name or address under which a server is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name of the DNS.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

/// The text is no host.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a host: use a DNS name or an IP address, without a port")]
pub struct BadHost(String);

impl FromStr for Host {
    type Err = BadHost;

    fn from_str(text: &str) -> Result<Self, BadHost> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let name = text.to_ascii_lowercase();
        match DnsName::try_from(name.as_str()) {
            Ok(_) => Ok(Self::Dns(name)),
            Err(_) => Err(BadHost(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

/// What can be chosen about a certificate.
#[derive(Clone, Debug, Default)]
pub struct IssueOptions {
    /// Further names of a server, for tools that check them. Sheaf's own clients do not need any.
    pub hosts: Vec<Host>,
    /// Days that it is valid; a year, or what the authority has left, when not given.
    pub days: Option<u32>,
    /// Folder for the files; the authority's own when not given. It is made if it is not there.
    pub out: Option<PathBuf>,
}

/// The files of a party: what it needs to take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Its certificate, `<role>-<name>.crt`.
    pub certificate: PathBuf,
    /// Its key, `<role>-<name>.key`, readable by its owner alone.
    pub key: PathBuf,
    /// The authority's certificate, a copy of which lies beside the two.
    pub ca: PathBuf,
}

/// Makes a key and a certificate for a party, signed by the authority in `dir`.
pub fn issue(dir: &Path, role: Role, name: &Name, options: &IssueOptions) -> Result<Issued, PkiError> {
    issue_at(OffsetDateTime::now_utc(), dir, role, name, options)
}

pub(super) fn issue_at(
    now: OffsetDateTime,
    dir: &Path,
    role: Role,
    name: &Name,
    options: &IssueOptions,
) -> Result<Issued, PkiError> {
    let authority = Authority::open(dir)?;
    if role != Role::Server && !options.hosts.is_empty() {
        return Err(PkiError::Hosts(role));
    }
    let identity = Identity { federation: authority.federation.clone(), role, name: name.clone() };
    let mut params = params(&identity, &options.hosts)?;
    params.not_before = now - BACKDATED;
    params.not_after = expiry(now, &authority, options.days)?;
    let key = PrivateKey::generate()?;
    let certificate = params.signed_by(&key, &authority.issuer)?;

    let out = options.out.as_deref().unwrap_or(dir);
    let file = |extension: &str| out.join(format!("{role}-{name}.{extension}"));
    let issued = Issued { certificate: file("crt"), key: file("key"), ca: out.join(CA_CERTIFICATE) };
    files::make_private_dir(out)?;
    files::ensure(&issued.ca, &authority.certificate)?;
    files::write_pair((&issued.key, &key.pem()), (&issued.certificate, &certificate.pem()))?;
    Ok(issued)
}

fn params(identity: &Identity, hosts: &[Host]) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, identity.federation.as_str());
    params.distinguished_name.push(DnType::OrganizationalUnitName, identity.role.as_str());
    params.distinguished_name.push(DnType::CommonName, identity.name.as_str());
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match identity.role {
        Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Role::Site | Role::Operator | Role::Viewer => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    if identity.role == Role::Server {
        let name = Identity::server_dns_name(&identity.federation);
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
    }
    for host in hosts {
        params.subject_alt_names.push(match host {
            Host::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Ip(address) => SanType::IpAddress(*address),
        });
    }
    Ok(params)
}

/// No certificate outlives its authority: it would stop working without anybody being told.
fn expiry(now: OffsetDateTime, authority: &Authority, days: Option<u32>) -> Result<OffsetDateTime, PkiError> {
    let left = authority.until - now;
    if !left.is_positive() {
        return Err(PkiError::Expired(authority.federation.clone()));
    }
    let Some(days) = days else {
        return Ok(now + left.min(Duration::days(DEFAULT_DAYS)));
    };
    let lifetime = Duration::days(i64::from(days));
    if days == 0 || lifetime > left {
        return Err(PkiError::Lifetime { asked: days, most: left.whole_days() });
    }
    Ok(now + lifetime)
}
