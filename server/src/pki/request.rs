//! A certificate signing request (PKCS #10): a public key, signed with its secret half.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertificateSigningRequestParams, DnType, DnValue, PKCS_ED25519, PublicKey, PublicKeyData};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use sheaf_common::id::Name;

/// A request whose signature is good.
#[derive(Debug)]
pub struct SigningRequest(CertificateSigningRequestParams);

/// A request that is not signed.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Io(PathBuf, std::io::Error),
    /// The file is something else.
    #[error("{0} is no certificate signing request in PEM form (-----BEGIN CERTIFICATE REQUEST-----)")]
    NoPem(PathBuf),
    /// The request is broken, or its signature is.
    #[error("the certificate signing request is damaged, or not signed with its own key: {0}")]
    Damaged(rcgen::Error),
    /// Sites sign with their keys in a secure sum, where only Ed25519 is spoken.
    #[error(
        "the request's key is not an Ed25519 key: make one with `sheaf-client csr`, or `openssl genpkey -algorithm ed25519`"
    )]
    Key,
}

impl SigningRequest {
    /// Reads a PEM file.
    pub fn read(path: &Path) -> Result<Self, BadRequest> {
        let bytes = fs::read(path).map_err(|e| BadRequest::Io(path.to_owned(), e))?;
        let der = CertificateSigningRequestDer::from_pem_slice(&bytes)
            .map_err(|_| BadRequest::NoPem(path.to_owned()))?;
        Self::parse(&der)
    }

    /// Checks a request in DER.
    pub fn parse(der: &[u8]) -> Result<Self, BadRequest> {
        let request = CertificateSigningRequestParams::from_der(&der.into()).map_err(BadRequest::Damaged)?;
        if PublicKeyData::algorithm(&request.public_key) != &PKCS_ED25519 {
            return Err(BadRequest::Key);
        }
        Ok(Self(request))
    }

    /// The key.
    pub fn key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// DER of the key with its algorithm, as a certificate has it.
    pub fn public_key(&self) -> Vec<u8> {
        self.key().subject_public_key_info()
    }

    /// The name that the request would like.
    pub fn name(&self) -> Option<Name> {
        let name = self.0.params.distinguished_name.get(&DnType::CommonName)?;
        if let DnValue::Utf8String(text) = name {
            return text.parse().ok();
        }
        if let DnValue::PrintableString(text) = name { text.as_str().parse().ok() } else { None }
    }
}
