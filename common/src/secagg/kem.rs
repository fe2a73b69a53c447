//! Key agreement that a quantum computer does not undo later: ML-KEM-768 (FIPS 203), next to X25519.
//!
//! Everything is derived from secrets that are shared out anyway, so that whoever gets a dropout's secret
//! back can redo both sides of its exchanges.

use ml_kem::array::Array;
use ml_kem::ml_kem_768::{Ciphertext, DecapsulationKey, EncapsulationKey};
use ml_kem::{Decapsulate, KeyExport};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::keys::expand;
use super::secret::Secret;

/// Bytes of a public key.
pub const PUBLIC_BYTES: usize = 1184;

/// Bytes of an encapsulated secret.
pub const CIPHERTEXT_BYTES: usize = 1088;

/// One site's key pair. The secret half is wiped when dropped.
pub struct KemKeys(DecapsulationKey);

impl KemKeys {
    /// The pair of a secret under a label; another label gives an unrelated pair.
    pub fn from_seed(secret: &Secret, label: &str) -> Self {
        let bytes = expand::<64>(&[secret], None, &format!("kem/{label}"), &[]);
        let mut seed = Array(*bytes);
        let keys = Self(DecapsulationKey::from_seed(seed));
        seed.zeroize();
        keys
    }

    /// The public half: [`PUBLIC_BYTES`].
    pub fn public(&self) -> Vec<u8> {
        self.0.encapsulation_key().to_bytes().to_vec()
    }

    /// The secret that was encapsulated; `None` when the length is wrong. A forged one gives a secret that
    /// nobody knows.
    pub fn decapsulate(&self, encapsulated: &[u8]) -> Option<Secret> {
        let encapsulated = Ciphertext::try_from(encapsulated).ok()?;
        Some(Secret::new(self.0.decapsulate(&encapsulated).into()))
    }
}

/// The pair for shares that are sealed for a site.
pub fn share_keys(secret: &Secret) -> KemKeys {
    KemKeys::from_seed(secret, "share")
}

/// The pair for a site's masks: whoever gets its mask secret back has this pair too.
pub fn mask_keys(sigma: &Secret) -> KemKeys {
    KemKeys::from_seed(sigma, "mask")
}

/// Whether these bytes are a public key.
pub fn is_public(bytes: &[u8]) -> bool {
    bytes.try_into().is_ok_and(|key| EncapsulationKey::new(&key).is_ok())
}

/// A secret for the holder of a public key: as it travels ([`CIPHERTEXT_BYTES`]), and itself. `None` when
/// that is no public key. The same seed and key give the same secret. One seed may serve for several keys,
/// since what a holder learns is derived from the seed for its key alone.
pub fn encapsulate(public: &[u8], seed: &Secret) -> Option<(Vec<u8>, Secret)> {
    let key = EncapsulationKey::new(&public.try_into().ok()?).ok()?;
    let holder = Secret::new(Sha256::digest(public).into());
    let mut randomness = Array(*expand::<32>(&[seed, &holder], None, "kem/encapsulate", &[]));
    let (encapsulated, secret) = key.encapsulate_deterministic(&randomness);
    randomness.zeroize();
    Some((encapsulated.to_vec(), Secret::new(secret.into())))
}

#[cfg(test)]
#[path = "tests/kem.rs"]
mod tests;
