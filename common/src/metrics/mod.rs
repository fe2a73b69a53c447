//! Metrics that can be pooled over sites without losing anything: integer counts, merged by addition.
//!
//! A pooled metric is computed from the merged counts, as if all examples lay in one place. It is never an
//! average of the sites' metrics. [`Counts`] is what a site sends, [`Report`] is what is read off counts. The
//! report of merged counts is bit for bit the report of the same examples counted together; against metrics
//! computed from the raw predictions, everything is exact but two numbers: the loss, which is rounded per
//! example to 2^-40 nats, and ROC AUC, whose error [`Counts::roc_auc_error`] bounds.

mod counts;
mod histogram;
mod report;
mod slots;
#[cfg(test)]
mod tests;

pub use counts::{Counts, EXAMPLES_MAX, LOSS_MAX, Mismatch, Unsound};
pub use report::{ClassReport, Report};
