//! The sites of an attempt as one of them sees them, once their keys are verified.

use serde::{Deserialize, Serialize};

use super::{Party, Refusal};
use crate::id::ClientId;
use crate::run::GraphKind;
use crate::secagg::graph::Graph;
use crate::secagg::kem;
use crate::secagg::message::{KemPublic, SignedAdvertisement};
use crate::secagg::params::RoundParams;
use crate::secagg::transcript::{self, Digest};

/// U1, in the order of names: a site's index is its rank.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Roster {
    pub(super) params: RoundParams,
    pub(super) t1: Digest,
    pub(super) members: Vec<Member>,
    /// Our own rank.
    pub(super) rank: u32,
    pub(super) graph: Graph,
    /// Sites over which the sum must at least be formed.
    pub(super) needed: usize,
    /// Signatures over the survivors that must at least agree.
    pub(super) quorum: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) site: ClientId,
    pub(super) verifying_key: [u8; 32],
    pub(super) share_key: [u8; 32],
    pub(super) mask_key: [u8; 32],
    pub(super) post_quantum: Option<Box<KemPublic>>,
}

impl Roster {
    /// Verifies everybody's keys against the terms, the run and the federation's CA.
    pub(super) fn verify(
        params: RoundParams,
        own: &SignedAdvertisement,
        sites: Option<&[ClientId]>,
        min_updates: u32,
        entries: &[SignedAdvertisement],
        party: &dyn Party,
    ) -> Result<Self, Refusal> {
        let t0 = params.digest();
        if !entries.is_sorted_by(|a, b| a.body.site < b.body.site) {
            return Err(Refusal::RosterOrder);
        }
        let rank = entries.iter().position(|entry| entry == own).ok_or(Refusal::NotOurKeys)?;
        let t1 = transcript::roster(&t0, entries);
        let count = entries.len();
        let (graph, quorum) = graph(&params, count, &t1).ok_or(Refusal::NoThreshold(count))?;
        let needed = quorum.max(min_updates.max(params.min_updates) as usize);
        if count < needed {
            return Err(Refusal::TooFew { found: count, needed });
        }
        // A count beyond 32 bits fits no ring either.
        if !u32::try_from(count).is_ok_and(|count| params.encoding.fits(count)) {
            return Err(Refusal::Overflow(count));
        }
        let members = entries
            .iter()
            .map(|entry| member((&t0, params.post_quantum), entry, sites, party))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { params, t1, members, rank: rank as u32, graph, needed, quorum })
    }

    pub(super) fn rank_of(&self, site: &ClientId) -> Option<u32> {
        self.members.binary_search_by(|member| member.site.cmp(site)).ok().map(|rank| rank as u32)
    }

    pub(super) fn member(&self, rank: u32) -> &Member {
        &self.members[rank as usize]
    }

    /// The ranks of `sites`, which must be some of `among`, in order, each once, with us among them, and enough.
    pub(super) fn ranks(
        &self,
        sites: &[ClientId],
        among: impl Fn(u32) -> bool,
        otherwise: Refusal,
    ) -> Result<Vec<u32>, Refusal> {
        let ranks: Option<Vec<u32>> =
            sites.iter().map(|site| self.rank_of(site).filter(|rank| among(*rank))).collect();
        let ranks = ranks.ok_or(otherwise.clone())?;
        if !ranks.is_sorted_by(|a, b| a < b) || !ranks.contains(&self.rank) {
            return Err(otherwise);
        }
        if ranks.len() < self.needed {
            return Err(Refusal::TooFew { found: ranks.len(), needed: self.needed });
        }
        Ok(ranks)
    }
}

/// Who shares with whom among `count` sites, and how many of them must agree.
pub(in crate::secagg) fn graph(params: &RoundParams, count: usize, t1: &Digest) -> Option<(Graph, usize)> {
    let count = u32::try_from(count).ok()?;
    // The complete graph's threshold is the quorum of all sites, whatever graph the secrets are shared on.
    let complete = Graph::complete(count, params.max_colluding)?;
    let quorum = complete.threshold() as usize;
    let graph = match params.graph {
        GraphKind::Complete => complete,
        GraphKind::Regular => Graph::regular(count, &t1.0)?,
    };
    Some((graph, quorum))
}

fn member(
    (t0, wanted): (&Digest, bool),
    entry: &SignedAdvertisement,
    sites: Option<&[ClientId]>,
    party: &dyn Party,
) -> Result<Member, Refusal> {
    let body = &entry.body;
    let site = body.site.clone();
    if sites.is_some_and(|sites| !sites.contains(&site)) {
        return Err(Refusal::Stranger(site));
    }
    let verified = party.verify(&body.certificate);
    let (named, verifying_key) = verified.map_err(|why| Refusal::Certificate { site: site.clone(), why })?;
    if named != site || !entry.signature.is_valid(&verifying_key, &transcript::advertisement(t0, body)) {
        return Err(Refusal::ForgedKeys(site));
    }
    let post_quantum = body.post_quantum.clone();
    let sound = |keys: &KemPublic| kem::is_public(&keys.share) && kem::is_public(&keys.mask);
    if post_quantum.is_some() != wanted || !post_quantum.as_deref().is_none_or(sound) {
        return Err(Refusal::PostQuantum(site));
    }
    Ok(Member { site, verifying_key, share_key: body.share_key, mask_key: body.mask_key, post_quantum })
}
