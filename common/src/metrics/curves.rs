//! The areas under the ROC and the precision-recall curve from binned scores, each with the most by which it can
//! differ from the area computed from the scores themselves.
//!
//! Binning keeps the order of scores in different bins and forgets it within one: those count as ties. So only the
//! order within bins is uncertain, and the bounds are over all of its possibilities.

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;
use super::ratios::mean;

/// The scores of one label against the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scores {
    /// Over the examples of the label.
    pub(super) positives: Histogram,
    /// Over the others.
    pub(super) negatives: Histogram,
}

/// An area under a curve, in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Area {
    pub(super) value: f64,
    /// The most by which it can differ from the area computed from the scores themselves.
    pub(super) error: f64,
}

/// So many terms of a sum are added one by one; of more, a bound is taken.
const SUMMED: u64 = 64;

impl Scores {
    /// Counts one score in histograms of `bins` bins.
    pub(super) fn observe(&mut self, score: f64, positive: bool, bins: u16) {
        let side = if positive { &mut self.positives } else { &mut self.negatives };
        side.observe(score, bins);
    }

    /// The sum of both; `None` when a bin overflows.
    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        Some(Self {
            positives: self.positives.merged(&other.positives)?,
            negatives: self.negatives.merged(&other.negatives)?,
        })
    }

    /// Whether these can be the scores of so many examples in so many bins.
    pub(super) fn is_sound(&self, positives: u64, negatives: u64, bins: u16) -> bool {
        self.positives.is_sound(bins)
            && self.negatives.is_sound(bins)
            && self.positives.total() == Some(positives)
            && self.negatives.total() == Some(negatives)
    }

    /// The area under the ROC curve: the probability that a random positive scores above a random negative, where
    /// a tie counts half. `None` when there are no positives or no negatives.
    ///
    /// The error is half the share of pairs (positive, negative) that share a bin,
    /// `sum_b pos_b * neg_b / (2 * P * N)`.
    pub(super) fn roc_auc(&self) -> Option<Area> {
        let pairs = self.positives.total()? as f64 * self.negatives.total()? as f64;
        let (mut twice_won, mut tied, mut below) = (0u128, 0u128, 0u128);
        for (pos, neg) in self.ascending() {
            let (pos, neg) = (u128::from(pos), u128::from(neg));
            twice_won = twice_won.saturating_add(pos.saturating_mul(2 * below + neg));
            tied = tied.saturating_add(pos.saturating_mul(neg));
            below += neg;
        }
        let share = |of: u128| of as f64 / (2.0 * pairs);
        (pairs > 0.0).then(|| Area { value: share(twice_won), error: share(tied) })
    }

    /// The area under the precision-recall curve as average precision: the mean over the positives of the precision
    /// at their score. `None` when there are no positives.
    ///
    /// With `P` positives and `N` negatives above a bin of `p` and `n`, the binned precision of its positives is
    /// `(P + p) / (P + p + N + n)`. At most it is `(P + p) / (P + p + N)`, were all positives tied ahead of the
    /// negatives; at least `(P + j) / (P + j + N + n)` for the `j`-th positive, were all negatives ahead of them.
    pub(super) fn pr_auc(&self) -> Option<Area> {
        let total = self.positives.total()? as f64;
        let (mut above_pos, mut above_neg) = (0.0, 0.0);
        let (mut area, mut most, mut least) = (0.0, 0.0, 0.0);
        let bins: Vec<(u64, u64)> = self.ascending().collect();
        for (pos, neg) in bins.into_iter().rev() {
            let (p, n) = (pos as f64, neg as f64);
            if pos > 0 {
                let reached = above_pos + p;
                area += p * reached / (reached + above_neg + n);
                most += p * reached / (reached + above_neg);
                least += least_precision(above_pos, above_neg + n, pos);
            }
            above_pos += p;
            above_neg += n;
        }
        let error = f64::max(most - area, area - least).max(0.0);
        (total > 0.0).then(|| Area { value: area / total, error: error / total })
    }

    /// Positives and negatives of each bin in use, from the lowest score to the highest.
    fn ascending(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut bins: Vec<u16> = self.positives.bins().chain(self.negatives.bins()).collect();
        bins.sort_unstable();
        bins.dedup();
        bins.into_iter().map(|bin| (self.positives.at(bin), self.negatives.at(bin)))
    }
}

/// At most `sum_{j=1..count} (before + j) / (before + j + negatives)`.
fn least_precision(before: f64, negatives: f64, count: u64) -> f64 {
    if count <= SUMMED {
        return (1..=count).map(|j| before + j as f64).map(|reached| reached / (reached + negatives)).sum();
    }
    if negatives == 0.0 {
        return count as f64;
    }
    // A term is `1 - negatives / (start + j)`, and `sum_j 1 / (start + j) <= ln ((start + count) / start)`.
    let start = before + negatives;
    count as f64 - negatives * (count as f64 / start).ln_1p()
}

impl Area {
    /// The mean area, and the mean of the errors; `None` over nothing.
    pub(super) fn mean(areas: &[Self]) -> Option<Self> {
        let over = |of: fn(&Self) -> f64| mean(areas.iter().map(of));
        (!areas.is_empty()).then(|| Self { value: over(|area| area.value), error: over(|area| area.error) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_least_precision_is_at_most_the_sum_and_close_to_it(
            before in 0u64..1000,
            negatives in 0u64..1000,
            count in 1u64..2000,
        ) {
            let (before, negatives) = (before as f64, negatives as f64);
            let reached = (1..=count).map(|j| before + j as f64);
            let sum: f64 = reached.map(|reached| reached / (reached + negatives)).sum();
            let least = least_precision(before, negatives, count);
            // The logarithm is off by less than the first term that it adds up, which is at most 1.
            prop_assert!(least <= sum + 1e-9 && sum - least < 1.0, "{least} {sum}");
        }
    }
}
