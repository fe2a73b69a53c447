//! Mutual TLS 1.3: our own certificate, the federation's CA, and the identity that a peer proved.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use sheaf_common::id::Identity;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::{self, Authority, NotOurs};
use crate::connection::Connection;
use crate::enrolment;
use crate::issuer::Issuers;
use crate::key::PrivateKey;

/// Protocol name in the TLS handshake.
pub const ALPN: &[u8] = b"sheaf/1";

/// Where a party's certificate, key and CA lie, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialPaths {
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its private key; must not be readable by others.
    pub key: PathBuf,
    /// The federation's CA certificate.
    pub ca: PathBuf,
}

/// A party's own certificate and key, and the CA that it trusts.
pub struct Credentials {
    /// The chain, leaf first, and the key as TLS holds it.
    certified: Arc<CertifiedKey>,
    key: PrivateKey,
    authorities: Vec<CertificateDer<'static>>,
    pub(crate) roots: Arc<RootCertStore>,
    /// Who the certificate says that we are.
    pub identity: Identity,
    /// Whom we believe.
    authority: Authority,
    /// Start of the certificate's validity, seconds since the Unix epoch.
    pub not_before: i64,
    /// End of the certificate's validity, seconds since the Unix epoch.
    pub not_after: i64,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({}, key redacted)", self.identity)
    }
}

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file cannot be read.
    #[error("cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Others can read the key.
    #[error("{0} can be read by others than its owner: run `chmod 600 {0}`")]
    KeyExposed(PathBuf),
    /// A certificate carries no usable identity.
    #[error("the certificate in {path} names no party of a federation: {why}")]
    NoIdentity {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Certificate, key and CA do not go together.
    #[error("certificate and key of {identity} cannot be used: {why}")]
    Unusable {
        /// Who we would be.
        identity: String,
        /// Why.
        why: String,
    },
}

impl Credentials {
    /// Reads and checks the three files.
    pub fn load(paths: &CredentialPaths) -> Result<Self, CredentialError> {
        let chain = certificates(&paths.certificate)?;
        let key = PrivateKey::read(&paths.key)?;
        let mut roots = RootCertStore::empty();
        let authorities = certificates(&paths.ca)?;
        for certificate in &authorities {
            roots.add(certificate.clone()).map_err(|e| unreadable(&paths.ca, e))?;
        }
        Self::of(&paths.certificate, chain, key, authorities, Arc::new(roots))
    }

    /// Those of another party of the same federation, whose key and certificate (DER, leaf first) were never in a file.
    pub fn issued(&self, chain: Vec<Vec<u8>>, key: PrivateKey) -> Result<Self, CredentialError> {
        let chain = chain.into_iter().map(CertificateDer::from).collect();
        Self::of(Path::new("memory"), chain, key, self.authorities.clone(), self.roots.clone())
    }

    fn of(
        path: &Path,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKey,
        authorities: Vec<CertificateDer<'static>>,
        roots: Arc<RootCertStore>,
    ) -> Result<Self, CredentialError> {
        let no_identity = |why: String| CredentialError::NoIdentity { path: path.to_owned(), why };
        let leaf = chain.first().ok_or_else(|| no_identity("it holds no certificate".into()))?;
        let identity = identity_of_chain(&chain).map_err(|e| no_identity(e.to_string()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| no_identity(e.to_string()))?;
        let validity = parsed.validity();
        let (not_before, not_after) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        let unusable = |why| CredentialError::Unusable { identity: identity.to_string(), why };
        let certified = certified(chain, &key).map_err(unusable)?;
        let authority =
            Authority::of(roots.clone(), identity.federation.clone()).map_err(|e| unusable(e.to_string()))?;
        let certified = Arc::new(certified);
        Ok(Self { certified, key, authorities, roots, identity, authority, not_before, not_after })
    }

    /// TLS for the server: every client must show a certificate of the federation. `strangers` may show none and
    /// ask for one, under [`enrolment::ALPN`]; TLS cannot tell them from others that show none, which is up to whoever
    /// takes the connection.
    pub fn server_config(&self, strangers: bool) -> Result<ServerConfig, CredentialError> {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
        let verifier = if strangers { verifier.allow_unauthenticated() } else { verifier };
        let verifier = verifier.build().map_err(|e| self.unusable(e))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| self.unusable(e))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        if strangers {
            config.alpn_protocols.push(enrolment::ALPN.to_vec());
        }
        // A resumed session would skip the look at the client's certificate.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(config)
    }

