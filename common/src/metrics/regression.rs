//! The counts of a model of a number, in fixed point. What is counted is standardised by the run's
//! [`Scale`](super::Scale), so that the fixed point suits metres and millimetres alike.

use serde::{Deserialize, Serialize};

use super::counts::Unsound;
use super::fixed::{EXAMPLES_MAX, SITES_MAX, fits, fixed};

/// A target or an error counts as at most so many standard deviations.
pub const DEVIATIONS_MAX: f64 = 1024.0;

/// Units of a standardised number: 2^-28.
pub(super) const DEVIATION_UNITS: u128 = 1 << 28;

/// Most of an error.
const ERROR_FIXED: u128 = DEVIATIONS_MAX as u128 * DEVIATION_UNITS;

/// Most of a target, which is counted from `-DEVIATIONS_MAX` on so that it is not negative.
const TARGET_FIXED: u128 = 2 * ERROR_FIXED;

/// Limbs of a sum and of a sum of squares.
pub(super) const SUM_LIMBS: usize = 2;
pub(super) const SQUARES_LIMBS: usize = 3;

const _: () = assert!(fits(TARGET_FIXED * EXAMPLES_MAX as u128, SUM_LIMBS as u32));
const _: () = assert!(fits(TARGET_FIXED * TARGET_FIXED * EXAMPLES_MAX as u128, SQUARES_LIMBS as u32));
const _: () = assert!(TARGET_FIXED * TARGET_FIXED <= u128::MAX / (EXAMPLES_MAX as u128 * SITES_MAX as u128));

/// Counts over examples that have a number each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regression {
    /// Examples.
    pub(super) examples: u64,
    /// Sum of the errors' magnitudes, in units of 2^-28 standard deviations.
    pub(super) errors: u128,
    /// Sum of their squares, in units of 2^-56.
    pub(super) squared_errors: u128,
    /// Sum of the targets, counted from -1024 on, in units of 2^-28 standard deviations.
    pub(super) targets: u128,
    /// Sum of their squares, in units of 2^-56.
    pub(super) squared_targets: u128,
}

impl Regression {
    /// Counts one example. Both numbers are standardised ([`Scale::standardised`](super::Scale::standardised)).
    ///
    /// What is not a number counts as [`DEVIATIONS_MAX`], so that a model that diverged has a metric too: a bad one.
    pub fn observe(&mut self, target: f64, prediction: f64) {
        let error = fixed(bounded((prediction - target).abs()), DEVIATION_UNITS);
        let target = fixed(bounded(target) + DEVIATIONS_MAX, DEVIATION_UNITS);
        self.examples += 1;
        self.errors += error;
        self.squared_errors += error * error;
        self.targets += target;
        self.squared_targets += target * target;
    }

    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        Some(Self {
            examples: self.examples.checked_add(other.examples)?,
            errors: self.errors.checked_add(other.errors)?,
            squared_errors: self.squared_errors.checked_add(other.squared_errors)?,
            targets: self.targets.checked_add(other.targets)?,
            squared_targets: self.squared_targets.checked_add(other.squared_targets)?,
        })
    }

    pub(super) fn num_examples(&self) -> u64 {
        self.examples
    }

    pub(super) fn is_sound(&self, most: u64) -> Result<(), Unsound> {
        if self.examples > most {
            return Err(Unsound::TooMany);
        }
        let at_most = |sum: u128, each: u128, name| {
            let most = u128::from(self.examples).saturating_mul(each);
            if sum > most { Err(Unsound::Sum(name)) } else { Ok(()) }
        };
        at_most(self.errors, ERROR_FIXED, "sum of the errors")?;
        at_most(self.squared_errors, ERROR_FIXED * ERROR_FIXED, "sum of the squared errors")?;
        at_most(self.targets, TARGET_FIXED, "sum of the targets")?;
        at_most(self.squared_targets, TARGET_FIXED * TARGET_FIXED, "sum of the squared targets")?;
        self.squared_deviations().map(|_| ()).ok_or(Unsound::Sum("spread of the targets"))
    }

    /// Mean magnitude of the errors, in standard deviations; 0 without examples.
    pub(super) fn mean_error(&self) -> f64 {
        self.errors as f64 / DEVIATION_UNITS as f64 / self.examples.max(1) as f64
    }

    /// Mean of the squared errors, in squared standard deviations; 0 without examples.
    pub(super) fn mean_squared_error(&self) -> f64 {
        self.squared_errors as f64 / (DEVIATION_UNITS * DEVIATION_UNITS) as f64 / self.examples.max(1) as f64
    }

    /// The coefficient of determination, at most 1: `1 - sum of squared errors / sum of squared deviations of the
    /// targets from their mean`. `None` with fewer than two examples; where all targets are equal, 1 when all
    /// predictions are right and 0 otherwise, as scikit-learn has it.
    pub(super) fn r2(&self) -> Option<f64> {
        if self.examples < 2 {
            return None;
        }
        let spread = self.squared_deviations()?;
        if spread > 0.0 {
            return Some(1.0 - self.squared_errors as f64 / spread);
        }
        Some(if self.squared_errors == 0 { 1.0 } else { 0.0 })
    }

    /// Sum of the squared deviations of the targets from their mean, in units of 2^-56; `None` when no targets have
    /// such sums.
    ///
    /// With `targets = n * m + r` it is `squared_targets - n * m^2 - 2 * m * r - r^2 / n`: integers but for the last
    /// term, so that nothing is lost where the mean is large against the deviations.
    fn squared_deviations(&self) -> Option<f64> {
        let n = u128::from(self.examples.max(1));
        let (mean, rest) = (self.targets / n, self.targets % n);
        let of_mean = n.checked_mul(mean.checked_mul(mean)?)?;
        let mixed = rest.checked_mul(mean.checked_mul(2)?)?;
        let whole = self.squared_targets.checked_sub(of_mean.checked_add(mixed)?)?;
        let part = (rest as f64).powi(2) / n as f64;
        (whole as f64 >= part).then_some(whole as f64 - part)
    }
}

fn bounded(value: f64) -> f64 {
    if value.is_nan() { DEVIATIONS_MAX } else { value.clamp(-DEVIATIONS_MAX, DEVIATIONS_MAX) }
}
