//! Who made a certificate that our CA did not make: networks that look into TLS put their own in place of the server's,
//! and whoever is to allow the exception must know whose it is.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Characters of a name that are shown.
const NAME_MAX: usize = 200;

/// The last unknown issuer that was met.
#[derive(Clone, Debug, Default)]
pub struct Issuers(Arc<Mutex<Option<String>>>);

impl Issuers {
    /// The issuer's name, such as `O=Example Hospital, CN=Web Gateway`, if an unknown one was met.
    pub fn stranger(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `verifier` with its opinion unchanged, and strangers noted.
    pub(crate) fn noted_by(&self, verifier: Arc<dyn ServerCertVerifier>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(Noting { verifier, strangers: self.clone() })
    }

    fn note(&self, certificate: &CertificateDer<'_>) {
        let name = X509Certificate::from_der(certificate)
            .map_or_else(|_| "an unreadable name".to_owned(), |(_, parsed)| parsed.issuer().to_string());
        let shown = name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
    }
}

#[derive(Debug)]
struct Noting {
    verifier: Arc<dyn ServerCertVerifier>,
    strangers: Issuers,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict =
            self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if let Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) = verdict {
            self.strangers.note(end_entity);
        }
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.verifier.requires_raw_public_keys()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.verifier.root_hint_subjects()
    }
}
