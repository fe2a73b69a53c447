//! How a site without a certificate gets one: with a token that works once, and a key that never leaves it.
//!
//! The operator hands the token over. Its secret proves to the server who asks; its pin proves to the site which
//! authorities the operator trusts, before the secret is shown to anybody.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::id::{ClientId, Federation};
use crate::message::Hello;
use crate::secagg::secret::Secret;
use crate::time::Timestamp;

/// What a site is told by its operator: `<federation>.<site>.<secret>.<pin>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The federation.
    pub federation: Federation,
    /// The site that is invited.
    pub site: ClientId,
    /// What proves that it is. Not printed by `Debug`.
    pub secret: Secret,
    /// The [`Pin`] of the operator's authorities.
    pub pin: Pin,
}

/// The text is no token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "this is no token: copy all of what `sheaf site invite` printed, FEDERATION.SITE.SECRET.PIN, in one line"
)]
pub struct BadToken;

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [federation, site, secret, pin] = parts[..] else { return Err(BadToken) };
        let (mut bytes, mut hash) = (Zeroizing::new([0; 32]), [0; 32]);
        hex::decode_to_slice(secret, bytes.as_mut_slice()).map_err(|_| BadToken)?;
        hex::decode_to_slice(pin, &mut hash).map_err(|_| BadToken)?;
        Ok(Self {
            federation: federation.parse().map_err(|_| BadToken)?,
            site: site.parse().map_err(|_| BadToken)?,
            secret: Secret::new(*bytes),
            pin: Pin(hash),
        })
    }
}

impl fmt::Display for Token {
    /// With the secret: for the operator's eyes, never for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = Zeroizing::new(hex::encode(self.secret.bytes()));
        write!(f, "{}.{}.{}.{}", self.federation, self.site, *secret, hex::encode(self.pin.0))
    }
}

/// A fresh secret.
pub fn secret(rng: &mut impl rand::CryptoRng) -> Secret {
    let mut bytes = Zeroizing::new([0; 32]);
    rng.fill_bytes(bytes.as_mut_slice());
    Secret::new(*bytes)
}

/// What is kept of a secret where it need only be recognised. It has 256 random bits, so that a plain hash tells
/// nothing of it; and as a [`Secret`] it is compared in constant time.
pub fn fingerprint(secret: &Secret) -> Secret {
    Secret::new(blake3::derive_key("sheaf 2026 enrolment secret v1", secret.bytes()))
}

/// SHA-256 of a set of authorities' certificates: the same in whatever order a file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// Of certificates in DER.
    pub fn of<T: AsRef<[u8]>>(authorities: impl IntoIterator<Item = T>) -> Self {
        let hashes = authorities.into_iter().map(|der| <[u8; 32]>::from(Sha256::digest(der.as_ref())));
        let hashes: std::collections::BTreeSet<_> = hashes.collect();
        Self(hashes.into_iter().fold(Sha256::new(), Digest::chain_update).finalize().into())
    }
}

/// From whoever holds a token to the server, on the one stream of an enrolment's connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Enroll {
    /// First: who are you? Nothing secret is said before the answer is checked.
    Hello(Hello),
    /// Then: a certificate, please. Said again until there is one.
    Present {
        /// The site that was invited.
        site: ClientId,
        /// The token's secret.
        secret: Secret,
        /// Certificate signing request (PKCS #10, DER). Only its key counts.
        request: Vec<u8>,
    },
}

/// From the server to whoever holds a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EnrollReply {
    /// The authorities of the federation, DER, which must be those that the token pins.
    Welcome(Vec<Vec<u8>>),
    /// The certificate.
    Issued(Chain),
    /// An operator must approve first.
    Pending,
    /// No, and why: one sentence.
    Refused(String),
}

/// A certificate and what links it to the authority: DER, leaf first.
pub type Chain = Vec<Vec<u8>>;

/// A request for a certificate that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Who asks.
    pub site: ClientId,
    /// Its certificate signing request, DER.
    pub request: Vec<u8>,
    /// Where from.
    pub address: String,
    /// When it first asked.
    pub since: Timestamp,
    /// Whether it has a certificate already, which ends.
    pub renewal: bool,
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn token() -> Token {
        Token {
            federation: "hearts".parse().unwrap(),
            site: "st-mary".parse().unwrap(),
            secret: secret(&mut ChaCha20Rng::seed_from_u64(1)),
            pin: Pin::of([b"a"]),
        }
    }

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let text = token().to_string();
        assert!(text.starts_with("hearts.st-mary."), "{text}");
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token()));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let text = token().to_string();
        let cut = &text[..text.len() - 1];
        for bad in ["", "a.b.c.d", cut, &format!("{text}0"), &text.replace("hearts", "Hearts")] {
            assert_eq!(bad.parse::<Token>(), Err(BadToken), "{bad}");
        }
    }

    #[test]
    fn a_token_shows_no_secret_by_accident() {
        let secret = hex::encode(token().secret.bytes());
        assert!(token().to_string().contains(&secret));
        assert!(!format!("{:?}", token()).contains(&secret));
    }

    #[test]
    fn a_pin_is_of_a_set() {
        assert_eq!(Pin::of(["a", "b"]), Pin::of(["b", "a", "b"]));
        assert_ne!(Pin::of(["a", "b"]), Pin::of(["a"]));
        assert_ne!(Pin::of(["ab"]), Pin::of(["a", "b"]));
    }
}
