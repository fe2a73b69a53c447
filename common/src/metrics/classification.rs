//! The counts of a classifier: who was taken for whom, how far off the probabilities were, and how often each
//! score occurred.

use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::confusion::Confusion;
use super::counts::{Mismatch, Unsound};
use super::curves::Scores;
use super::fixed::{EXAMPLES_MAX, UNITS, fits, fixed};
use super::histogram::num_bins;

/// The loss of one example (of one token, of one label) counts as at most this many nats.
pub const LOSS_MAX: f64 = 1024.0;

/// [`LOSS_MAX`] in fixed point.
pub(super) const LOSS_FIXED: u128 = LOSS_MAX as u128 * UNITS;

/// The most that the squared differences between probabilities and truth of one example can sum up to.
const SQUARES_FIXED: u128 = 2 * UNITS;

/// Limbs of the summed loss and of the summed squares.
pub(super) const SUM_LIMBS: usize = 2;

const _: () = assert!(fits(LOSS_FIXED * EXAMPLES_MAX as u128, SUM_LIMBS as u32));
const _: () = assert!(fits(SQUARES_FIXED * EXAMPLES_MAX as u128, SUM_LIMBS as u32));

/// Counts over examples that have one label each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classification {
    /// Confusion matrix, row-major: true label by predicted label.
    pub(super) confusion: Vec<u64>,
    /// Sum of the cross-entropy, in units of 2^-40 nats.
    pub(super) loss: u128,
    /// Sum over examples and classes of the squared difference between probability and truth, in units of 2^-40.
    pub(super) squares: u128,
    /// How often a confidence was right.
    pub(super) calibration: Calibration,
    /// One-vs-rest scores of each class.
    pub(super) scores: Vec<Scores>,
}

impl Classification {
    /// Nothing counted yet over `num_labels` classes.
    pub fn new(num_labels: usize) -> Self {
        Self {
            confusion: vec![0; num_labels * num_labels],
            loss: 0,
            squares: 0,
            calibration: Calibration::default(),
            scores: vec![Scores::default(); num_labels],
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
        let predicted = argmax(&logits);
        let probabilities = softmax(&logits);
        self.confusion[label * n + predicted] += 1;
        self.loss += fixed_loss(log_sum_exp(logits.iter().copied()) - logits[label]);
        self.squares += squares(label, &probabilities).min(SQUARES_FIXED);
        self.calibration.observe(probabilities[predicted], predicted == label);
        let bins = num_bins(n);
        for (class, scores) in self.scores.iter_mut().enumerate() {
            scores.observe(one_vs_rest(class, &logits), class == label, bins);
        }
    }

    pub(super) fn merged(&self, other: &Self) -> Result<Self, Mismatch> {
        if self.num_labels() != other.num_labels() || self.confusion.len() != other.confusion.len() {
            return Err(Mismatch::Labels(other.num_labels(), self.num_labels()));
        }
        self.sum(other).ok_or(Mismatch::Overflow)
    }

    fn sum(&self, other: &Self) -> Option<Self> {
        let sum = Self {
            confusion: zip_with(&self.confusion, &other.confusion, |a, b| a.checked_add(*b))?,
            loss: self.loss.checked_add(other.loss)?,
            squares: self.squares.checked_add(other.squares)?,
            calibration: self.calibration.merged(&other.calibration)?,
            scores: zip_with(&self.scores, &other.scores, Scores::merged)?,
        };
        sum.confusion.iter().try_fold(0u64, |sum, count| sum.checked_add(*count))?;
        Some(sum)
    }

    pub(super) fn num_examples(&self) -> u64 {
        self.confusion.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Number of classes.
    pub fn num_labels(&self) -> usize {
        self.scores.len()
    }

    pub(super) fn confusion(&self) -> Confusion<'_> {
        Confusion::new(self.num_labels(), &self.confusion)
    }

    pub(super) fn is_sound(&self, num_labels: usize, most: u64) -> Result<(), Unsound> {
        if self.scores.len() != num_labels || self.confusion.len() != num_labels * num_labels {
            return Err(Unsound::Labels(num_labels));
        }
        let total = self.num_examples();
        if total > most {
            return Err(Unsound::TooMany);
        }
        if self.loss > u128::from(total) * LOSS_FIXED {
            return Err(Unsound::Sum("loss"));
        }
        if self.squares > u128::from(total) * SQUARES_FIXED {
            return Err(Unsound::Sum("sum of squared differences"));
        }
        // Within `total`, so none of the sums below overflows.
        let confusion = self.confusion();
        self.calibration.is_sound(total, confusion.right())?;
        for (label, scores) in self.scores.iter().enumerate() {
            let support = confusion.support(label);
            if !scores.is_sound(support, total - support, num_bins(num_labels)) {
                return Err(Unsound::Histogram(label));
            }
        }
        Ok(())
    }

    /// Mean cross-entropy in nats; 0 without examples.
    pub(super) fn mean_loss(&self) -> f64 {
        self.loss as f64 / UNITS as f64 / self.num_examples().max(1) as f64
    }

    /// Mean over the examples of the squared differences; 0 without examples.
    pub(super) fn mean_squares(&self) -> f64 {
        self.squares as f64 / UNITS as f64 / self.num_examples().max(1) as f64
    }
}

pub(super) fn zip_with<T>(a: &[T], b: &[T], f: impl Fn(&T, &T) -> Option<T>) -> Option<Vec<T>> {
    a.iter().zip(b).map(|(a, b)| f(a, b)).collect()
}

/// A loss in fixed point; what is not a number counts as [`LOSS_MAX`].
pub(super) fn fixed_loss(loss: f64) -> u128 {
    let bounded = if loss.is_nan() { LOSS_MAX } else { loss.clamp(0.0, LOSS_MAX) };
    fixed(bounded, UNITS)
}

/// The logit of `class` against all others, `log p - log (1 - p)` with `p` its softmax probability.
pub(super) fn one_vs_rest(class: usize, logits: &[f64]) -> f64 {
    let rest = logits.iter().enumerate().filter(|(index, _)| *index != class).map(|(_, z)| *z);
    logits[class] - log_sum_exp(rest)
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

/// The probabilities; one that is not a number counts as 0.
fn softmax(logits: &[f64]) -> Vec<f64> {
    let whole = log_sum_exp(logits.iter().copied());
    let probability = |z: &f64| Some((z - whole).exp()).filter(|p| p.is_finite()).unwrap_or(0.0);
    logits.iter().map(probability).collect()
}

fn squares(label: usize, probabilities: &[f64]) -> u128 {
    let truth = |class: usize| f64::from(u8::from(class == label));
    fixed(probabilities.iter().enumerate().map(|(class, p)| (p - truth(class)).powi(2)).sum(), UNITS)
}

/// `log sum exp`, without overflow; minus infinity over nothing.
fn log_sum_exp(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
    if most.is_infinite() {
        return most;
    }
    most + values.map(|value| (value - most).exp()).sum::<f64>().ln()
}
