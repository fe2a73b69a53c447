//! 32 secret bytes: wiped when dropped, never printed.

use std::fmt;

use curve25519_dalek::Scalar;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A key, a scalar, or a share of a scalar.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes the bytes as they are.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A uniform scalar in its canonical form, so that [`super::shamir`] gives back these very bytes.
    pub fn random_scalar(rng: &mut impl CryptoRng) -> Self {
        Self::from(random_scalar(rng))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The bytes as a number below the order of the group.
    pub fn scalar(&self) -> Scalar {
        Scalar::from_bytes_mod_order(self.0)
    }
}

impl From<Scalar> for Secret {
    fn from(scalar: Scalar) -> Self {
        Self(scalar.to_bytes())
    }
}

/// Uniform, because 512 bits are reduced by an order of 253.
pub(super) fn random_scalar(rng: &mut impl CryptoRng) -> Scalar {
    let mut wide = Zeroizing::new([0; 64]);
    rng.fill_bytes(wide.as_mut_slice());
    Scalar::from_bytes_mod_order_wide(&wide)
}

impl PartialEq for Secret {
    /// Looks at every byte, whatever the first ones say.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", Secret::new([7; 32])), "Secret(..)");
    }

    #[test]
    fn a_random_scalar_is_canonical() {
        let secret = Secret::random_scalar(&mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(secret, Secret::from(secret.scalar()));
        assert_ne!(secret, Secret::new([0; 32]));
    }
}
