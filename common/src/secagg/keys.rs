//! Key agreement between two sites, and every key that comes from it.
//!
//! X25519 and HKDF-SHA256. Each key has a label of its own and the digest of its attempt as salt, so that two
//! sites that were told different things agree on nothing.

use std::fmt;

use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::secret::Secret;

/// Starts every label of the protocol.
const PROTOCOL: &str = "sheaf-secagg-v1/";

/// The keys of one mask.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct MaskKeys {
    /// Of the stream over the ring elements.
    pub ring: [u8; 16],
    /// Of the stream over the 64-bit slots.
    pub wide: [u8; 16],
}

impl fmt::Debug for MaskKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskKeys(..)")
    }
}

/// A secret key of X25519.
pub trait AgreementKey {
    /// In the form that the curve's crate takes.
    fn to_static(&self) -> StaticSecret;
}

impl AgreementKey for StaticSecret {
    fn to_static(&self) -> StaticSecret {
        self.clone()
    }
}

impl AgreementKey for Secret {
    fn to_static(&self) -> StaticSecret {
        StaticSecret::from(*self.bytes())
    }
}

/// The key pair that pairwise masks come from. It is derived from a scalar because scalars can be shared out:
/// a clamped key is not uniform among them.
pub fn mask_key_pair(sigma: &Secret) -> (StaticSecret, [u8; 32]) {
    let secret = StaticSecret::from(*expand(&[sigma], None, "mask-sk", &[]));
    let public = PublicKey::from(&secret).to_bytes();
    (secret, public)
}

/// The public key of a secret one.
pub fn public(secret: &Secret) -> [u8; 32] {
    PublicKey::from(&secret.to_static()).to_bytes()
}

/// What two sites agree on; `None` when the other's key would force the result, as a point of small order
/// does.
pub fn agree(secret: &impl AgreementKey, public: &[u8; 32]) -> Option<Secret> {
    let shared = secret.to_static().diffie_hellman(&PublicKey::from(*public));
    shared.was_contributory().then(|| Secret::new(shared.to_bytes()))
}

/// Seals what goes `from` one rank `to` another, once.
pub fn share_key(dh: &Secret, kem: Option<&Secret>, t1: &[u8; 32], from: u32, to: u32) -> Secret {
    Secret::new(*expand(&inputs(dh, kem), Some(t1), "share-enc", &[from, to]))
}

/// The mask between two ranks, in either order.
pub fn pair_mask(dh: &Secret, kem: Option<&Secret>, t2: &[u8; 32], a: u32, b: u32) -> MaskKeys {
    mask_keys(&inputs(dh, kem), t2, "pair-mask", &[a.min(b), a.max(b)])
}

/// The mask that a site adds on its own account.
pub fn self_mask(beta: &Secret, t2: &[u8; 32], rank: u32) -> MaskKeys {
    mask_keys(&[beta], t2, "self-mask", &[rank])
}

/// Binds a site to the secret of its self mask before anybody holds a share of it.
pub fn commitment(t0: &[u8; 32], beta: &Secret) -> [u8; 32] {
    let hash = Sha256::new().chain_update(PROTOCOL).chain_update("b-commit\0");
    hash.chain_update(t0).chain_update(beta.bytes()).finalize().into()
}

fn inputs<'a>(dh: &'a Secret, kem: Option<&'a Secret>) -> Vec<&'a Secret> {
    std::iter::once(dh).chain(kem).collect()
}

fn mask_keys(inputs: &[&Secret], t2: &[u8; 32], label: &str, ranks: &[u32]) -> MaskKeys {
    let wide = format!("{label}/u64");
    MaskKeys { ring: *expand(inputs, Some(t2), label, ranks), wide: *expand(inputs, Some(t2), &wide, ranks) }
}

/// HKDF-SHA256 over the inputs one after the other; the info is the label, then the ranks in little-endian.
pub(super) fn expand<const N: usize>(
    inputs: &[&Secret],
    salt: Option<&[u8; 32]>,
    label: &str,
    ranks: &[u32],
) -> Zeroizing<[u8; N]>
where
    [u8; N]: Zeroize,
{
    let ikm: Zeroizing<Vec<u8>> =
        Zeroizing::new(inputs.iter().flat_map(|input| input.bytes()).copied().collect());
    let ranks: Vec<u8> = ranks.iter().flat_map(|rank| rank.to_le_bytes()).collect();
    let mut key = Zeroizing::new([0; N]);
    Hkdf::<Sha256>::new(salt.map(|salt| salt.as_slice()), &ikm)
        .expand_multi_info(&[PROTOCOL.as_bytes(), label.as_bytes(), &ranks], key.as_mut_slice())
        .expect("a key is shorter than 255 hashes");
    key
}

#[cfg(test)]
#[path = "tests/keys.rs"]
mod tests;
