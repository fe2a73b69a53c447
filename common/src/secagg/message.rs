//! What server and sites say to each other in the five stages of one secure sum.
//!
//! The server asks, each site answers: `Advertise` → `ShareKeys` → `MaskInput` → `Confirm` → `Unmask`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::params::RoundParams;
use super::secret::Secret;
use crate::blob::BlobId;
use crate::id::ClientId;

/// The server's word to one site, a stage each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// These are the terms: show your keys.
    Advertise(Box<RoundParams>),
    /// These are everybody's keys, in the order of names: send each peer its share of your secrets.
    ShareKeys(Arc<[SignedAdvertisement]>),
    /// These sites sent shares, and these are the ones for you: send your masked vector.
    MaskInput {
        /// U2, in the order of names.
        senders: Vec<ClientId>,
        /// What was sealed for you, one from each of your neighbours among them.
        shares: Vec<SealedShare>,
    },
    /// The masked vectors of these sites arrived: sign that you were told so.
    Confirm(Vec<ClientId>),
    /// So many signed the same: give the shares that unmask the sum.
    Unmask(Vec<(ClientId, Signature)>),
}

impl Ask {
    /// The stage's name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Advertise(_) => "advertise",
            Self::ShareKeys(_) => "share keys",
            Self::MaskInput { .. } => "mask input",
            Self::Confirm(_) => "confirm",
            Self::Unmask(_) => "unmask",
        }
    }
}

/// A site's word to the server, a stage each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Advertise`].
    Advertisement(Box<SignedAdvertisement>),
    /// To [`Ask::ShareKeys`]: one for each neighbour.
    Shares(Vec<SealedShare>),
    /// To [`Ask::MaskInput`]: the masked vector, already stored at the server as a blob.
    Masked(BlobId),
    /// To [`Ask::Confirm`].
    Confirmed(Signature),
    /// To [`Ask::Unmask`].
    Unmasking(Vec<RevealedShare>),
}

/// One site's keys for one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advertisement {
    /// The site, as its certificate names it.
    pub site: ClientId,
    /// Its certificate, DER.
    pub certificate: Vec<u8>,
    /// X25519 key under which peers seal shares for it.
    pub share_key: [u8; 32],
    /// X25519 key from which pairwise masks come.
    pub mask_key: [u8; 32],
    /// Commitment to the secret of its self mask.
    pub commitment: [u8; 32],
    /// Keys of ML-KEM-768 beside the two of X25519, in a run that asks for them.
    pub post_quantum: Option<Box<KemPublic>>,
    /// Makes two advertisements of one site differ.
    pub nonce: [u8; 32],
}

/// One site's public keys of ML-KEM-768.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KemPublic {
    /// For shares sealed for it.
    pub share: Vec<u8>,
    /// For pairwise masks.
    pub mask: Vec<u8>,
}

/// An advertisement and its site's signature over it and T0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAdvertisement {
    /// The keys.
    pub body: Advertisement,
    /// By the certificate's key.
    pub signature: Signature,
}

/// An Ed25519 signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    r: [u8; 32],
    s: [u8; 32],
}

impl From<[u8; 64]> for Signature {
    fn from(bytes: [u8; 64]) -> Self {
        let (r, s) = bytes.split_at(32);
        let half = |part: &[u8]| std::array::from_fn(|at| part[at]);
        Self { r: half(r), s: half(s) }
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", hex::encode(self.r), hex::encode(self.s))
    }
}

impl Signature {
    /// Whether it is `key`'s over `message`, in the strict sense (no small-order key, no malleability).
    pub fn is_valid(&self, key: &[u8; 32], message: &[u8]) -> bool {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..].copy_from_slice(&self.s);
        let signature = ed25519_dalek::Signature::from_bytes(&bytes);
        ed25519_dalek::VerifyingKey::from_bytes(key)
            .is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
    }
}

/// Shares on their way from one site to another; the server routes what it cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedShare {
    /// The other site: the receiver when a site sends it, the sender when a site gets it.
    pub peer: ClientId,
    /// Sealed shares of both secrets, the sender's part of the check key, and a hash of what is encapsulated for
    /// the mask.
    pub sealed: Vec<u8>,
    /// Secrets encapsulated for the receiver, in a run that asks for them.
    pub encapsulated: Option<Box<Encapsulated>>,
}

/// Secrets under a site's keys of ML-KEM-768.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encapsulated {
    /// Goes into the key that seals the shares.
    pub share: Vec<u8>,
    /// Goes into the two sites' mask: from the one whose name comes first, empty from the other.
    pub mask: Vec<u8>,
}

/// One share in the open: of a survivor's self mask, or of a dropout's mask key. Never of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RevealedShare {
    /// Whose secret it is a share of.
    pub of: ClientId,
    /// The share.
    pub share: Secret,
}
