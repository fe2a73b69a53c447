//! Opening the sum: secrets from shares, masks from secrets, and the sum of the vectors less the masks.
//!
//! Chunks do not depend on one another, so they may be opened on as many threads as there are.

use std::collections::BTreeMap;

use super::unmasking::Unmasking;
use crate::id::ClientId;
use crate::secagg::layout::{HEAD, Head};
use crate::secagg::mask::{Checks, Tally};
use crate::secagg::prg::{Sign, apply_ring, apply_wide};
use crate::secagg::ring::{mask_of, unpack_add};
use crate::secagg::secret::Secret;
use crate::secagg::shamir::Basis;
use crate::secagg::{kem, keys};

/// The shares do not give the secret that a site committed itself to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shares of {of}'s secret do not give what it committed itself to")]
pub struct WrongShares {
    /// Whose secret.
    pub of: ClientId,
}

/// Takes the masks off the sum of the survivors' vectors.
pub struct Unmasker<'a> {
    unmasking: &'a Unmasking,
    ring: Vec<(Sign, [u8; 16])>,
    wide: Vec<(Sign, [u8; 16])>,
    checks: Checks,
    /// Sites that gave a wrong share.
    pub culprits: Vec<ClientId>,
}

/// The slots of the sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Those that every run has.
    pub head: Head,
    /// The pooled metrics.
    pub metrics: Vec<u64>,
}

impl Unmasking {
    /// Reconstructs the masks that are left in the sum. Costs a key agreement for every dropout and survivor.
    pub fn open(&self) -> Result<Unmasker<'_>, WrongShares> {
        let t2 = &self.t2.0;
        let mut recovery = Recovery { unmasking: self, bases: BTreeMap::new(), culprits: Vec::new() };
        let mut masks = Vec::new();
        for site in &self.senders {
            let Some(rank) = self.roster.rank_of(site) else { continue };
            let entry = &self.roster.entries[rank as usize].body;
            if self.masked.contains_key(site) {
                let t0 = self.roster.params.digest();
                let beta = recovery.secret(site, |beta| keys::commitment(&t0.0, beta) == entry.commitment)?;
                masks.push((Sign::Subtract, keys::self_mask(&beta, t2, rank)));
                continue;
            }
            let sigma = recovery.secret(site, |sigma| keys::mask_key_pair(sigma).1 == entry.mask_key)?;
            let (secret, _) = keys::mask_key_pair(&sigma);
            let wrong = || WrongShares { of: site.clone() };
            for peer in self.roster.graph.neighbours(rank) {
                if !self.masked.contains_key(self.roster.site(peer)) {
                    continue;
                }
                let peer_key = &self.roster.entries[peer as usize].body.mask_key;
                let dh = keys::agree(&secret, peer_key).ok_or_else(wrong)?;
                let kem = match self.roster.params.post_quantum {
                    true => Some(self.encapsulated_secret(&sigma, rank, peer).ok_or_else(wrong)?),
                    false => None,
                };
                // What the survivor added, because its name comes first, is taken off, and the other way round.
                let sign = if peer < rank { Sign::Subtract } else { Sign::Add };
                masks.push((sign, keys::pair_mask(&dh, kem.as_ref(), t2, rank.min(peer), rank.max(peer))));
            }
        }
        Ok(Unmasker {
            unmasking: self,
            ring: masks.iter().map(|(sign, keys)| (*sign, keys.ring)).collect(),
            wide: masks.iter().map(|(sign, keys)| (*sign, keys.wide)).collect(),
            checks: Checks::new(&self.t2, None),
            culprits: recovery.culprits,
        })
    }
}

impl Unmasking {
    /// The secret that a dropout, whose `sigma` is known again, and a survivor have by ML-KEM: the one whose name
    /// comes first encapsulated it for the other.
    fn encapsulated_secret(&self, sigma: &Secret, dropout: u32, survivor: u32) -> Option<Secret> {
        if dropout < survivor {
            let theirs = self.roster.entries[survivor as usize].body.post_quantum.as_deref()?;
            return kem::encapsulate(&theirs.mask, sigma).map(|(_, secret)| secret);
        }
        let kept = self.encapsulated.get(self.roster.site(dropout))?.get(self.roster.site(survivor))?;
        kem::mask_keys(sigma).decapsulate(kept)
    }
}

