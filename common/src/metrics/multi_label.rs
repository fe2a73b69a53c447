//! The counts of a classifier that gives an example any number of labels: each label is a question of its own.

use serde::{Deserialize, Serialize};

use super::classification::{LOSS_FIXED, fixed_loss, zip_with};
use super::counts::{Mismatch, Unsound};
use super::curves::Scores;
use super::fixed::UNITS;
use super::histogram::num_bins;
use super::ratios::Tally;

/// Counts over examples that have any number of labels each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultiLabel {
    /// Examples.
    pub(super) examples: u64,
    /// Examples whose labels were all predicted, and no others.
    pub(super) exact: u64,
    /// Sum over the examples of the mean over labels of the binary cross-entropy, in units of 2^-40 nats.
    pub(super) loss: u128,
    /// Each label.
    pub(super) labels: Vec<Label>,
}

/// One label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// Right predictions of it.
    pub(super) right: u64,
    /// Wrong predictions of it.
    pub(super) wrong: u64,
    /// Its scores where it is true and where it is not.
    pub(super) scores: Scores,
}

impl MultiLabel {
    /// Nothing counted yet over `num_labels` labels.
    pub fn new(num_labels: usize) -> Self {
        Self { examples: 0, exact: 0, loss: 0, labels: vec![Label::default(); num_labels] }
    }

    /// Counts one example: whether it has each label, and what the model gave for it (before the sigmoid).
    ///
    /// A label is predicted where its logit is above 0, its probability above 1/2. A NaN counts as minus infinity.
    ///
    /// # Panics
    /// When the number of labels or logits does not fit.
    pub fn observe(&mut self, truth: &[bool], logits: &[f32]) {
        let n = self.labels.len();
        assert!(
            truth.len() == n && logits.len() == n,
            "{} labels and {} logits for {n} labels",
            truth.len(),
            logits.len()
        );
        let (mut exact, mut loss) = (true, 0.0);
        for (label, (truth, logit)) in self.labels.iter_mut().zip(truth.iter().zip(logits)) {
            let logit = if logit.is_nan() { f64::NEG_INFINITY } else { f64::from(*logit) };
            let predicted = logit > 0.0;
            label.right += u64::from(predicted && *truth);
            label.wrong += u64::from(predicted && !truth);
            label.scores.observe(logit, *truth, num_bins(n));
            exact &= predicted == *truth;
            loss += softplus(if *truth { -logit } else { logit });
        }
        self.examples += 1;
        self.exact += u64::from(exact);
        self.loss += fixed_loss(loss / n.max(1) as f64);
    }

    pub(super) fn merged(&self, other: &Self) -> Result<Self, Mismatch> {
        if self.labels.len() != other.labels.len() {
            return Err(Mismatch::Labels(other.labels.len(), self.labels.len()));
        }
        self.sum(other).ok_or(Mismatch::Overflow)
    }

    fn sum(&self, other: &Self) -> Option<Self> {
        Some(Self {
            examples: self.examples.checked_add(other.examples)?,
            exact: self.exact.checked_add(other.exact)?,
            loss: self.loss.checked_add(other.loss)?,
            labels: zip_with(&self.labels, &other.labels, |a, b| {
                Some(Label {
                    right: a.right.checked_add(b.right)?,
                    wrong: a.wrong.checked_add(b.wrong)?,
                    scores: a.scores.merged(&b.scores)?,
                })
            })?,
        })
    }

    pub(super) fn num_examples(&self) -> u64 {
        self.examples
    }

    pub(super) fn is_sound(&self, num_labels: usize, most: u64) -> Result<(), Unsound> {
        if self.labels.len() != num_labels {
            return Err(Unsound::Labels(num_labels));
        }
        if self.examples > most {
            return Err(Unsound::TooMany);
        }
        if self.exact > self.examples {
            return Err(Unsound::Sum("number of examples that are right in every label"));
        }
        if self.loss > u128::from(self.examples) * LOSS_FIXED {
            return Err(Unsound::Sum("loss"));
        }
        for (at, label) in self.labels.iter().enumerate() {
            let positives = label.scores.positives.total().filter(|count| *count <= self.examples);
            let positives = positives.ok_or(Unsound::Histogram(at))?;
            let negatives = self.examples - positives;
            if !label.scores.is_sound(positives, negatives, num_bins(num_labels))
                || label.right > positives
                || label.wrong > negatives
            {
                return Err(Unsound::Histogram(at));
            }
        }
        Ok(())
    }

    /// Mean binary cross-entropy in nats; 0 without examples.
    pub(super) fn mean_loss(&self) -> f64 {
        self.loss as f64 / UNITS as f64 / self.examples.max(1) as f64
    }

    /// The scores of all labels together.
    pub(super) fn all_scores(&self) -> Option<Scores> {
        self.labels.iter().try_fold(Scores::default(), |all, label| all.merged(&label.scores))
    }
}

impl Label {
    pub(super) fn tally(&self) -> Tally {
        Tally {
            right: self.right,
            predicted: self.right.saturating_add(self.wrong),
            support: self.scores.positives.total().unwrap_or(u64::MAX),
        }
    }
}

/// `log (1 + e^z)`, without overflow.
fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}
