//! The survivors are fixed; a quorum of them must sign that they were told the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::masking::Kept;
use super::sharing::Roster;
use super::unmasking::Unmasking;
use super::{Aborted, Rejected, enough};
use crate::blob::BlobId;
use crate::id::ClientId;
use crate::secagg::message::{Ask, Signature};
use crate::secagg::transcript::{self, Digest};

/// Who signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirming {
    pub(super) awaited: BTreeSet<ClientId>,
    roster: Roster,
    senders: Vec<ClientId>,
    t2: Digest,
    /// U3: a vector that arrives later is not counted.
    pub(super) masked: BTreeMap<ClientId, BlobId>,
    signatures: BTreeMap<ClientId, Signature>,
    encapsulated: Kept,
}

impl Confirming {
    pub(super) fn new(
        roster: Roster,
        senders: Vec<ClientId>,
        t2: Digest,
        masked: BTreeMap<ClientId, BlobId>,
        encapsulated: Kept,
    ) -> Self {
        let awaited = masked.keys().cloned().collect();
        Self { awaited, roster, senders, t2, masked, signatures: BTreeMap::new(), encapsulated }
    }

    pub(super) fn ask(&self) -> Ask {
        Ask::Confirm(self.masked.keys().cloned().collect())
    }

    pub(super) fn take(&mut self, from: &ClientId, signature: Signature) -> Result<(), Rejected> {
        let survivors: Vec<ClientId> = self.masked.keys().cloned().collect();
        let message = transcript::survivors(&self.t2, &survivors);
        let rank = self.roster.rank_of(from).ok_or(Rejected::NotAwaited)?;
        if !signature.is_valid(&self.roster.verifying_keys[rank as usize], &message) {
            return Err(Rejected::Signature);
        }
        self.signatures.insert(from.clone(), signature);
        Ok(())
    }

    pub(super) fn proceed(self) -> Result<Unmasking, Aborted> {
        enough(self.signatures.len(), self.roster.quorum, "signed the survivors")?;
        let signatures = self.signatures.into_iter().collect();
        Ok(Unmasking::new(self.roster, self.senders, self.t2, self.masked, signatures, self.encapsulated))
    }
}
