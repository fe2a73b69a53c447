//! What a masked vector consists of: one ring element per parameter, then 64-bit slots.
//!
//! The first [`HEAD`] slots are the same in every run; the rest are the metrics. The published sum holds the
//! parameters and the head; the pooled metrics stay with the server.

use serde::{Deserialize, Serialize};

use crate::message::Job;
use crate::metrics::{Counts, Kind};
use crate::params::ParamTensor;

/// Slots before the metrics: the names of [`Head`]'s fields, in their order.
pub const HEAD: usize = 8;

/// Bits of the lower half of a wide count, which is split so that sums over sites cannot overflow.
const LOW_BITS: u32 = 40;

/// The shape of a masked vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// Number of values of each tensor.
    pub tensors: Vec<u64>,
    /// Slots for metrics.
    pub metrics: u32,
}

impl Layout {
    /// Of a round: the parameters that travel, and two sets of metrics when sites hold out validation data.
    pub fn of_round(job: &Job) -> Self {
        let tensors = job.params.tensors.iter().map(ParamTensor::numel).collect();
        Self { tensors, metrics: 2 * metric_slots(job, job.spec.validates()) }
    }

    /// Of the evaluation of the final model, of its test, or of a survey: metrics alone.
    pub fn of_evaluation(job: &Job) -> Self {
        Self { tensors: Vec::new(), metrics: metric_slots(job, job.spec.validates() || job.spec.tests()) }
    }

    /// Number of parameters.
    pub fn values(&self) -> u64 {
        self.tensors.iter().sum()
    }

    /// Number of 64-bit slots.
    pub fn slots(&self) -> usize {
        HEAD + self.metrics as usize
    }

    /// Bytes of a masked vector.
    pub fn masked_bytes(&self, ring_bytes: u8) -> u64 {
        self.values() * u64::from(ring_bytes) + 8 * self.slots() as u64
    }

    /// Bytes of the published sum.
    pub fn sum_bytes(&self, ring_bytes: u8) -> u64 {
        self.values() * u64::from(ring_bytes) + 8 * HEAD as u64
    }

    /// The pieces of `len` values from `start` on that lie in one tensor each: its index and the piece's length.
    pub fn pieces(&self, start: u64, len: usize) -> impl Iterator<Item = (usize, usize)> {
        let end = start + len as u64;
        let mut first = 0;
        self.tensors.iter().enumerate().filter_map(move |(index, values)| {
            let (low, high) = (first.max(start), (first + values).min(end));
            first += values;
            // Within `len`, so it fits.
            (low < high).then(|| (index, (high - low) as usize))
        })
    }
}

/// Slots of one set of metrics in a run, if anything is held out to measure.
fn metric_slots(job: &Job, measures: bool) -> u32 {
    // At most 64 labels, or the columns that a message has room for.
    if measures { Counts::num_slots(&Kind::of(&job.spec)) as u32 } else { 0 }
}

/// The slots that every vector has: one site's, or their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// 1; the sum must be the number of survivors.
    pub sites: u64,
    /// Examples, capped.
    pub weight: u64,
    /// Values that were clamped to their range.
    pub clamped: u64,
    /// Examples times mean training loss, in units of 2^-20 nats.
    pub loss: u128,
    /// Linear check under a key that the server knows too: finds accidents.
    pub checksum: u64,
    /// Linear checks under a key that only the sites know: find a server that lies about the sum.
    pub checks: [u64; 2],
}

impl Head {
    /// As slots.
    pub fn slots(&self) -> [u64; HEAD] {
        let [low, high] = split(self.loss);
        [self.sites, self.weight, self.clamped, low, high, self.checksum, self.checks[0], self.checks[1]]
    }

    /// From slots, which may be sums of slots.
    pub fn from_slots(slots: [u64; HEAD]) -> Self {
        let [sites, weight, clamped, low, high, checksum, first, second] = slots;
        Self { sites, weight, clamped, loss: joined(low, high), checksum, checks: [first, second] }
    }

    /// The slots that the linear checks cover besides the parameters: all but the checks themselves.
    pub fn checked(&self) -> [u64; 5] {
        let [low, high] = split(self.loss);
        [self.sites, self.weight, self.clamped, low, high]
    }
}

/// A count of up to 80 bits as two slots.
pub fn split(wide: u128) -> [u64; 2] {
    let low = wide & ((1 << LOW_BITS) - 1);
    // A count beyond 104 bits is no count; it saturates rather than wraps.
    [low as u64, u64::try_from(wide >> LOW_BITS).unwrap_or(u64::MAX)]
}

/// The inverse of [`split`], also of its sums.
pub fn joined(low: u64, high: u64) -> u128 {
    u128::from(low) + (u128::from(high) << LOW_BITS)
}
