//! How often each score occurs, in bins: what the areas under the ROC and precision-recall curves come from.
//!
//! A score is the one-vs-rest logit of a class, `log p - log (1 - p)`. Bins are uniform in the logit, not in
//! `p`, so that the scores of a very confident model do not fall into one bin at either end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Scores are clamped to this magnitude; a probability of `e^-32` is about 1e-14.
const SCORE_MAX: f64 = 32.0;

/// Bins of all classes together. Two full [`Counts`](super::Counts) then fit a control message.
const BIN_BUDGET: usize = 24_576;

/// Number of bins of one class's histograms in a task of `num_labels` classes, the same at every site.
pub(super) fn num_bins(num_labels: usize) -> u16 {
    // At least two classes and at most 64, which the budget's bounds reflect: 12288 bins to 384.
    u16::try_from(BIN_BUDGET / num_labels.clamp(2, 64)).unwrap_or(u16::MAX)
}

/// Counts per bin, without the empty ones, so that few examples are few bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Histogram {
    bins: BTreeMap<u16, u64>,
}

impl Histogram {
    /// Counts one score in a histogram of `num_bins` bins. NaN counts as the lowest.
    pub(super) fn observe(&mut self, score: f64, num_bins: u16) {
        let position = (score + SCORE_MAX) / (2.0 * SCORE_MAX) * f64::from(num_bins);
        // A float cast saturates and turns NaN into 0.
        let bin = (position as u16).min(num_bins - 1);
        *self.bins.entry(bin).or_default() += 1;
    }

    /// The sum of both; `None` when a bin overflows.
    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        let mut bins = self.bins.clone();
        for (bin, count) in &other.bins {
            let sum = bins.entry(*bin).or_default();
            *sum = sum.checked_add(*count)?;
        }
        Some(Self { bins })
    }

    /// Number of scores; `None` when it overflows.
    pub(super) fn total(&self) -> Option<u64> {
        self.bins.values().try_fold(0u64, |sum, count| sum.checked_add(*count))
    }

    /// Whether every bin is one of `num_bins` and holds something.
    pub(super) fn is_sound(&self, num_bins: u16) -> bool {
        self.bins.iter().all(|(bin, count)| *bin < num_bins && *count > 0)
    }

    /// Counts per `width` bins, without gaps.
    pub(super) fn coarse(&self, width: u16, bins: usize) -> Vec<u64> {
        let mut coarse = vec![0u64; bins];
        for (bin, count) in &self.bins {
            if let Some(slot) = coarse.get_mut(usize::from(bin / width)) {
                *slot = slot.saturating_add(*count);
            }
        }
        coarse
    }

    /// The inverse, with every count in the middle of its `width` bins, of which `most` is the last.
    pub(super) fn from_coarse(slots: &[u64], width: u16, most: u16) -> Self {
        let bin = |at: usize| u16::try_from(at).unwrap_or(u16::MAX).saturating_mul(width);
        let middle = |at: usize| bin(at).saturating_add(width / 2).min(most);
        let counts = slots.iter().enumerate().filter(|(_, count)| **count > 0);
        Self { bins: counts.map(|(at, count)| (middle(at), *count)).collect() }
    }

    /// The bins in use.
    pub(super) fn bins(&self) -> impl Iterator<Item = u16> {
        self.bins.keys().copied()
    }

    /// What a bin holds.
    pub(super) fn at(&self, bin: u16) -> u64 {
        self.bins.get(&bin).copied().unwrap_or(0)
    }
}
