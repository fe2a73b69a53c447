//! The server's side of one attempt at a secure sum, as a state machine without IO.
//!
//! One state, one file, in the order of an attempt's life: `advertising` → `sharing` → `masking` → `confirming`
//! → `unmasking` → [`Unmasking::open`]. Sites may vanish in every one of them; [`Server::proceed`] goes on with
//! those that answered, or aborts when they are too few. Until then nothing but uniform bytes has arrived.

mod advertising;
mod confirming;
mod masking;
mod open;
mod sharing;
mod unmasking;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::message::{Answer, Ask};
use super::params::RoundParams;
use crate::blob::BlobId;
use crate::id::ClientId;

use advertising::Advertising;
use confirming::Confirming;
use masking::Masking;
pub use open::{Opened, Unmasker, WrongShares};
use sharing::Sharing;
pub use unmasking::Unmasking;

/// What the shell found out about an answer before it was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// The Ed25519 key of the sender's certificate, which is the one in its advertisement.
    Key([u8; 32]),
    /// The length of the blob that it names.
    Length(u64),
    /// Nothing, or there is nothing to be found out.
    Nothing,
}

/// An answer does not count, and why: it costs its sender, never the attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The site is not awaited in this stage.
    #[error("no such answer is awaited from it now")]
    NotAwaited,
    /// The advertisement is not the sender's own, signed for this attempt.
    #[error("its keys are not signed with its certificate for this attempt")]
    ForgedKeys,
    /// A key that gives every peer the same secret.
    #[error("it shows a small-order key")]
    SmallOrder,
    /// Keys or secrets of ML-KEM are missing, or unasked for, or not of its form.
    #[error(
        "it shows no keys or secrets of ML-KEM-768 where the run asks for them, or shows some where it does not"
    )]
    PostQuantum,
    /// Not one share for each neighbour.
    #[error("its shares are not one for each of its neighbours")]
    Shares,
    /// The masked vector has another length than the terms give it, or is not here.
    #[error("its masked vector has {found} bytes where {expected} are due")]
    Length {
        /// Bytes at hand.
        found: u64,
        /// Bytes of a masked vector.
        expected: u64,
    },
    /// The signature over the survivors is not its own.
    #[error("it did not sign the survivors that it was told")]
    Signature,
    /// Not one share of the right kind for each secret that it holds a share of.
    #[error("it did not give one share for each site of which it holds one")]
    Revealed,
}

/// Too few sites are left: the attempt is over, and nothing was revealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} of {needed} needed sites {did}")]
pub struct Aborted {
    found: usize,
    needed: usize,
    did: &'static str,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Server {
    /// Keys are awaited.
    Advertising(Advertising),
    /// Shares are awaited.
    Sharing(Sharing),
    /// Masked vectors are awaited.
    Masking(Masking),
    /// Signatures over the survivors are awaited.
    Confirming(Confirming),
    /// Shares of the masks are awaited.
    Unmasking(Unmasking),
}

/// What follows a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The next stage.
    Stage(Server),
    /// All that is needed to open the sum.
    Open(Unmasking),
}

impl Server {
    /// An attempt among `members`, who have something to add.
    pub fn new(params: RoundParams, members: BTreeSet<ClientId>) -> Self {
        Self::Advertising(Advertising::new(params, members))
    }

    /// What `site` is to be asked now; `None` when it has answered or is not awaited.
    pub fn ask(&self, site: &ClientId) -> Option<Ask> {
        self.awaited().contains(site).then(|| match self {
            Self::Advertising(state) => state.ask(),
            Self::Sharing(state) => state.ask(),
            Self::Masking(state) => state.ask(site),
            Self::Confirming(state) => state.ask(),
            Self::Unmasking(state) => state.ask(),
        })
    }

    /// The sites whose answer is awaited.
    pub fn awaited(&self) -> &BTreeSet<ClientId> {
        match self {
            Self::Advertising(state) => &state.awaited,
            Self::Sharing(state) => &state.awaited,
            Self::Masking(state) => &state.awaited,
            Self::Confirming(state) => &state.awaited,
            Self::Unmasking(state) => &state.awaited,
        }
    }

