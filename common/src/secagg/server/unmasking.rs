//! Shares of the survivors' self masks and of the dropouts' mask keys are awaited, never both of one site.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::masking::Kept;
use super::sharing::Roster;
use super::{Aborted, Rejected, enough};
use crate::blob::BlobId;
use crate::id::ClientId;
use crate::secagg::message::{Ask, RevealedShare, Signature};
use crate::secagg::params::RoundParams;
use crate::secagg::secret::Secret;
use crate::secagg::transcript::Digest;

/// Who gave which shares; at the end, all that it takes to open the sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unmasking {
    pub(super) awaited: BTreeSet<ClientId>,
    pub(super) roster: Roster,
    pub(super) senders: Vec<ClientId>,
    pub(super) t2: Digest,
    pub(super) masked: BTreeMap<ClientId, BlobId>,
    signatures: Vec<(ClientId, Signature)>,
    /// By whose secret, then by the holder's rank.
    pub(super) shares: BTreeMap<ClientId, BTreeMap<u32, Secret>>,
    pub(super) encapsulated: Kept,
    answered: usize,
}

impl Unmasking {
    pub(super) fn new(
        roster: Roster,
        senders: Vec<ClientId>,
        t2: Digest,
        masked: BTreeMap<ClientId, BlobId>,
        signatures: Vec<(ClientId, Signature)>,
        encapsulated: Kept,
    ) -> Self {
        let awaited = masked.keys().cloned().collect();
        let shares = BTreeMap::new();
        Self { awaited, roster, senders, t2, masked, signatures, shares, encapsulated, answered: 0 }
    }

    /// The terms.
    pub fn params(&self) -> &RoundParams {
        &self.roster.params
    }

    /// The survivors' masked vectors.
    pub fn masked(&self) -> &BTreeMap<ClientId, BlobId> {
        &self.masked
    }

    /// T2.
    pub fn transcript(&self) -> Digest {
        self.t2
    }

    pub(super) fn ask(&self) -> Ask {
        Ask::Unmask(self.signatures.clone())
    }

    pub(super) fn take(&mut self, from: &ClientId, shares: Vec<RevealedShare>) -> Result<(), Rejected> {
        let rank = self.roster.rank_of(from).ok_or(Rejected::NotAwaited)?;
        let mut held = self.roster.graph.neighbours(rank);
        if self.roster.graph.holders(rank).contains(&rank) {
            held.push(rank);
        }
        let due: BTreeSet<&ClientId> = held
            .iter()
            .map(|rank| self.roster.site(*rank))
            .filter(|site| self.senders.binary_search(site).is_ok())
            .collect();
        let given: BTreeSet<&ClientId> = shares.iter().map(|share| &share.of).collect();
        if shares.len() != due.len() || given != due {
            return Err(Rejected::Revealed);
        }
        for RevealedShare { of, share } in shares {
            self.shares.entry(of).or_default().insert(rank, share);
        }
        self.answered += 1;
        Ok(())
    }

    /// Enough shares of every secret that is needed.
    pub(super) fn proceed(self) -> Result<Self, Aborted> {
        let threshold = self.roster.graph.threshold() as usize;
        let count = |site| self.shares.get(site).map_or(0, BTreeMap::len);
        let least = self.senders.iter().map(count).min().unwrap_or(0);
        enough(least, threshold, "gave the shares that unmask the sum")?;
        Ok(self)
    }
}
