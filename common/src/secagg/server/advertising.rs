//! Everybody's keys for this attempt are awaited.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::sharing::Sharing;
use super::{Aborted, Evidence, Rejected, enough};
use crate::id::ClientId;
use crate::secagg::client::roster::graph;
use crate::secagg::message::{Ask, KemPublic, SignedAdvertisement};
use crate::secagg::params::RoundParams;
use crate::secagg::secret::Secret;
use crate::secagg::transcript;
use crate::secagg::{kem, keys};

/// Who showed what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Advertising {
    pub(super) awaited: BTreeSet<ClientId>,
    params: RoundParams,
    shown: BTreeMap<ClientId, (SignedAdvertisement, [u8; 32])>,
}

impl Advertising {
    pub(super) fn new(params: RoundParams, awaited: BTreeSet<ClientId>) -> Self {
        Self { awaited, params, shown: BTreeMap::new() }
    }

    pub(super) fn ask(&self) -> Ask {
        Ask::Advertise(Box::new(self.params.clone()))
    }

    pub(super) fn take(
        &mut self,
        from: &ClientId,
        entry: SignedAdvertisement,
        evidence: Evidence,
    ) -> Result<(), Rejected> {
        let Evidence::Key(key) = evidence else {
            return Err(Rejected::ForgedKeys);
        };
        let message = transcript::advertisement(&self.params.digest(), &entry.body);
        if entry.body.site != *from || !entry.signature.is_valid(&key, &message) {
            return Err(Rejected::ForgedKeys);
        }
        // Any secret will do: a small-order key gives the same with all of them.
        let probe = Secret::new([1; 32]);
        if [entry.body.share_key, entry.body.mask_key].iter().any(|key| keys::agree(&probe, key).is_none()) {
            return Err(Rejected::SmallOrder);
        }
        let sound = |keys: &KemPublic| kem::is_public(&keys.share) && kem::is_public(&keys.mask);
        let post_quantum = entry.body.post_quantum.as_deref();
        if post_quantum.is_some() != self.params.post_quantum || !post_quantum.is_none_or(sound) {
            return Err(Rejected::PostQuantum);
        }
        self.shown.insert(from.clone(), (entry, key));
        Ok(())
    }

    pub(super) fn proceed(self) -> Result<Sharing, Aborted> {
        let did = "showed their keys";
        let found = self.shown.len();
        let (roster, keys): (Vec<_>, Vec<_>) = self.shown.into_values().unzip();
        let t1 = transcript::roster(&self.params.digest(), &roster);
        let least = self.params.min_updates.max(2) as usize;
        let (graph, quorum) = graph(&self.params, found, &t1).ok_or(Aborted { found, needed: least, did })?;
        let needed = quorum.max(least);
        enough(found, needed, did)?;
        Ok(Sharing::new(self.params, roster, keys, t1, graph, (needed, quorum)))
    }
}
