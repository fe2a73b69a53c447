//! The report on a model of a number.

use serde::{Deserialize, Serialize};

use crate::metrics::kind::{Kind, Scale};
use crate::metrics::regression::Regression;

/// The metrics of a model of a number; errors are in the target's unit, from 0 on, and less is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegressionReport {
    /// Examples counted.
    pub num_examples: u64,
    /// Mean magnitude of the errors.
    pub mae: f64,
    /// Root of the mean squared error.
    pub rmse: f64,
    /// The share of the targets' variance that is explained, at most 1; more is better. `None` with fewer than two
    /// examples. Where all targets are equal it is 1 if all predictions are right and 0 if not.
    pub r2: Option<f64>,
}

pub(super) fn report(counts: &Regression, kind: &Kind) -> RegressionReport {
    // Counts that were checked against their kind are never of another.
    let std = match kind {
        Kind::Regression { target: Scale { std, .. } } => *std,
        Kind::Classification { .. } | Kind::MultiLabel { .. } | Kind::Language | Kind::Survey { .. } => 1.0,
    };
    RegressionReport {
        num_examples: counts.examples,
        mae: std * counts.mean_error(),
        rmse: std * counts.mean_squared_error().sqrt(),
        r2: counts.r2(),
    }
}
