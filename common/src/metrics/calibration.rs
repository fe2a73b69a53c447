//! How often a model is right when it is so sure: the calibration curve of the predicted label's probability, and
//! the expected calibration error (Guo et al. 2017, "On calibration of modern neural networks", section 2).
//!
//! Bins are `(0, 0.1]`, `(0.1, 0.2]` and so on, as in scikit-learn's `calibration_curve`; the first holds 0, too.

use serde::{Deserialize, Serialize};

use super::counts::Unsound;
use super::fixed::{EXAMPLES_MAX, UNITS, fits, fixed};

/// Number of bins.
pub(super) const BINS: usize = 10;

/// Limbs of a bin's summed confidence.
pub(super) const CONFIDENCE_LIMBS: usize = 2;

const _: () = assert!(fits(UNITS * EXAMPLES_MAX as u128, CONFIDENCE_LIMBS as u32));

/// Counts per bin of confidence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Calibration {
    pub(super) bins: Box<[Bin; BINS]>,
}

/// The predictions of one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bin {
    /// How many.
    pub(super) count: u64,
    /// How many of them were right.
    pub(super) right: u64,
    /// The sum of their confidences, in units of 2^-40.
    pub(super) confidence: u128,
}

impl Calibration {
    /// Counts a prediction that was made with probability `confidence`.
    pub(super) fn observe(&mut self, confidence: f64, right: bool) {
        let confidence = confidence.clamp(0.0, 1.0);
        let fits = |bin: &usize| confidence <= edge(bin + 1);
        let bin = &mut self.bins[(0..BINS).find(fits).unwrap_or(BINS - 1)];
        bin.count += 1;
        bin.right += u64::from(right);
        bin.confidence += fixed(confidence, UNITS);
    }

    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        let mut sum = self.clone();
        for (own, other) in sum.bins.iter_mut().zip(other.bins.iter()) {
            own.count = own.count.checked_add(other.count)?;
            own.right = own.right.checked_add(other.right)?;
            own.confidence = own.confidence.checked_add(other.confidence)?;
        }
        Some(sum)
    }

    /// Whether these can be `total` predictions, `right` of which were right.
    pub(super) fn is_sound(&self, total: u64, right: u64) -> Result<(), Unsound> {
        for (at, bin) in self.bins.iter().enumerate() {
            // A confidence at an edge may be rounded by half a unit.
            let bound = |edge: f64| fixed(edge, UNITS);
            let (count, low, high) = (u128::from(bin.count), bound(edge(at)), bound(edge(at + 1)));
            let possible = count * low.saturating_sub(1)..=count * (high + 1);
            if bin.count > total || bin.right > bin.count || !possible.contains(&bin.confidence) {
                return Err(Unsound::Calibration(at));
            }
        }
        let sum = |of: fn(&Bin) -> u64| self.bins.iter().map(|bin| u128::from(of(bin))).sum::<u128>();
        if sum(|bin| bin.count) != u128::from(total) || sum(|bin| bin.right) != u128::from(right) {
            return Err(Unsound::Sum("number of predictions in the calibration curve"));
        }
        Ok(())
    }

    /// The expected calibration error: the mean over the predictions of the difference, in their bin, between the
    /// share that was right and the mean confidence. 0 without predictions.
    pub(super) fn error(&self) -> f64 {
        let total: u128 = self.bins.iter().map(|bin| u128::from(bin.count)).sum();
        let gap = |bin: &Bin| (u128::from(bin.right).saturating_mul(UNITS)).abs_diff(bin.confidence);
        let gaps: u128 = self.bins.iter().map(gap).fold(0, u128::saturating_add);
        gaps as f64 / UNITS as f64 / total.max(1) as f64
    }
}

/// The lower edge of a bin, the upper one of the bin before it.
pub(super) fn edge(bin: usize) -> f64 {
    bin as f64 / BINS as f64
}
