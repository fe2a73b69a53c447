//! The hashes that tie an attempt together: T0 over its terms, T1 over the roster, T2 over the senders of shares.
//!
//! Whatever two sites were told differently gives them different digests, hence different keys and masks that do
//! not cancel and signatures that do not verify.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::message::SignedAdvertisement;
use crate::id::ClientId;
use crate::wire;

/// Starts every label of the protocol.
const PROTOCOL: &str = "sheaf-secagg-v1/";

/// A SHA-256 hash in the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Digest {
    /// The hash of a value's canonical bytes under a label.
    pub fn of(label: &str, value: &impl Serialize) -> Self {
        // What cannot be encoded is longer than any message that could have carried it; it hashes as its label
        // alone, which agrees with no honest party's digest.
        let bytes = wire::encode_record(value).unwrap_or_default();
        Self(Sha256::digest(message(label, &[&bytes])).into())
    }
}

/// T1: the roster, in the order of the sites' names.
pub fn roster(t0: &Digest, roster: &[SignedAdvertisement]) -> Digest {
    let bodies: Vec<_> = roster.iter().map(|entry| &entry.body).collect();
    Digest::of("roster", &(t0, bodies))
}

/// T2: the sites that sent shares, in the order of their names.
pub fn senders(t1: &Digest, senders: &[ClientId]) -> Digest {
    Digest::of("u2", &(t1, senders))
}

/// What a site signs to say: these are my keys.
pub fn advertisement(t0: &Digest, body: &impl Serialize) -> Vec<u8> {
    signable("advertise", &(t0, body))
}

/// What a site signs to say: I was told that these are the survivors.
pub fn survivors(t2: &Digest, survivors: &[ClientId]) -> Vec<u8> {
    signable("consistency", &(t2, survivors))
}

/// What is signed for a value under a label; labels keep one signature from standing for another.
pub fn signable(label: &str, value: &impl Serialize) -> Vec<u8> {
    let Digest(digest) = Digest::of(label, value);
    message(label, &[&digest])
}

fn message(label: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = format!("{PROTOCOL}{label}\0").into_bytes();
    for part in parts {
        message.extend_from_slice(part);
    }
    message
}
