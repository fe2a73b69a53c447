//! Mixup (Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"), as in its authors' code: one share for a batch,
//! each example with another of it, and the loss of what both have in these shares.

use rand::RngExt;
use rand::seq::SliceRandom;
use rand_distr::Beta;
use sheaf_common::seed;
use tch::{TchError, Tensor};

/// Which examples of a batch are mixed, and how much of each.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::trainer::torch) struct Mix {
    /// Of an example itself, in [0, 1]; its partner has the rest.
    pub(in crate::trainer::torch) share: f64,
    /// The place in the batch of each example's partner: every example is one's partner once.
    pub(in crate::trainer::torch) partners: Vec<usize>,
}

impl Mix {
    /// Draws for a batch of `examples` whose seed is this; `None` when `alpha` is not above 0.
    pub(super) fn draw(alpha: f64, examples: usize, seed: i64) -> Option<Self> {
        let beta = Beta::new(alpha, alpha).ok()?;
        let mut random = seed::stream(seed as u64, &["mixup"]);
        let share: f64 = random.sample(beta);
        let mut partners: Vec<usize> = (0..examples).collect();
        partners.shuffle(&mut random);
        // Of an alpha that is almost 0 the share is 0 or 1, and rounding may have lost which.
        Some(Self { share: if share.is_finite() { share.clamp(0.0, 1.0) } else { 1.0 }, partners })
    }

    /// The batch, `[examples, ...]`, mixed.
    pub(super) fn apply(&self, values: &Tensor) -> Result<Tensor, TchError> {
        let places: Vec<i64> = self.partners.iter().map(|place| *place as i64).collect();
        let others = values.f_index_select(0, &Tensor::f_from_slice(&places)?.f_to(values.device())?)?;
        values.f_mul_scalar(self.share)?.f_add(&others.f_mul_scalar(1.0 - self.share)?)
    }
}
