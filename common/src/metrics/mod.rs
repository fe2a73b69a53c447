//! Metrics that can be pooled over sites without losing anything: integer counts, merged by addition.
//!
//! A pooled metric is computed from the merged counts, as if all examples lay in one place. It is never an
//! average of the sites' metrics. [`Kind`] says what a task counts, [`Counts`] is what a site sends, [`Report`] is
//! what is read off counts. The report of merged counts is bit for bit the report of the same examples counted
//! together. Against metrics computed from the raw predictions ratios of counts are exact, sums
//! of real numbers are rounded per example to a fixed point (`fixed`), and the areas under the ROC and the
//! precision-recall curve are of binned scores, each with a bound on what that costs (`curves`).
//!
//! Read in this order: `kind`, `counts`; the counts of each kind of task (`classification` with `calibration`,
//! `multi_label`, `regression`, `language`) and of what sites hold (`survey`); `histogram` and `curves`; `confusion` and `ratios`; `report`; `slots`.

mod calibration;
mod classification;
mod confusion;
mod counts;
mod curves;
mod fixed;
mod histogram;
mod kind;
mod language;
mod multi_label;
mod ratios;
mod regression;
mod report;
mod slots;
mod survey;
#[cfg(test)]
mod tests;

pub use classification::{Classification, LOSS_MAX};
pub use counts::{Counts, Mismatch, Unsound};
pub use fixed::{EXAMPLES_MAX, SITES_MAX};
pub use kind::{Asked, Asks, Kind, Occurs, Scale};
pub use language::Language;
pub use multi_label::MultiLabel;
pub use regression::{DEVIATIONS_MAX, Regression};
pub use report::{
    CalibrationReport, ClassReport, ClassificationReport, ColumnReport, Figure, LanguageReport,
    MultiLabelReport, NumberReport, RegressionReport, Report, SurveyReport, WordReport,
};
pub use survey::{Survey, VALUE_MAX, Value};
