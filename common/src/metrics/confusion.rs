//! A confusion matrix, and the coefficients of agreement that are read off it in exact integers.

use super::ratios::{Tally, mean, ratio};

/// True label by predicted label.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confusion<'a> {
    num_labels: usize,
    cells: &'a [u64],
}

impl<'a> Confusion<'a> {
    /// `cells` has `num_labels` rows of `num_labels`.
    pub(super) fn new(num_labels: usize, cells: &'a [u64]) -> Self {
        Self { num_labels, cells }
    }

    /// How the examples of each label were predicted.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = &'a [u64]> {
        // At least 1, which a matrix without labels needs.
        self.cells.chunks(self.num_labels.max(1))
    }

    /// Examples of a label.
    pub(super) fn support(&self, label: usize) -> u64 {
        self.cells.iter().skip(label * self.num_labels).take(self.num_labels).sum()
    }

    fn predicted(&self, label: usize) -> u64 {
        self.cells.iter().skip(label).step_by(self.num_labels.max(1)).sum()
    }

    /// Right predictions.
    pub(super) fn right(&self) -> u64 {
        self.cells.iter().step_by(self.num_labels + 1).sum()
    }

    fn total(&self) -> u64 {
        self.cells.iter().sum()
    }

    /// Each label against the rest.
    pub(super) fn tallies(&self) -> Vec<Tally> {
        let tally = |label: usize| Tally {
            right: self.cells[label * self.num_labels + label],
            predicted: self.predicted(label),
            support: self.support(label),
        };
        (0..self.num_labels).map(tally).collect()
    }

    /// Share of right predictions.
    pub(super) fn accuracy(&self) -> f64 {
        ratio(self.right(), self.total())
    }

    /// Mean recall over the labels that have examples.
    pub(super) fn balanced_accuracy(&self) -> f64 {
        let tallies = self.tallies();
        mean(tallies.iter().filter(|tally| tally.support > 0).map(Tally::recall))
    }

    /// Matthews' correlation coefficient (Gorodkin 2004), in [-1, 1]; 0 where either side has one label only.
    pub(super) fn mcc(&self) -> f64 {
        let agreement = self.agreement();
        let spread = |sum: u128| agreement.pairs.saturating_sub(sum) as f64;
        let product = spread(agreement.predicted) * spread(agreement.actual);
        if product > 0.0 { agreement.excess() / product.sqrt() } else { 0.0 }
    }

    /// Cohen's kappa, in [-1, 1]; 0 where agreement by chance is certain.
    pub(super) fn kappa(&self) -> f64 {
        let agreement = self.agreement();
        let left = agreement.pairs.saturating_sub(agreement.chance);
        if left > 0 { agreement.excess() / left as f64 } else { 0.0 }
    }

    fn agreement(&self) -> Agreement {
        let total = u128::from(self.total());
        let tallies = self.tallies();
        let sum = |of: fn(&Tally) -> (u64, u64)| -> u128 {
            tallies.iter().map(of).map(|(a, b)| u128::from(a) * u128::from(b)).sum()
        };
        Agreement {
            pairs: total * total,
            right: u128::from(self.right()) * total,
            chance: sum(|tally| (tally.support, tally.predicted)),
            predicted: sum(|tally| (tally.predicted, tally.predicted)),
            actual: sum(|tally| (tally.support, tally.support)),
        }
    }
}

/// Products of counts. The total of a matrix fits 64 bits, so these fit 128.
struct Agreement {
    /// The total, squared.
    pairs: u128,
    /// Right predictions times the total.
    right: u128,
    /// The same, were the predictions independent of the truth.
    chance: u128,
    /// Sum of the squared numbers of predictions of each label.
    predicted: u128,
    /// Sum of the squared numbers of examples of each label.
    actual: u128,
}

impl Agreement {
    /// What is right beyond chance.
    fn excess(&self) -> f64 {
        let size = self.right.abs_diff(self.chance) as f64;
        if self.right < self.chance { -size } else { size }
    }
}
