//! The way in for a site that has no certificate yet: a connection on which nothing but a certificate can be had.
//!
//! TLS is spoken as ever, but for [`ALPN`] and a client that stays anonymous. Whom it speaks to is decided by the
//! token: the authorities that the server names must be those that the token pins, and the server's own certificate
//! must be theirs. Until then nothing is said.

use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme};
use sheaf_common::enrolment::{Enroll, EnrollReply, Pin, Token};
use sheaf_common::id::{Federation, Identity, Name, Role};
use sheaf_common::message::Hello;
use sheaf_common::wire::PROTOCOL_VERSION;

use crate::authority::Authority;
use crate::connection::{Connection, RecvStream, SendStream};
use crate::dial::{ConnectError, Dialer, Link};
use crate::frames::{self, FrameError};
use crate::key::PrivateKey;
use crate::tls::provider;

/// Protocol name in the TLS handshake. A connection under it reaches no other stream of the server.
pub const ALPN: &[u8] = b"sheaf-enroll/1";

/// No certificate could be asked for.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The server was not reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("the connection to the server was lost: {0}")]
    Lost(String),
    /// The server is another one than the operator meant.
    #[error(
        "the server is not the one that the token is for: {0}. Nothing was told to it; ask the operator whether the address is right"
    )]
    Stranger(String),
    /// The server will not.
    #[error("{0}")]
    Refused(String),
}

/// A server that proved to be the token's.
#[derive(Debug)]
pub struct Desk {
    link: Link,
    send: SendStream,
    recv: RecvStream,
    /// The federation's authorities, DER.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Whom they vouch for.
    pub authority: Authority,
}

impl Desk {
    /// Connects to what `dialer` reaches and makes sure that it is the one that `token` is for.
    pub async fn open(dialer: &Dialer, token: &Token, software: &str) -> Result<Self, EnrollError> {
        let config = anonymous().map_err(|e| EnrollError::Lost(e.to_string()))?;
        let link = dialer.connect_by(config, &token.federation).await?;
        let (mut send, mut recv) =
            link.connection.open_bi().await.map_err(|e| lost(&link, &e.to_string()))?;
        let hello = Hello { protocol: PROTOCOL_VERSION, software: software.to_owned() };
        let reply = exchange(&link, &mut send, &mut recv, &Enroll::Hello(hello)).await?;
        let authorities = match reply {
            EnrollReply::Welcome(authorities) => authorities,
            EnrollReply::Refused(why) => return Err(EnrollError::Refused(why)),
            EnrollReply::Issued(_) | EnrollReply::Pending => return Err(out_of_turn()),
        };
        let stranger = |why: &str| EnrollError::Stranger(why.to_owned());
        if Pin::of(&authorities) != token.pin {
            return Err(stranger("its certificate authorities are others than the operator's"));
        }
        let authorities: Vec<_> = authorities.into_iter().map(CertificateDer::from).collect();
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|e| EnrollError::Stranger(e.to_string()))?;
        }
        let authority = Authority::of(Arc::new(roots), token.federation.clone())
            .map_err(|e| EnrollError::Stranger(e.to_string()))?;
        let chain =
            link.connection.peer_certificates().ok_or_else(|| stranger("it showed no certificate"))?;
        let chain: Vec<u8> = chain.iter().flat_map(|der| der.iter().copied()).collect();
        let (identity, _) = authority
            .verify_server(&chain, SystemTime::now())
            .map_err(|e| EnrollError::Stranger(e.to_string()))?;
        if identity.role != Role::Server {
            return Err(EnrollError::Stranger(format!("it is {identity}")));
        }
        Ok(Self { link, send, recv, authorities, authority })
    }

    /// Shows the token, and asks for a certificate for the key of `request` (DER).
    pub async fn present(&mut self, token: &Token, request: &[u8]) -> Result<EnrollReply, EnrollError> {
        let (site, secret) = (token.site.clone(), token.secret.clone());
        let present = Enroll::Present { site, secret, request: request.to_vec() };
        exchange(&self.link, &mut self.send, &mut self.recv, &present).await
    }

    /// The connection, for mischief.
    pub fn connection(&self) -> &Connection {
        &self.link.connection
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.link.close().await;
    }
}

async fn exchange(
    link: &Link,
    send: &mut SendStream,
    recv: &mut RecvStream,
    message: &Enroll,
) -> Result<EnrollReply, EnrollError> {
    let reply = async {
        frames::write(send, message).await?;
        frames::read(recv).await
    };
    reply.await.map_err(|error: FrameError| lost(link, &error.to_string()))
}

fn lost(link: &Link, why: &str) -> EnrollError {
    EnrollError::Lost(
        link.connection.close_reason().map_or_else(|| why.to_owned(), |ended| ended.to_string()),
    )
}

fn out_of_turn() -> EnrollError {
    EnrollError::Lost("the server said something out of turn".into())
}

/// A certificate signing request (PKCS #10, DER) for `key`: what a site called `name` would like. Authorities other
/// than Sheaf's own find in it what the certificate must say.
pub fn request(
    key: &PrivateKey,
    name: &Name,
    federation: Option<&Federation>,
) -> Result<rcgen::CertificateSigningRequest, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.as_str());
    if let Some(federation) = federation {
        let identity = Identity { federation: federation.clone(), role: Role::Site, name: name.clone() };
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }
    params.serialize_request(key)
}

fn anonymous() -> Result<ClientConfig, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByToken(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Lets the handshake through with any certificate whose key the server has: [`Desk::open`] judges it by the token
/// before anything is said that matters.
#[derive(Debug)]
struct ByToken(Arc<CryptoProvider>);

impl ServerCertVerifier for ByToken {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
