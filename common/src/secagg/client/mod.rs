//! A site's side of one attempt at a secure sum, as a state machine without IO.
//!
//! One state, one file, in the order of an attempt's life: `advertised` → `shared` → `masking` → `confirmed` →
//! `released`. A state consumes itself to become the next; whatever the server says out of order, twice in
//! different words, or against the terms, ends the attempt with a [`Refusal`] and wipes its secrets. The same
//! word again gets the same answer again, so that either side may be restarted; for that the machine is kept,
//! whole, before an answer leaves.

mod advertised;
mod confirmed;
mod masking;
mod refusal;
mod released;
pub(super) mod roster;
mod shared;

use serde::{Deserialize, Serialize};

use super::mask::MaskPlan;
use super::message::{Answer, Ask, Signature};
use super::params::RoundParams;
use super::transcript::Digest;
use crate::blob::BlobId;
use crate::id::ClientId;

use advertised::Advertised;
use confirmed::Confirmed;
use masking::Masking;
pub use refusal::Refusal;
use released::Released;
pub use released::{SumCheck, Witness, WrongSum};
use shared::Shared;

/// Who the site is, and whom it believes: the certificate's key and the federation's CA.
pub trait Party {
    /// Our name.
    fn name(&self) -> &ClientId;
    /// Our certificate and what links it to the authority, DER, as it is now.
    fn certificate(&self) -> Vec<u8>;
    /// Our signature, with the key of the certificate that was last asked for.
    fn sign(&self, message: &[u8]) -> Result<Signature, String>;
    /// The site whose certificate this is, and its Ed25519 key; an error when the federation's CA did not sign
    /// it, it is not valid now, or it is not a site's.
    fn verify(&self, certificate: &[u8]) -> Result<(ClientId, [u8; 32]), String>;
    /// The Ed25519 key of the server whose certificate this is; an error as for [`Self::verify`].
    fn verify_server(&self, certificate: &[u8]) -> Result<[u8; 32], String>;
}

/// What the site knows by itself of the attempt that it is asked to join.
#[derive(Clone, Debug, PartialEq)]
pub struct Expectation {
    /// The terms as the site derives them from the run and its own update; `ranges` and `encoding.ring_bytes`
    /// are the server's to choose.
    pub params: RoundParams,
    /// The sites that may take part; `None` is every site of the federation.
    pub sites: Option<Vec<ClientId>>,
    /// The site's own policy: the sum must be over at least so many.
    pub min_updates: u32,
    /// The survivors with whom an update of this round, or this very update, was summed before: it may be again with
    /// those, and with no others.
    pub released_with: Vec<Digest>,
}

/// What the site is to do next.
#[derive(Clone, Debug, PartialEq)]
pub enum Reaction {
    /// Send this answer, once the machine is kept.
    Say(Answer),
    /// Make the masked vector and hand its name to [`Client::masked`].
    Mask,
    /// Nothing: it is doing it already.
    Nothing,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    /// The last word of the server that was acted on.
    asked: Digest,
    /// What we answered to it.
    answer: Option<Answer>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    Advertised(Advertised),
    Shared(Shared),
    Masking(Masking),
    Confirmed(Confirmed),
    Released(Released),
    Over,
}

impl Client {
    /// Joins an attempt, with keys from `entropy`, which is used for nothing else.
    pub fn join(
        params: RoundParams,
        expectation: &Expectation,
        party: &dyn Party,
        entropy: [u8; 32],
    ) -> Result<Self, Refusal> {
        let asked = Digest::of("ask", &Ask::Advertise(Box::new(params.clone())));
        let (state, answer) = Advertised::join(params, expectation, party, entropy)?;
        Ok(Self { asked, answer: Some(answer), state: State::Advertised(state) })
    }

    /// Takes the server's next word. After a refusal the attempt is over and its secrets are gone.
    pub fn handle(&mut self, ask: Ask, party: &dyn Party) -> Result<Reaction, Refusal> {
        let asked = Digest::of("ask", &ask);
        if asked == self.asked {
            return Ok(self.answer.clone().map_or(Reaction::Nothing, Reaction::Say));
        }
        let (state, answer) = match (std::mem::replace(&mut self.state, State::Over), ask) {
            (State::Advertised(state), Ask::ShareKeys(roster)) => {
                let (state, answer) = state.share(&roster, party)?;
                (State::Shared(state), Some(answer))
            }
            (State::Shared(state), Ask::MaskInput { senders, shares }) => {
                (State::Masking(state.mask(senders, shares)?), None)
            }
            (State::Masking(state), Ask::Confirm(survivors)) => {
                let (state, answer) = state.confirm(survivors, party)?;
                (State::Confirmed(state), Some(answer))
            }
            (State::Confirmed(state), Ask::Unmask(signatures)) => {
                let (state, answer) = state.release(&signatures)?;
                (State::Released(state), Some(answer))
            }
            (State::Over, _) => return Err(Refusal::Over),
            (state, ask) => return Err(refusal::out_of_turn(state.stage(), stage(&ask))),
        };
        (self.asked, self.state, self.answer) = (asked, state, answer);
        Ok(self.answer.clone().map_or(Reaction::Mask, Reaction::Say))
    }

    /// Our last answer.
    pub fn answer(&self) -> Option<Answer> {
        self.answer.clone()
    }

    /// The masked vector is made and durable under this name: the answer that says so.
    pub fn masked(&mut self, blob: BlobId) -> Option<Answer> {
        if let State::Masking(state) = &mut self.state {
            state.done();
            self.answer = Some(Answer::Masked(blob));
        }
        self.answer.clone()
    }

    /// The terms, and the secrets of the masked vector that is to be made.
    pub fn plan(&self) -> Option<(&RoundParams, &MaskPlan)> {
        match &self.state {
            State::Masking(state) => state.plan(),
            State::Advertised(_)
            | State::Shared(_)
            | State::Confirmed(_)
            | State::Released(_)
            | State::Over => None,
        }
    }

    /// What it takes to check the published sum, once our masked vector may be in it.
    pub fn witness(&self) -> Option<Witness> {
        match &self.state {
            State::Masking(state) => state.witness(None),
            State::Confirmed(state) => state.masking.witness(Some(state.survivors.clone())),
            State::Released(state) => Some(state.witness.clone()),
            State::Advertised(_) | State::Shared(_) | State::Over => None,
        }
    }

    /// The survivors with whom our update is summed, once our shares were given.
    pub fn released_with(&self) -> Option<Digest> {
        match &self.state {
            State::Released(state) => state.witness.survivors.as_deref().map(survivors_digest),
            State::Advertised(_)
            | State::Shared(_)
            | State::Masking(_)
            | State::Confirmed(_)
            | State::Over => None,
        }
    }
}

/// What the ledger of released updates keeps of a set of survivors.
fn survivors_digest(survivors: &[ClientId]) -> Digest {
    Digest::of("released-with", &survivors)
}

impl State {
    /// The stage that this state has answered.
    fn stage(&self) -> u8 {
        match self {
            Self::Advertised(_) => 0,
            Self::Shared(_) => 1,
            Self::Masking(_) => 2,
            Self::Confirmed(_) => 3,
            Self::Released(_) | Self::Over => 4,
        }
    }
}

fn stage(ask: &Ask) -> u8 {
    match ask {
        Ask::Advertise(_) => 0,
        Ask::ShareKeys(_) => 1,
        Ask::MaskInput { .. } => 2,
        Ask::Confirm(_) => 3,
        Ask::Unmask(_) => 4,
    }
}
