//! What a site counts over its validation split: integers only, so that adding them up is exact and the order
//! does not matter.

use serde::{Deserialize, Serialize};

use super::histogram::{Histogram, num_bins, roc_auc, roc_auc_error};
use super::report::{Report, report};

/// Most examples behind one site's counts. It keeps every sum over sites far from overflow.
pub const EXAMPLES_MAX: u64 = 1 << 40;

/// The loss of one example counts as at most this many nats.
pub const LOSS_MAX: f64 = 1024.0;

/// Units of the fixed-point loss per nat.
const LOSS_UNITS: f64 = (1u64 << 40) as f64;

/// What a site sends: counts over its validation split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Confusion matrix, row-major: true label by predicted label.
    pub(super) confusion: Vec<u64>,
    /// Sum of the cross-entropy in units of 2^-40 nats.
    pub(super) loss: u128,
    /// One-vs-rest scores of each class.
    pub(super) scores: Vec<ClassScores>,
}

/// The one-vs-rest scores of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClassScores {
    /// Over the examples of the class.
    pub(super) positives: Histogram,
    /// Over the others.
    pub(super) negatives: Histogram,
}

/// Two sites' counts cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// They count different numbers of classes.
    #[error("counts over {0} labels cannot be added to counts over {1}")]
    Labels(usize, usize),
    /// A sum does not fit 64 bits.
    #[error("the sum of the counts overflows")]
    Overflow,
}

/// Counts from the network are no counts of anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// The confusion matrix or the list of classes has the wrong size.
    #[error("the metrics are not over the run's {0} labels")]
    Labels(usize),
    /// More than [`EXAMPLES_MAX`].
    #[error("the metrics claim more than {EXAMPLES_MAX} examples")]
    TooMany,
    /// A histogram has a bin that does not exist or is empty, or another total than the confusion matrix.
    #[error("the score histograms of label {0} contradict the confusion matrix")]
    Histogram(usize),
    /// The loss is more than so many examples can have.
    #[error("the summed loss is larger than so many examples can have")]
    Loss,
}

impl Counts {
    /// Nothing counted yet over `num_labels` classes.
    pub fn new(num_labels: usize) -> Self {
        Self {
            confusion: vec![0; num_labels * num_labels],
            loss: 0,
            scores: vec![ClassScores::default(); num_labels],
        }
    }

    /// Counts one example of class `label`, for which the model gave `logits` (one per class, before
    /// softmax).
    ///
    /// The prediction is the first largest logit. A NaN counts as minus infinity, so that a model that
    /// diverged has a metric too: a bad one.
    ///
    /// # Panics
    /// When `label` or the number of logits does not fit the number of classes.
    pub fn observe(&mut self, label: usize, logits: &[f32]) {
        let n = self.num_labels();
        assert!(label < n && logits.len() == n, "label {label} and {} logits for {n} classes", logits.len());
        let logits: Vec<f64> =
            logits.iter().map(|z| if z.is_nan() { f64::NEG_INFINITY } else { f64::from(*z) }).collect();
        self.confusion[label * n + argmax(&logits)] += 1;
        self.loss += fixed_loss(label, &logits);
        let bins = num_bins(n);
        for (class, scores) in self.scores.iter_mut().enumerate() {
            let side = if class == label { &mut scores.positives } else { &mut scores.negatives };
            side.observe(one_vs_rest(class, &logits), bins);
        }
    }

    /// Adds another site's counts. On an error nothing was added.
    pub fn merge(&mut self, other: &Self) -> Result<(), Mismatch> {
        if self.num_labels() != other.num_labels() || self.confusion.len() != other.confusion.len() {
            return Err(Mismatch::Labels(other.num_labels(), self.num_labels()));
        }
        *self = self.merged(other).ok_or(Mismatch::Overflow)?;
        Ok(())
    }

    fn merged(&self, other: &Self) -> Option<Self> {
        let merged = Self {
            confusion: zip_with(&self.confusion, &other.confusion, |a, b| a.checked_add(*b))?,
            loss: self.loss.checked_add(other.loss)?,
            scores: zip_with(&self.scores, &other.scores, |a, b| {
                Some(ClassScores {
                    positives: a.positives.merged(&b.positives)?,
                    negatives: a.negatives.merged(&b.negatives)?,
                })
            })?,
        };
        merged.confusion.iter().try_fold(0u64, |sum, count| sum.checked_add(*count))?;
        Some(merged)
    }