    /// TLS for whoever dials out: shows its certificate and accepts only a server of its own federation. Who made a
    /// certificate that our CA did not make is noted in `strangers`.
    pub fn client_config(&self, strangers: &Issuers) -> Result<ClientConfig, CredentialError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider())
            .build()
            .map_err(|e| self.unusable(e))?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| self.unusable(e))?
            .dangerous()
            .with_custom_certificate_verifier(strangers.noted_by(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified.clone())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// Our certificate and what links it to the authority, DER, one after the other.
    pub fn certificate(&self) -> Vec<u8> {
        self.certified.cert.iter().flat_map(|der| der.iter().copied()).collect()
    }

    /// The authorities that we trust, DER.
    pub fn authorities(&self) -> Vec<Vec<u8>> {
        self.authorities.iter().map(|der| der.to_vec()).collect()
    }

    /// Our Ed25519 signature over `message`.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], NotOurs> {
        authority::sign(&self.key, message)
    }

    /// The federation's authorities as a judge of certificates that come in messages.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A secret that a restarted endpoint has again, for its stateless resets.
    pub(crate) fn reset_secret(&self) -> [u8; 32] {
        blake3::derive_key("sheaf 2026 stateless reset v1", self.key.der())
    }

    fn unusable(&self, why: impl std::fmt::Display) -> CredentialError {
        CredentialError::Unusable { identity: self.identity.to_string(), why: why.to_string() }
    }
}

/// aws-lc-rs, whose first key exchange is the hybrid X25519MLKEM768.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CredentialError> {
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unreadable(path, e))?;
    if list.is_empty() {
        return Err(unreadable(path, "it holds no certificate in PEM form"));
    }
    Ok(list)
}

pub(crate) fn unreadable(path: &Path, why: impl std::fmt::Display) -> CredentialError {
    CredentialError::Unreadable { path: path.to_owned(), why: why.to_string() }
}

/// A chain with its key, if they belong together.
fn certified(chain: Vec<CertificateDer<'static>>, key: &PrivateKey) -> Result<CertifiedKey, String> {
    let der = PrivateKeyDer::try_from(key.der()).map_err(str::to_owned)?;
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|e| e.to_string())?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err("the key is not the certificate's: one of the two files was replaced".into()),
    }
}

/// The peer showed no certificate from which an identity can be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoIdentity(String);

/// The one `sheaf://` URI among a certificate's subject alternative names.
pub fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, NoIdentity> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| NoIdentity(e.to_string()))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|e| NoIdentity(e.to_string()))?
        .ok_or_else(|| NoIdentity("it has no subject alternative name".into()))?;
    let mut uris = names.value.general_names.iter().filter_map(|name| {
        let GeneralName::URI(uri) = name else { return None };
        uri.starts_with("sheaf://").then_some(*uri)
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => {
            uri.parse().map_err(|e: sheaf_common::id::BadIdentity| NoIdentity(e.to_string()))
        }
        (None, _) => Err(NoIdentity("it has no sheaf:// URI".into())),
        (Some(_), Some(_)) => Err(NoIdentity("it has more than one sheaf:// URI".into())),
    }
}

/// Who a chain (leaf first) speaks for, if what stands between it and the authority lets it.
///
/// An issuing authority names the one federation and role that it may make certificates of in a URI of its own,
/// `sheaf://<federation>/<role>`.
pub fn identity_of_chain(chain: &[CertificateDer<'_>]) -> Result<Identity, NoIdentity> {
    let (leaf, between) = chain.split_first().ok_or_else(|| NoIdentity("the chain is empty".into()))?;
    let identity = identity_of(leaf)?;
    for certificate in between {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| NoIdentity(e.to_string()))?;
        let names = parsed.subject_alternative_name().map_err(|e| NoIdentity(e.to_string()))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            let GeneralName::URI(uri) = name else { continue };
            let Some(limit) = uri.strip_prefix("sheaf://") else { continue };
            if limit != format!("{}/{}", identity.federation, identity.role) {
                return Err(NoIdentity(format!(
                    "it is {identity}, but who issued it may make {limit} alone"
                )));
            }
        }
    }
    Ok(identity)
}

/// Who is at the other end of `connection`, as TLS proved it.
pub fn peer_identity(connection: &Connection) -> Result<Identity, NoIdentity> {
    let shown = connection.peer_certificates().filter(|chain| !chain.is_empty());
    identity_of_chain(&shown.ok_or_else(|| NoIdentity("the peer showed no certificate".into()))?)
}

/// When a certificate (DER) ends, in seconds since the Unix epoch.
pub fn ends(certificate: &[u8]) -> Option<i64> {
    X509Certificate::from_der(certificate).ok().map(|(_, parsed)| parsed.validity().not_after.timestamp())
}

/// Whether a connection is for enrolment, and so for nothing else.
pub fn is_enrolment(connection: &Connection) -> bool {
    connection.protocol().is_some_and(|protocol| protocol == enrolment::ALPN)
}
