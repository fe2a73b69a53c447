//! Private keys: nobody but the owner may read their files, and nothing of them stays in memory or reaches a log.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use zeroize::{Zeroize, Zeroizing};

use crate::tls::{CredentialError, unreadable};

/// Longest key file that is read; the largest RSA keys in PEM form have some 13 KB.
const FILE_MAX: u64 = 64 << 10;

/// What stands before the secret half of an Ed25519 key in PKCS#8 (RFC 8410, section 7).
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A private key. Its bytes are wiped when it is dropped, and it prints nothing of them.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// A new Ed25519 key.
    pub fn generate() -> Result<Self, rcgen::Error> {
        KeyPair::generate_for(&PKCS_ED25519).map(Self)
    }

    /// The Ed25519 key with this secret half: for whoever simulates, and needs the same key again.
    pub fn of_secret(secret: &[u8; 32]) -> Result<Self, rcgen::Error> {
        let pkcs8 = Zeroizing::new([ED25519_PKCS8.as_slice(), secret].concat());
        KeyPair::try_from(pkcs8.as_slice()).map(Self)
    }

    /// Reads a key in PEM form, if nobody but the file's owner can.
    pub fn read(path: &Path) -> Result<Self, CredentialError> {
        let file = File::open(path).map_err(|e| unreadable(path, e))?;
        // Asked of the open file, so that it is the one that is read.
        let mode = file.metadata().map_err(|e| unreadable(path, e))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(CredentialError::KeyExposed(path.to_owned()));
        }
        // One allocation that is never moved: what a growing buffer leaves behind is not wiped.
        let mut pem = Zeroizing::new(Vec::with_capacity(FILE_MAX as usize + 1));
        file.take(FILE_MAX + 1).read_to_end(&mut pem).map_err(|e| unreadable(path, e))?;
        if pem.len() as u64 > FILE_MAX {
            return Err(unreadable(path, "it is far too long for a key"));
        }
        let der = PrivateKeyDer::from_pem_slice(&pem).map(Zeroizing::new);
        let der = der.map_err(|_| unreadable(path, "it holds no private key in PEM form"))?;
        KeyPair::try_from(&*der).map(Self).map_err(|e| unreadable(path, e))
    }

    /// The key as it is written to a file.
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// DER of the public key with its algorithm.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// PKCS#8, or what else the file held.
    pub(crate) fn der(&self) -> &[u8] {
        self.0.serialized_der()
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        // The library's own copy is wiped by the library.
        self.0.zeroize();
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn written(text: &[u8], mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_way_to_close_it() {
        let key = PrivateKey::generate().unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601, 0o777] {
            let (_dir, path) = written(key.pem().as_bytes(), mode);
            let error = PrivateKey::read(&path).unwrap_err().to_string();
            let path = path.display();
            let expected = format!("{path} can be read by others than its owner: run `chmod 600 {path}`");
            assert_eq!(error, expected, "{mode:o}");
        }
        for mode in [0o600, 0o400] {
            let (_dir, path) = written(key.pem().as_bytes(), mode);
            assert_eq!(PrivateKey::read(&path).unwrap().public_key(), key.public_key(), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_key_gets_a_sentence_and_shows_nothing_of_itself() {
        let cases: [(&[u8], &str); 3] = [
            (b"hunter2", "it holds no private key in PEM form"),
            (
                b"-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n",
                "Could not parse key pair",
            ),
            (&[b'a'; 100_000], "it is far too long for a key"),
        ];
        for (text, why) in cases {
            let (_dir, path) = written(text, 0o600);
            let error = PrivateKey::read(&path).unwrap_err().to_string();
            assert_eq!(error, format!("cannot read {}: {why}", path.display()));
        }
    }

    #[test]
    fn nothing_of_a_key_is_printed() {
        assert_eq!(format!("{:?}", PrivateKey::generate().unwrap()), "PrivateKey(..)");
    }

    #[test]
    fn the_bytes_are_wiped() {
        let mut key = PrivateKey::generate().unwrap();
        assert!(key.der().len() > 32);
        key.0.zeroize();
        // An owned vector is cleared after each of its bytes was overwritten.
        assert!(key.der().is_empty());
    }
}