    /// Number of examples counted.
    pub fn num_examples(&self) -> u64 {
        self.confusion.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Number of classes.
    pub fn num_labels(&self) -> usize {
        self.scores.len()
    }

    /// Whether counts that came from the network can be counts over `num_labels` classes. Only such counts
    /// may be merged and reported on.
    pub fn is_sound(&self, num_labels: usize) -> Result<(), Unsound> {
        if self.scores.len() != num_labels || self.confusion.len() != num_labels * num_labels {
            return Err(Unsound::Labels(num_labels));
        }
        let total = self.num_examples();
        if total > EXAMPLES_MAX {
            return Err(Unsound::TooMany);
        }
        if self.loss > u128::from(total) * (LOSS_MAX * LOSS_UNITS) as u128 {
            return Err(Unsound::Loss);
        }
        for (label, scores) in self.scores.iter().enumerate() {
            // Within `total`, so none of these sums overflows.
            let support: u64 = self.row(label).iter().sum();
            if !scores.is_sound(support, total - support, num_bins(num_labels)) {
                return Err(Unsound::Histogram(label));
            }
        }
        Ok(())
    }

    /// The metrics, with classes named by `labels` in the order of the model's outputs.
    pub fn report(&self, labels: &[String]) -> Report {
        report(self, labels)
    }

    /// ROC AUC of one class against the rest; `None` when all or none of the examples are of it.
    pub fn roc_auc(&self, class: usize) -> Option<f64> {
        self.scores.get(class).and_then(|scores| roc_auc(&scores.positives, &scores.negatives))
    }

    /// The most by which [`roc_auc`](Self::roc_auc) can differ from the value computed from the raw scores:
    /// half the share of pairs (positive, negative) that share a bin, `sum_b pos_b * neg_b / (2 * P * N)`.
    pub fn roc_auc_error(&self, class: usize) -> Option<f64> {
        self.scores.get(class).and_then(|scores| roc_auc_error(&scores.positives, &scores.negatives))
    }

    /// Mean cross-entropy in nats; 0 without examples.
    pub(super) fn mean_loss(&self) -> f64 {
        self.loss as f64 / LOSS_UNITS / self.num_examples().max(1) as f64
    }

    /// How the examples of class `label` were predicted.
    pub(super) fn row(&self, label: usize) -> &[u64] {
        let n = self.num_labels();
        &self.confusion[label * n..(label + 1) * n]
    }
}

impl ClassScores {
    fn is_sound(&self, positives: u64, negatives: u64, bins: u16) -> bool {
        self.positives.is_sound(bins)
            && self.negatives.is_sound(bins)
            && self.positives.total() == Some(positives)
            && self.negatives.total() == Some(negatives)
    }
}

fn zip_with<T>(a: &[T], b: &[T], f: impl Fn(&T, &T) -> Option<T>) -> Option<Vec<T>> {
    a.iter().zip(b).map(|(a, b)| f(a, b)).collect()
}

/// The first largest; 0 when nothing is larger than minus infinity.
fn argmax(logits: &[f64]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

/// Cross-entropy of softmax in fixed point; what is not a number counts as [`LOSS_MAX`].
fn fixed_loss(label: usize, logits: &[f64]) -> u128 {
    let loss = log_sum_exp(logits.iter().copied()) - logits[label];
    let bounded = if loss.is_nan() { LOSS_MAX } else { loss.clamp(0.0, LOSS_MAX) };
    (bounded * LOSS_UNITS).round() as u128
}

/// The logit of `class` against all others, `log p - log (1 - p)` with `p` its softmax probability.
pub(super) fn one_vs_rest(class: usize, logits: &[f64]) -> f64 {
    let rest = logits.iter().enumerate().filter(|(index, _)| *index != class).map(|(_, z)| *z);
    logits[class] - log_sum_exp(rest)
}

/// `log sum exp`, without overflow; minus infinity over nothing.
fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if most.is_infinite() {
        return most;
    }
    most + values.map(|value| (value - most).exp()).sum::<f64>().ln()
}
