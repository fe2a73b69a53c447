//! The masked vectors are awaited.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::confirming::Confirming;
use super::sharing::{Roster, Sealed};
use super::{Aborted, Evidence, Rejected, enough};
use crate::blob::BlobId;
use crate::id::ClientId;
use crate::secagg::message::{Ask, SealedShare};
use crate::secagg::transcript::{self, Digest};

/// Encapsulated secrets of masks: by the dropout that they are for, then by the survivor that they are from.
pub(super) type Kept = BTreeMap<ClientId, BTreeMap<ClientId, Vec<u8>>>;

/// Whose vectors are here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    pub(super) awaited: BTreeSet<ClientId>,
    roster: Roster,
    /// U2, in the order of names.
    senders: Vec<ClientId>,
    sealed: Sealed,
    t2: Digest,
    pub(super) masked: BTreeMap<ClientId, BlobId>,
}

impl Masking {
    pub(super) fn new(roster: Roster, sealed: Sealed) -> Self {
        let senders: Vec<ClientId> = sealed.keys().cloned().collect();
        let t2 = transcript::senders(&roster.t1, &senders);
        let awaited = senders.iter().cloned().collect();
        Self { awaited, roster, senders, sealed, t2, masked: BTreeMap::new() }
    }

    pub(super) fn ask(&self, site: &ClientId) -> Ask {
        let shares = self
            .sealed
            .iter()
            .filter_map(|(sender, shares)| Some((sender, shares.get(site)?)))
            .map(|(sender, share)| SealedShare { peer: sender.clone(), ..share.clone() })
            .collect();
        Ask::MaskInput { senders: self.senders.clone(), shares }
    }

    pub(super) fn take(&mut self, from: &ClientId, blob: BlobId, evidence: Evidence) -> Result<(), Rejected> {
        let expected = self.masked_bytes();
        let found = match evidence {
            Evidence::Length(length) => length,
            Evidence::Key(_) | Evidence::Nothing => 0,
        };
        if found != expected {
            return Err(Rejected::Length { found, expected });
        }
        self.masked.insert(from.clone(), blob);
        Ok(())
    }

    pub(super) fn masked_bytes(&self) -> u64 {
        let params = &self.roster.params;
        params.layout.masked_bytes(params.encoding.ring_bytes())
    }

    pub(super) fn proceed(self) -> Result<Confirming, Aborted> {
        enough(self.masked.len(), self.roster.needed, "sent their masked updates")?;
        let encapsulated = self.encapsulated_for_dropouts();
        Ok(Confirming::new(self.roster, self.senders, self.t2, self.masked, encapsulated))
    }

    /// What survivors encapsulated for the masks that they share with those that dropped out.
    fn encapsulated_for_dropouts(&self) -> Kept {
        let mut kept = Kept::new();
        for (sender, shares) in self.sealed.iter().filter(|(sender, _)| self.masked.contains_key(*sender)) {
            for (receiver, share) in shares.iter().filter(|(of, _)| !self.masked.contains_key(*of)) {
                if let Some(both) = &share.encapsulated {
                    kept.entry(receiver.clone()).or_default().insert(sender.clone(), both.mask.clone());
                }
            }
        }
        kept
    }
}
