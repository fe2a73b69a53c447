//! Why a site ends an attempt: one name for each lie that a server or a peer may try.

use crate::id::ClientId;
use crate::secagg::params::BadParams;

/// The attempt is over for this site: nothing more leaves it, and its secrets are wiped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The terms make no sense.
    #[error(transparent)]
    Params(#[from] BadParams),
    /// The terms are not those of the run and the update.
    #[error("the server's {0} is not that of the run that this site trained for")]
    Terms(&'static str),
    /// The attempt is not newer than the last one.
    #[error("this attempt was joined before: the server replays it")]
    Replayed,
    /// Fewer sites than the run or the site's policy ask for.
    #[error("a sum over {found} sites was offered; at least {needed} are needed")]
    TooFew {
        /// Sites offered.
        found: usize,
        /// Sites needed.
        needed: usize,
    },
    /// No threshold or graph exists for so many sites.
    #[error("no secret sharing among {0} sites resists the collusion that the run allows for")]
    NoThreshold(usize),
    /// So many values could overflow.
    #[error("the sum over {0} sites could overflow the ring")]
    Overflow(usize),
    /// The roster names a site twice or is not in order.
    #[error("the roster is not in the order of names, each once")]
    RosterOrder,
    /// The roster names somebody who may not take part.
    #[error("{0} may not take part in this run")]
    Stranger(ClientId),
    /// A certificate in the roster is not the federation's.
    #[error("the certificate of {site} is not good: {why}")]
    Certificate {
        /// The site that the roster names.
        site: ClientId,
        /// Why.
        why: String,
    },
    /// Keys in the roster are not signed by their site for this attempt.
    #[error("the keys of {0} do not carry its signature for this attempt")]
    ForgedKeys(ClientId),
    /// Our own entry is missing or changed.
    #[error("the roster does not hold our own keys")]
    NotOurKeys,
    /// A key that gives every peer the same secret.
    #[error("{0} shows a small-order key")]
    SmallOrder(ClientId),
    /// Keys or secrets of ML-KEM are missing, or unasked for, or not of its form.
    #[error(
        "{0} shows no keys or secrets of ML-KEM-768 where the run asks for them, or shows some where it does not"
    )]
    PostQuantum(ClientId),
    /// The senders are not a part of the roster with us in it.
    #[error("the list of senders is not a part of the roster with us in it")]
    Senders,
    /// A share is missing, doubled or from somebody else.
    #[error("the shares are not one from each neighbour that sent some")]
    Shares,
    /// A share was not sealed by its sender for us in this attempt.
    #[error("the share from {0} was not sealed for us in this attempt")]
    ForgedShare(ClientId),
    /// The survivors are not a part of the senders with us in it.
    #[error("the list of survivors is not a part of the senders with us in it")]
    Survivors,
    /// The masked vector has not left yet.
    #[error("our masked vector is not made yet, and cannot have arrived")]
    NotMasked,
    /// This update, or another of its round, was in a sum with other sites before: the two sums differ by single updates.
    #[error(
        "this update, or another of its round, was already summed with other sites: a second sum would uncover updates"
    )]
    OtherSurvivors,
    /// Fewer sites than the quorum signed the survivors that we were told.
    #[error("only {found} of {needed} needed sites signed the survivors that we were told")]
    NoQuorum {
        /// Valid signatures.
        found: usize,
        /// The quorum.
        needed: usize,
    },
    /// The same stage in other words.
    #[error("the server asked for the same stage twice, in different words")]
    Twice,
    /// A stage was left out.
    #[error("the server left out a stage")]
    Skipped,
    /// A refusal or the end came before.
    #[error("the attempt is over for this site")]
    Over,
    /// Our own key does not sign.
    #[error("this site cannot sign: {0}")]
    CannotSign(String),
}

pub(super) fn out_of_turn(answered: u8, asked: u8) -> Refusal {
    if asked <= answered { Refusal::Twice } else { Refusal::Skipped }
}