    /// Whether an answer of this kind is awaited from a site in this stage.
    pub fn awaits(&self, from: &ClientId, answer: &Answer) -> bool {
        let fits = matches!(
            (self, answer),
            (Self::Advertising(_), Answer::Advertisement(_))
                | (Self::Sharing(_), Answer::Shares(_))
                | (Self::Masking(_), Answer::Masked(_))
                | (Self::Confirming(_), Answer::Confirmed(_))
                | (Self::Unmasking(_), Answer::Unmasking(_))
        );
        fits && self.awaited().contains(from)
    }

    /// Takes a site's answer. The sender's name is its certificate's.
    pub fn take(&mut self, from: &ClientId, answer: Answer, evidence: Evidence) -> Result<(), Rejected> {
        if !self.awaited().contains(from) {
            return Err(Rejected::NotAwaited);
        }
        match (&mut *self, answer) {
            (Self::Advertising(state), Answer::Advertisement(entry)) => state.take(from, *entry, evidence)?,
            (Self::Sharing(state), Answer::Shares(shares)) => state.take(from, shares)?,
            (Self::Masking(state), Answer::Masked(blob)) => state.take(from, blob, evidence)?,
            (Self::Confirming(state), Answer::Confirmed(signature)) => state.take(from, signature)?,
            (Self::Unmasking(state), Answer::Unmasking(shares)) => state.take(from, shares)?,
            (
                Self::Advertising(_)
                | Self::Sharing(_)
                | Self::Masking(_)
                | Self::Confirming(_)
                | Self::Unmasking(_),
                _,
            ) => return Err(Rejected::NotAwaited),
        }
        self.lost(from);
        Ok(())
    }

    /// Nothing more is awaited from `site` in this stage.
    pub fn lost(&mut self, site: &ClientId) {
        let awaited = match self {
            Self::Advertising(state) => &mut state.awaited,
            Self::Sharing(state) => &mut state.awaited,
            Self::Masking(state) => &mut state.awaited,
            Self::Confirming(state) => &mut state.awaited,
            Self::Unmasking(state) => &mut state.awaited,
        };
        awaited.remove(site);
    }

    /// Ends the stage with the answers at hand.
    pub fn proceed(self) -> Result<Next, Aborted> {
        Ok(match self {
            Self::Advertising(state) => Next::Stage(Self::Sharing(state.proceed()?)),
            Self::Sharing(state) => Next::Stage(Self::Masking(state.proceed()?)),
            Self::Masking(state) => Next::Stage(Self::Confirming(state.proceed()?)),
            Self::Confirming(state) => Next::Stage(Self::Unmasking(state.proceed()?)),
            Self::Unmasking(state) => Next::Open(state.proceed()?),
        })
    }

    /// The masked vectors that are here.
    pub fn blobs(&self) -> Vec<BlobId> {
        self.masked().into_iter().flatten().map(|(_, blob)| *blob).collect()
    }

    /// Whether the masked vector of `site` is here.
    pub fn holds(&self, site: &ClientId) -> bool {
        self.masked().is_some_and(|masked| masked.contains_key(site))
    }

    fn masked(&self) -> Option<&BTreeMap<ClientId, BlobId>> {
        match self {
            Self::Advertising(_) | Self::Sharing(_) => None,
            Self::Masking(state) => Some(&state.masked),
            Self::Confirming(state) => Some(&state.masked),
            Self::Unmasking(state) => Some(&state.masked),
        }
    }

    /// Bytes of the vector that is asked for, while one is.
    pub fn masked_bytes(&self) -> Option<u64> {
        match self {
            Self::Masking(state) => Some(state.masked_bytes()),
            Self::Advertising(_) | Self::Sharing(_) | Self::Confirming(_) | Self::Unmasking(_) => None,
        }
    }

    /// Whether shares of the masks were asked for: the attempt's updates must not be summed again.
    pub fn is_unmasking(&self) -> bool {
        matches!(self, Self::Unmasking(_))
    }

    /// What the stage waits for, for people.
    pub fn stage(&self) -> &'static str {
        match self {
            Self::Advertising(_) => "exchanging keys",
            Self::Sharing(_) => "sharing secrets",
            Self::Masking(_) => "sending masked updates",
            Self::Confirming(_) => "confirming survivors",
            Self::Unmasking(_) => "unmasking",
        }
    }
}

fn enough(found: usize, needed: usize, did: &'static str) -> Result<(), Aborted> {
    if found < needed { Err(Aborted { found, needed, did }) } else { Ok(()) }
}
