//! Certificates for sites that have none yet, or whose own ends: who was invited, and who waits for an operator.
//!
//! * This file: what becomes of a token, decided without IO and with the time passed in.
//! * `limit`: how often strangers may knock.
//! * `desk`: the connection of one who knocks.
//! * `state`: the server's loop handing certificates out, and what operators ask of it.

pub(crate) mod desk;
pub(crate) mod limit;
pub(crate) mod state;

use serde::{Deserialize, Serialize};
use sheaf_common::enrolment::{Chain, fingerprint};
use sheaf_common::id::Name;
use sheaf_common::secagg::secret::Secret;
use sheaf_common::time::Timestamp;

/// An invitation, as long as it is remembered: until the site is invited again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// Hash of the token's secret.
    secret: Secret,
    expires: Timestamp,
    /// The operator who made it.
    by: Name,
    used: Option<Used>,
}

/// The one use of a token. The same key may come again: the answer can have been lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Used {
    /// The certificate signing request, DER.
    pub(crate) request: Vec<u8>,
    /// DER of its public key.
    pub(crate) key: Vec<u8>,
    /// Where it came from.
    pub(crate) address: String,
    /// When.
    pub(crate) at: Timestamp,
    /// What it got.
    pub(crate) chain: Option<Chain>,
}

/// Why a token got nothing: a sentence for whoever showed it. It tells nothing to one who does not know the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the server does not know this token: copy all of it, or ask the operator for a new one")]
    Unknown,
    #[error("the token has expired: ask the operator for a new one")]
    Expired,
    #[error(
        "the token was used already, with another key: ask the operator for a new one, and tell who it was if it was not you"
    )]
    Used,
}

impl Invitation {
    pub(crate) fn new(secret: &Secret, expires: Timestamp, by: Name) -> Self {
        Self { secret: fingerprint(secret), expires, by, used: None }
    }

    /// A token is shown, with a request whose key is `key`. The first one that is good binds the invitation to its key.
    pub(crate) fn show(
        &mut self,
        secret: &Secret,
        request: &[u8],
        key: &[u8],
        address: &str,
        now: Timestamp,
    ) -> Result<&Used, Refusal> {
        if fingerprint(secret) != self.secret {
            return Err(Refusal::Unknown);
        }
        match &self.used {
            Some(used) if used.key != key => return Err(Refusal::Used),
            _ if now >= self.expires => return Err(Refusal::Expired),
            Some(_) | None => {}
        }
        Ok(self.used.get_or_insert_with(|| Used {
            request: request.to_vec(),
            key: key.to_vec(),
            address: address.to_owned(),
            at: now,
            chain: None,
        }))
    }

    /// The certificate that the use of the token came to.
    pub(crate) fn issue(&mut self, chain: Chain) {
        if let Some(used) = &mut self.used {
            used.chain = Some(chain);
        }
    }

    /// What waits for an operator.
    pub(crate) fn waiting(&self) -> Option<&Used> {
        self.used.as_ref().filter(|used| used.chain.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRES: Timestamp = Timestamp(1000);

    fn secret(byte: u8) -> Secret {
        Secret::new([byte; 32])
    }

    fn invitation() -> Invitation {
        Invitation::new(&secret(1), EXPIRES, "ada".parse().unwrap())
    }

    fn show(invitation: &mut Invitation, byte: u8, key: &[u8], now: u64) -> Result<Used, Refusal> {
        invitation.show(&secret(byte), b"request", key, "192.0.2.1:9", Timestamp(now)).cloned()
    }

    #[test]
    fn a_token_serves_one_key_until_it_expires() {
        let mut invitation = invitation();
        assert_eq!(invitation.waiting(), None);
        let used = show(&mut invitation, 1, b"key", 5).unwrap();
        assert_eq!((used.at, used.chain.as_ref()), (Timestamp(5), None));
        assert_eq!(show(&mut invitation, 1, b"key", 6), Ok(used.clone()), "the answer may have been lost");
        assert_eq!(invitation.waiting(), Some(&used));
        assert_eq!(show(&mut invitation, 1, b"other", 7), Err(Refusal::Used));

        invitation.issue(vec![b"certificate".to_vec()]);
        assert_eq!(invitation.waiting(), None);
        let chain = show(&mut invitation, 1, b"key", 999).unwrap().chain;
        assert_eq!(chain, Some(vec![b"certificate".to_vec()]));
        assert_eq!(show(&mut invitation, 1, b"key", 1000), Err(Refusal::Expired));
        assert_eq!(show(&mut invitation, 1, b"other", 1000), Err(Refusal::Used));
    }

    #[test]
    fn who_does_not_know_the_secret_learns_nothing() {
        let mut invitation = invitation();
        assert_eq!(show(&mut invitation, 2, b"key", 5), Err(Refusal::Unknown));
        assert_eq!(show(&mut invitation, 2, b"key", 5000), Err(Refusal::Unknown));
        show(&mut invitation, 1, b"key", 5).unwrap();
        assert_eq!(show(&mut invitation, 2, b"other", 5), Err(Refusal::Unknown));
    }

    #[test]
    fn an_expired_token_binds_nothing() {
        let mut invitation = invitation();
        assert_eq!(show(&mut invitation, 1, b"key", 1000), Err(Refusal::Expired));
        assert_eq!(invitation.waiting(), None);
    }

    #[test]
    fn what_is_kept_is_not_the_secret() {
        let record = sheaf_common::wire::encode_record(&invitation()).unwrap();
        assert!(!record.windows(32).any(|window| window == [1; 32]));
    }
}
