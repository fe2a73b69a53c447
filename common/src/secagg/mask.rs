//! From a site's update to its masked vector, chunk by chunk: quantise, check, mask, pack.
//!
//! Chunks do not depend on one another, so they may be made on as many threads as there are.

use serde::{Deserialize, Serialize};

use super::check::LinearCheck;
use super::keys::MaskKeys;
use super::layout::{HEAD, Head};
use super::params::RoundParams;
use super::prg::{Sign, apply_ring, apply_wide, fill_ring};
use super::quantize::NotFinite;
use super::ring::pack;
use super::transcript::Digest;

/// Everything secret that goes into one site's masked vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MaskPlan {
    /// The self mask, and one mask for each neighbour: added for one of the two, subtracted for the other.
    pub(super) masks: Vec<(Sign, MaskKeys)>,
    /// Keys of the checks that only the sites can make; there are none on a graph that is not complete.
    pub(super) checks: Option<[[u8; 16]; 2]>,
    /// T2, from which the server's own check is keyed.
    pub(super) t2: Digest,
    /// Rounds the values at random, so that the mean is unbiased.
    pub(super) noise: [u8; 16],
}

/// What the chunks came to, to be added up in any order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Values that were clamped.
    pub clamped: u64,
    /// See [`Head::checksum`].
    pub checksum: u64,
    /// See [`Head::checks`].
    pub checks: [u64; 2],
    /// The largest distance of an opened sum from that of zeros ([`super::quantize::Encoding::distance`]).
    pub distance: u64,
}

impl Tally {
    /// Adds another chunk's.
    pub fn add(&mut self, other: &Self) {
        self.clamped += other.clamped;
        self.distance = self.distance.max(other.distance);
        self.checksum = self.checksum.wrapping_add(other.checksum);
        for (check, other) in self.checks.iter_mut().zip(other.checks) {
            *check = check.wrapping_add(other);
        }
    }
}

/// The checks of one attempt.
pub(super) struct Checks {
    public: LinearCheck,
    keyed: Option<[LinearCheck; 2]>,
}

impl Checks {
    pub(super) fn new(t2: &Digest, keyed: Option<&[[u8; 16]; 2]>) -> Self {
        let Digest(key) = Digest::of("checksum", t2);
        let public = LinearCheck::new(&std::array::from_fn(|at| key[at]));
        Self { public, keyed: keyed.map(|keys| keys.each_ref().map(LinearCheck::new)) }
    }

    /// Over ring elements from `start` on.
    pub(super) fn fold(&self, start: u64, values: &[u32]) -> Tally {
        Tally {
            checksum: self.public.fold(start, values),
            checks: self
                .keyed
                .as_ref()
                .map_or([0; 2], |keyed| keyed.each_ref().map(|k| k.fold(start, values))),
            ..Tally::default()
        }
    }

    /// Over the slots of the head, which follow the `values` ring elements.
    pub(super) fn fold_head(&self, values: u64, head: &Head) -> Tally {
        let slots = head.checked();
        Tally {
            checksum: self.public.fold_wide(values, &slots),
            checks: self
                .keyed
                .as_ref()
                .map_or([0; 2], |keyed| keyed.each_ref().map(|k| k.fold_wide(values, &slots))),
            ..Tally::default()
        }
    }
}

/// Makes one site's masked vector.
pub struct Masker<'a> {
    params: &'a RoundParams,
    plan: &'a MaskPlan,
    ring: Vec<(Sign, [u8; 16])>,
    checks: Checks,
    weight: u64,
}

impl<'a> Masker<'a> {
    /// For an update behind `num_examples` examples.
    pub fn new(params: &'a RoundParams, plan: &'a MaskPlan, num_examples: u64) -> Self {
        Self {
            params,
            plan,
            ring: plan.masks.iter().map(|(sign, keys)| (*sign, keys.ring)).collect(),
            checks: Checks::new(&plan.t2, plan.checks.as_ref()),
            weight: num_examples.min(params.weight_cap),
        }
    }

    /// Appends the masked form of the values from number `start` on.
    pub fn chunk(&self, start: u64, values: &[f32], out: &mut Vec<u8>) -> Result<Tally, NotFinite> {
        let encoding = &self.params.encoding;
        let factor = self.weight as f64 / self.params.weight_cap as f64;
        let mut noise = vec![0; values.len()];
        fill_ring(&self.plan.noise, start, &mut noise);
        let mut ring = vec![0; values.len()];
        let (mut clamped, mut at) = (0, 0);
        for (tensor, len) in self.params.layout.pieces(start, values.len()) {
            let piece = at..at + len;
            at += len;
            let range = self.params.ranges[tensor];
            clamped += encoding.quantize(
                &values[piece.clone()],
                factor,
                range,
                &noise[piece.clone()],
                &mut ring[piece],
            )?;
        }
        let mut tally = self.checks.fold(start, &ring);
        tally.clamped = clamped;
        apply_ring(&self.ring, start, &mut ring);
        pack(&ring, encoding.ring_bytes(), out);
        Ok(tally)
    }

    /// The masked slots, which follow the last chunk. `train_loss` is the mean over the examples, in nats.
    pub fn slots(&self, tally: &Tally, train_loss: f64, metrics: &[u64]) -> Vec<u8> {
        let loss = (train_loss.clamp(0.0, 1e6) * self.weight as f64 * LOSS_UNITS) as u128;
        let mut head =
            Head { sites: 1, weight: self.weight, clamped: tally.clamped, loss, ..Head::default() };
        let mut tally = *tally;
        tally.add(&self.checks.fold_head(self.params.layout.values(), &head));
        (head.checksum, head.checks) = (tally.checksum, tally.checks);
        let mut slots = vec![0; self.params.layout.slots()];
        slots[..HEAD].copy_from_slice(&head.slots());
        for (slot, metric) in slots[HEAD..].iter_mut().zip(metrics) {
            *slot = *metric;
        }
        let masks: Vec<_> = self.plan.masks.iter().map(|(sign, keys)| (*sign, keys.wide)).collect();
        apply_wide(&masks, 0, &mut slots);
        slots.iter().flat_map(|slot| slot.to_le_bytes()).collect()
    }
}

/// Units of the summed loss per nat.
pub const LOSS_UNITS: f64 = (1u64 << 20) as f64;
