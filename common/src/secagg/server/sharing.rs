//! Everybody's sealed shares are awaited; the server routes what it cannot read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::masking::Masking;
use super::{Aborted, Rejected, enough};
use crate::id::ClientId;
use crate::secagg::graph::Graph;
use crate::secagg::kem::CIPHERTEXT_BYTES;
use crate::secagg::message::{Ask, SealedShare, SignedAdvertisement};
use crate::secagg::params::RoundParams;
use crate::secagg::transcript::Digest;

/// U1: its sites, keys and graph. A site's rank is its index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Roster {
    pub(super) params: RoundParams,
    /// One list for all the messages that show it.
    pub(super) entries: Arc<[SignedAdvertisement]>,
    pub(super) verifying_keys: Vec<[u8; 32]>,
    pub(super) t1: Digest,
    pub(super) graph: Graph,
    /// Sites over which the sum must at least be formed.
    pub(super) needed: usize,
    /// Signatures over the survivors that must at least agree.
    pub(super) quorum: usize,
}

impl Roster {
    pub(super) fn rank_of(&self, site: &ClientId) -> Option<u32> {
        self.entries.binary_search_by(|entry| entry.body.site.cmp(site)).ok().map(|rank| rank as u32)
    }

    pub(super) fn site(&self, rank: u32) -> &ClientId {
        &self.entries[rank as usize].body.site
    }
}

/// Who sent what for whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sharing {
    pub(super) awaited: BTreeSet<ClientId>,
    roster: Roster,
    sealed: Sealed,
}

/// What was sealed: by sender, then by receiver.
pub(super) type Sealed = BTreeMap<ClientId, BTreeMap<ClientId, SealedShare>>;

impl Sharing {
    pub(super) fn new(
        params: RoundParams,
        entries: Vec<SignedAdvertisement>,
        verifying_keys: Vec<[u8; 32]>,
        t1: Digest,
        graph: Graph,
        (needed, quorum): (usize, usize),
    ) -> Self {
        let awaited = entries.iter().map(|entry| entry.body.site.clone()).collect();
        let entries = entries.into();
        let roster = Roster { params, entries, verifying_keys, t1, graph, needed, quorum };
        Self { awaited, roster, sealed: BTreeMap::new() }
    }

    pub(super) fn ask(&self) -> Ask {
        Ask::ShareKeys(self.roster.entries.clone())
    }

    pub(super) fn take(&mut self, from: &ClientId, shares: Vec<SealedShare>) -> Result<(), Rejected> {
        let rank = self.roster.rank_of(from).ok_or(Rejected::NotAwaited)?;
        let neighbours = self.roster.graph.neighbours(rank);
        let due: BTreeSet<&ClientId> = neighbours.iter().map(|rank| self.roster.site(*rank)).collect();
        let count = shares.len();
        let shares: BTreeMap<ClientId, SealedShare> =
            shares.into_iter().map(|share| (share.peer.clone(), share)).collect();
        if count != due.len() || !shares.keys().eq(due) {
            return Err(Rejected::Shares);
        }
        let sound = |(peer, share): (&ClientId, &SealedShare)| match &share.encapsulated {
            None => !self.roster.params.post_quantum,
            Some(both) => {
                let mask = if from < peer { CIPHERTEXT_BYTES } else { 0 };
                self.roster.params.post_quantum
                    && (both.share.len(), both.mask.len()) == (CIPHERTEXT_BYTES, mask)
            }
        };
        if !shares.iter().all(sound) {
            return Err(Rejected::PostQuantum);
        }
        self.sealed.insert(from.clone(), shares);
        Ok(())
    }

    pub(super) fn proceed(self) -> Result<Masking, Aborted> {
        enough(self.sealed.len(), self.roster.needed, "shared their secrets")?;
        Ok(Masking::new(self.roster, self.sealed))
    }
}