struct Recovery<'a> {
    unmasking: &'a Unmasking,
    /// The Lagrange basis of each set of holders, which is the same for most secrets.
    bases: BTreeMap<Vec<u32>, Option<Basis>>,
    culprits: Vec<ClientId>,
}

impl Recovery<'_> {
    /// A secret from the first shares that give it; when they do not, from all but one, whose giver is at fault.
    fn secret(&mut self, of: &ClientId, is_right: impl Fn(&Secret) -> bool) -> Result<Secret, WrongShares> {
        let wrong = || WrongShares { of: of.clone() };
        let shares = self.unmasking.shares.get(of).ok_or_else(wrong)?;
        let all: Vec<(u32, &Secret)> = shares.iter().map(|(rank, share)| (*rank, share)).collect();
        let threshold = self.unmasking.roster.graph.threshold() as usize;
        if let Some(secret) = self.combine(all.iter().take(threshold)).filter(&is_right) {
            return Ok(secret);
        }
        for (suspect, _) in &all {
            let others = all.iter().filter(|(rank, _)| rank != suspect).take(threshold);
            let secret = self.combine(others).filter(&is_right);
            if let Some(secret) = secret.filter(|_| all.len() > threshold) {
                self.culprits.push(self.unmasking.roster.site(*suspect).clone());
                return Ok(secret);
            }
        }
        Err(wrong())
    }

    fn combine<'b>(&mut self, shares: impl Iterator<Item = &'b (u32, &'b Secret)>) -> Option<Secret> {
        let (xs, shares): (Vec<u32>, Vec<Secret>) =
            shares.map(|(rank, share)| (rank + 1, (*share).clone())).unzip();
        let basis = self.bases.entry(xs.clone()).or_insert_with(|| Basis::new(&xs));
        basis.as_ref()?.combine(&shares)
    }
}

impl Unmasker<'_> {
    /// Adds one survivor's packed, masked elements to a chunk's sums.
    pub fn add(&self, vector: &[u8], sums: &mut [u32]) {
        unpack_add(vector, self.unmasking.params().encoding.ring_bytes(), sums);
    }

    /// Takes the masks off a chunk to which every survivor's elements were added.
    pub fn finish_chunk(&self, start: u64, sums: &mut [u32]) -> Tally {
        apply_ring(&self.ring, start, sums);
        let mask = mask_of(self.unmasking.params().encoding.ring_bytes());
        for sum in sums.iter_mut() {
            *sum &= mask;
        }
        let (encoding, sites) = (&self.unmasking.params().encoding, self.unmasking.masked().len() as u64);
        // The farthest is the lowest or the highest.
        let ends = sums.iter().min().into_iter().chain(sums.iter().max());
        let distance = ends.map(|sum| encoding.distance(*sum, sites)).max().unwrap_or(0);
        Tally { distance, ..self.checks.fold(start, sums) }
    }

    /// The sum's slots, of which `vectors` are the survivors' masked ones.
    pub fn slots<'b>(&self, vectors: impl IntoIterator<Item = &'b [u8]>) -> Option<Opened> {
        let mut slots = vec![0u64; self.unmasking.params().layout.slots()];
        for vector in vectors {
            for (slot, bytes) in slots.iter_mut().zip(vector.as_chunks::<8>().0) {
                *slot = slot.wrapping_add(u64::from_le_bytes(*bytes));
            }
        }
        apply_wide(&self.wide, 0, &mut slots);
        let (head, metrics) = slots.split_first_chunk::<HEAD>()?;
        Some(Opened { head: Head::from_slots(*head), metrics: metrics.to_vec() })
    }

    /// Whether the slots agree with the tally of all chunks. If not, some site did not follow the protocol.
    ///
    /// Whoever trains has an example, and the sum can be no farther from 0 than the examples say: a site that took the
    /// others' weights away would have the mean multiplied by them.
    pub fn agrees(&self, mut tally: Tally, head: &Head) -> bool {
        let params = self.unmasking.params();
        let survivors = self.unmasking.masked().len() as u64;
        tally.add(&self.checks.fold_head(params.layout.values(), head));
        // An evaluation adds no values and has no weight.
        let least = if params.layout.values() > 0 { survivors } else { 0 };
        head.sites == survivors
            && (least..=params.weight_cap.saturating_mul(survivors)).contains(&head.weight)
            && tally.distance <= params.encoding.farthest(survivors, head.weight, params.weight_cap)
            && head.clamped <= survivors.saturating_mul(params.layout.values())
            && tally.checksum == head.checksum
    }
}
