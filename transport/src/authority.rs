//! The federation's CA as a judge of certificates that come in messages, and our own key as a pen.
//!
//! TLS proves who is at the other end of a connection. In a secure sum sites must believe each other although
//! only the server is connected to them: they show each other certificates and sign with their keys.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{PKCS_ED25519, PublicKeyData, SigningKey};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use sheaf_common::id::{Federation, Identity};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::key::PrivateKey;
use crate::tls::{identity_of_chain, provider};

/// Length of an Ed25519 public key.
const KEY: usize = 32;

/// Certificates in a chain: a party's, and those of the authorities between it and the root.
const LONGEST: usize = 4;

/// Says whose a certificate is.
#[derive(Clone, Debug)]
pub struct Authority {
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
    federation: Federation,
}

/// A certificate is no good here.
#[derive(Debug, thiserror::Error)]
pub enum NotOurs {
    /// The federation's CA did not sign it, or it is not valid now.
    #[error("the federation's CA does not vouch for it: {0}")]
    Untrusted(String),
    /// It names no party, or one of another federation.
    #[error("it names no party of this federation: {0}")]
    Stranger(String),
    /// Its key is not an Ed25519 key.
    #[error("its key is not an Ed25519 key: issue a new one with `sheaf pki issue`")]
    Key,
}

impl Authority {
    /// With the certificates of the authorities of `federation`.
    pub(crate) fn of(
        roots: Arc<RootCertStore>,
        federation: Federation,
    ) -> Result<Self, VerifierBuilderError> {
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build()?;
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?;
        Ok(Self { clients, servers, federation })
    }

    /// The site, operator or viewer whose certificate this is, and its Ed25519 key. What links it to the authority
    /// follows it; DER.
    pub fn verify(&self, chain: &[u8], now: SystemTime) -> Result<(Identity, [u8; KEY]), NotOurs> {
        let chain = split(chain)?;
        let (leaf, between) = chain.split_first().ok_or_else(|| untrusted("there is none"))?;
        self.clients.verify_client_cert(leaf, between, unix(now)).map_err(untrusted)?;
        self.party(&chain, leaf)
    }

    /// The server whose certificate this is, and its Ed25519 key. What links it to the authority follows it; DER.
    pub fn verify_server(&self, chain: &[u8], now: SystemTime) -> Result<(Identity, [u8; KEY]), NotOurs> {
        let chain = split(chain)?;
        let (leaf, between) = chain.split_first().ok_or_else(|| untrusted("there is none"))?;
        let name = Identity::server_dns_name(&self.federation);
        let name = ServerName::try_from(name).map_err(untrusted)?;
        self.servers.verify_server_cert(leaf, between, &name, &[], unix(now)).map_err(untrusted)?;
        self.party(&chain, leaf)
    }

    fn party(
        &self,
        chain: &[CertificateDer<'_>],
        leaf: &CertificateDer<'_>,
    ) -> Result<(Identity, [u8; KEY]), NotOurs> {
        let identity = identity_of_chain(chain).map_err(|e| NotOurs::Stranger(e.to_string()))?;
        if identity.federation != self.federation {
            return Err(NotOurs::Stranger(format!("it is of federation {}", identity.federation)));
        }
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| NotOurs::Key)?;
        let info = parsed.public_key();
        // RFC 8410: 1.3.101.112 is Ed25519.
        if info.algorithm.algorithm.to_id_string() != "1.3.101.112" {
            return Err(NotOurs::Key);
        }
        let key = info.subject_public_key.data.as_ref().try_into().map_err(|_| NotOurs::Key)?;
        Ok((identity, key))
    }
}

/// Certificates that stand one after the other: DER tells where each ends.
fn split(mut chain: &[u8]) -> Result<Vec<CertificateDer<'_>>, NotOurs> {
    let mut certificates = Vec::new();
    while !chain.is_empty() {
        if certificates.len() == LONGEST {
            return Err(untrusted(format!("its chain has more than {LONGEST} certificates")));
        }
        let (rest, _) = X509Certificate::from_der(chain).map_err(untrusted)?;
        let (first, _) = chain.split_at(chain.len() - rest.len());
        certificates.push(CertificateDer::from(first));
        chain = rest;
    }
    Ok(certificates)
}

fn unix(now: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn untrusted(why: impl std::fmt::Display) -> NotOurs {
    NotOurs::Untrusted(why.to_string())
}

/// Signs with a certificate's key.
pub(crate) fn sign(key: &PrivateKey, message: &[u8]) -> Result<[u8; 64], NotOurs> {
    if key.algorithm() != &PKCS_ED25519 {
        return Err(NotOurs::Key);
    }
    key.sign(message).map_err(|_| NotOurs::Key)?.try_into().map_err(|_| NotOurs::Key)
}

#[cfg(test)]
pub(crate) mod tests;
