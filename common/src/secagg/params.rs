//! What one attempt at a secure sum is about: fixed by the server, hashed into everything that follows, so that
//! two sites that were told different things can never add up to anything.

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::quantize::Encoding;
use super::transcript::Digest;
use crate::blob::BlobId;
use crate::id::Federation;
use crate::message::TaskId;
use crate::run::GraphKind;

/// The terms of one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundParams {
    /// The federation.
    pub federation: Federation,
    /// Run, round and attempt.
    pub task: TaskId,
    /// Hash of everything that is fixed for the run's whole life: a later run of the same name has another.
    pub origin: BlobId,
    /// The global parameters that the sites trained from (or evaluated).
    pub model: BlobId,
    /// Digest of the record of the round before: sites that were shown different histories have no masks in common.
    pub previous: Option<Digest>,
    /// What the masked vector consists of.
    pub layout: Layout,
    /// How a value becomes an integer, and how many bytes it travels in.
    pub encoding: Encoding,
    /// The range of a value, one per tensor: beyond plus or minus this it is clamped. Finite and above 0.
    pub ranges: Vec<f32>,
    /// A site's number of examples counts as at most this.
    pub weight_cap: u64,
    /// The sum is formed over at least so many sites.
    pub min_updates: u32,
    /// So many sites may collude with the server without learning more than the sum; a third when not given.
    pub max_colluding: Option<u32>,
    /// Who shares masks with whom.
    pub graph: GraphKind,
    /// Whether keys are agreed on by ML-KEM-768 beside X25519.
    pub post_quantum: bool,
}

/// Terms that no site and no server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadParams {
    /// A range is not a finite number above 0, or there is not one for each tensor.
    #[error("the clipping ranges are not one finite number above 0 for each tensor")]
    Ranges,
    /// The cap is 0 or absurd.
    #[error("the cap of a site's weight is not between 1 and 2^40")]
    WeightCap,
    /// A sum over one site is that site's update.
    #[error("a sum over fewer than 2 sites hides nothing")]
    TooFew,
}

impl RoundParams {
    /// Whether the terms make sense by themselves.
    pub fn check(&self) -> Result<(), BadParams> {
        let sound = |range: &f32| range.is_finite() && *range > 0.0;
        if self.ranges.len() != self.layout.tensors.len() || !self.ranges.iter().all(sound) {
            return Err(BadParams::Ranges);
        }
        if !(1..=1 << 40).contains(&self.weight_cap) {
            return Err(BadParams::WeightCap);
        }
        if self.min_updates < 2 {
            return Err(BadParams::TooFew);
        }
        Ok(())
    }

    /// T0, to which every signature and every key of the attempt is bound.
    pub fn digest(&self) -> Digest {
        Digest::of("params", self)
    }
}
