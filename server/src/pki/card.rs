//! What a certificate says, read back from its file.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sheaf_common::id::{Federation, Identity, Role};
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// The SAN URI of an authority is this and the name of its federation.
pub(super) const AUTHORITY_URI: &str = "sheaf://";

/// Who a certificate belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The authority of a federation.
    Authority(Federation),
    /// An authority below it, for one role.
    Issuing(Federation, Role),
    /// A party.
    Party(Identity),
}

impl Holder {
    /// The party's role; `None` for an authority.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::Authority(_) | Self::Issuing(..) => None,
            Self::Party(identity) => Some(identity.role),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(federation) => write!(f, "{AUTHORITY_URI}{federation}"),
            Self::Issuing(federation, role) => write!(f, "{AUTHORITY_URI}{federation}/{role}"),
            Self::Party(identity) => identity.fmt(f),
        }
    }
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct Card {
    /// Who it belongs to.
    pub holder: Holder,
    /// Start of its validity.
    pub from: OffsetDateTime,
    /// End of its validity.
    pub until: OffsetDateTime,
    /// Distinguished name of who signed it.
    pub issuer: String,
    /// Identifier of the key that signed it, by which authorities of one name are told apart; of an authority that
    /// signed itself its own.
    pub authority_key: Option<String>,
    /// DNS names and addresses in it.
    pub hosts: Vec<String>,
    /// SHA-256 of the certificate.
    pub fingerprint: [u8; 32],
    /// DER of the public key with its algorithm.
    pub public_key: Vec<u8>,
    /// Authorities that may stand below this one, down to a party.
    pub below: u32,
}

/// The file holds no certificate of a federation.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened.
    #[error("cannot read {0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// It is a key.
    #[error("{0} is a private key: show the certificate beside it (.crt), and keep the key to yourself")]
    IsKey(PathBuf),
    /// It is something else.
    #[error("{0} is not a PEM certificate (-----BEGIN CERTIFICATE-----)")]
    NoPem(PathBuf),
    /// Its content is broken.
    #[error("{0} holds a damaged certificate: {1}")]
    Damaged(PathBuf, String),
    /// It is somebody else's.
    #[error("{0} was not made by `sheaf pki`: it names no Sheaf identity (a SAN URI sheaf://…)")]
    Foreign(PathBuf),
}

impl Card {
    /// Reads the first certificate of a PEM file.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        Self::parse(path, &read_text(path)?)
    }

    /// Reads the first certificate of a PEM text; `path` is for messages.
    pub(super) fn parse(path: &Path, pem: &str) -> Result<Self, ReadError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| {
            if pem.contains("PRIVATE KEY-----") {
                ReadError::IsKey(path.to_owned())
            } else {
                ReadError::NoPem(path.to_owned())
            }
        })?;
        let (_, x509) = X509Certificate::from_der(&der)
            .map_err(|e| ReadError::Damaged(path.to_owned(), e.to_string()))?;
        let names =
            x509.subject_alternative_name().ok().flatten().map_or(&[][..], |san| &san.value.general_names);
        let holder = names.iter().find_map(holder).ok_or_else(|| ReadError::Foreign(path.to_owned()))?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &der).as_ref());
        Ok(Self {
            holder,
            from: x509.validity().not_before.to_datetime(),
            until: x509.validity().not_after.to_datetime(),
            issuer: x509.issuer().to_string(),
            authority_key: authority_key(&x509),
            hosts: names.iter().filter_map(host).collect(),
            fingerprint,
            public_key: x509.public_key().raw.to_vec(),
            below: below(&x509),
        })
    }
}

fn authority_key(x509: &X509Certificate<'_>) -> Option<String> {
    let extensions = || x509.extensions().iter().map(|extension| extension.parsed_extension());
    let issuers = extensions().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(issuer) = extension else { return None };
        issuer.key_identifier.as_ref().map(|key| hex::encode(key.0))
    });
    issuers.or_else(|| {
        extensions().find_map(|extension| {
            let ParsedExtension::SubjectKeyIdentifier(own) = extension else { return None };
            Some(hex::encode(own.0))
        })
    })
}

fn below(x509: &X509Certificate<'_>) -> u32 {
    let constraints = x509.basic_constraints().ok().flatten().map(|extension| extension.value);
    constraints.filter(|of| of.ca).map_or(0, |of| of.path_len_constraint.unwrap_or(u32::MAX))
}

pub(super) fn read_text(path: &Path) -> Result<String, ReadError> {
    let bytes = fs::read(path).map_err(|e| ReadError::Io(path.to_owned(), e))?;
    String::from_utf8(bytes).map_err(|_| ReadError::NoPem(path.to_owned()))
}

fn holder(name: &GeneralName<'_>) -> Option<Holder> {
    let GeneralName::URI(uri) = name else { return None };
    if let Ok(identity) = uri.parse() {
        return Some(Holder::Party(identity));
    }
    let rest = uri.strip_prefix(AUTHORITY_URI)?;
    match rest.split_once('/') {
        None => rest.parse().ok().map(Holder::Authority),
        Some((federation, role)) => Some(Holder::Issuing(federation.parse().ok()?, role.parse().ok()?)),
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::IPAddress(bytes) = name {
        return address(bytes);
    }
    let GeneralName::DNSName(name) = name else {
        return None;
    };
    Some((*name).to_owned())
}

fn address(bytes: &[u8]) -> Option<String> {
    <[u8; 4]>::try_from(bytes)
        .map(|v4| std::net::Ipv4Addr::from(v4).to_string())
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(|v6| std::net::Ipv6Addr::from(v6).to_string()))
        .ok()
}
