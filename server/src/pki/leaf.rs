//! A party's key and certificate.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use rustls::pki_types::DnsName;
use sheaf_common::id::{Federation, Identity, Name, Role};
use sheaf_transport::files;
use sheaf_transport::key::PrivateKey;
use time::{Duration, OffsetDateTime};

use super::{Authority, CA_CERTIFICATE, PkiError, SigningRequest};

/// How long a certificate is valid when nothing is said.
pub(super) const LIFETIME: Duration = Duration::days(365);

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
    let key = PrivateKey::generate()?;
    let chain = authority.issue(&key, &options.wanted(role, name), now)?;
    let issued = Issued::named(role, name, options.out.as_deref().unwrap_or(dir));
    files::make_private_dir(issued.folder())?;
    files::ensure(&issued.ca, &authority.certificate)?;
    files::write_pair((&issued.key, &key.pem()), (&issued.certificate, &files::pem(&chain)))?;
    Ok(issued)
}

/// Makes a certificate for a party that made its key and the request by itself, signed by the authority in `dir`.
///
/// The party is named by whoever signs: what the request says of itself is no more than a wish.
pub fn sign(
    dir: &Path,
    request: &SigningRequest,
    role: Role,
    name: &Name,
    options: &IssueOptions,
) -> Result<Issued, PkiError> {
    let authority = Authority::open(dir)?;
    let wanted = options.wanted(role, name);
    let chain = authority.issue(request.key(), &wanted, OffsetDateTime::now_utc())?;
    let issued = Issued::named(role, name, options.out.as_deref().unwrap_or(dir));
    files::make_private_dir(issued.folder())?;
    files::ensure(&issued.ca, &authority.certificate)?;
    files::write_new(&issued.certificate, &files::pem(&chain))?;
    Ok(issued)
}

/// A certificate as whoever issues it wants it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What its holder may do.
    pub role: Role,
    /// Who its holder is.
    pub name: &'a Name,
    /// Further names of a server.
    pub hosts: &'a [Host],
    /// How long it is valid; a year, or what the authority has left, when not given.
    pub lifetime: Option<Duration>,
}

impl<'a> Wanted<'a> {
    /// A site's.
    pub fn site(name: &'a Name, lifetime: Option<Duration>) -> Self {
        Self { role: Role::Site, name, hosts: &[], lifetime }
    }
}

impl IssueOptions {
    fn wanted<'a>(&'a self, role: Role, name: &'a Name) -> Wanted<'a> {
        Wanted { role, name, hosts: &self.hosts, lifetime: self.days.map(days) }
    }
}

impl Issued {
    fn named(role: Role, name: &Name, out: &Path) -> Self {
        let file = |extension: &str| out.join(format!("{role}-{name}.{extension}"));
        Self { certificate: file("crt"), key: file("key"), ca: out.join(CA_CERTIFICATE) }
    }

    fn folder(&self) -> &Path {
        self.ca.parent().unwrap_or(Path::new(""))
    }
}

pub(super) fn days(days: u32) -> Duration {
    Duration::days(i64::from(days))
}

pub(super) fn params(federation: &Federation, wanted: &Wanted<'_>) -> Result<CertificateParams, PkiError> {
    let &Wanted { role, name, hosts, .. } = wanted;
    if role != Role::Server && !hosts.is_empty() {
        return Err(PkiError::Hosts(role));
    }
    let identity = Identity { federation: federation.clone(), role, name: name.clone() };
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
