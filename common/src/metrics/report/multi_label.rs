//! The report on a classifier that gives any number of labels.

use serde::{Deserialize, Serialize};

use super::{ClassReport, mean_area, per_class};
use crate::metrics::multi_label::MultiLabel;
use crate::metrics::ratios::{Averages, Tally, ratio};

/// The metrics of a classifier that gives any number of labels. Where nothing else is said, a metric lies in [0, 1]
/// and more is better. The averages are over all labels, as scikit-learn takes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelReport {
    /// Examples counted.
    pub num_examples: u64,
    /// Mean binary cross-entropy over examples and labels in nats, from 0 on; less is better.
    pub loss: f64,
    /// Share of the examples that are right in every label (subset accuracy).
    pub accuracy: f64,
    /// Precision over all labels together.
    pub micro_precision: f64,
    /// Recall over all labels together.
    pub micro_recall: f64,
    /// F1 over all labels together.
    pub micro_f1: f64,
    /// Mean precision over labels.
    pub macro_precision: f64,
    /// Mean recall over labels.
    pub macro_recall: f64,
    /// Mean F1 over labels.
    pub macro_f1: f64,
    /// Mean precision over labels, weighted by their examples.
    pub weighted_precision: f64,
    /// Mean recall over labels, weighted by their examples.
    pub weighted_recall: f64,
    /// Mean F1 over labels, weighted by their examples.
    pub weighted_f1: f64,
    /// Mean area under the ROC curve over the labels that have one; `None` when no label has.
    pub roc_auc: Option<f64>,
    /// The most by which binning can have changed `roc_auc`.
    pub roc_auc_error: Option<f64>,
    /// Area under the ROC curve of all scores of all labels together.
    pub micro_roc_auc: Option<f64>,
    /// The most by which binning can have changed `micro_roc_auc`.
    pub micro_roc_auc_error: Option<f64>,
    /// Mean average precision over the labels that have examples.
    pub pr_auc: Option<f64>,
    /// The most by which binning can have changed `pr_auc`.
    pub pr_auc_error: Option<f64>,
    /// Each label, in the order of the model's outputs.
    pub per_class: Vec<ClassReport>,
}

pub(super) fn report(counts: &MultiLabel, labels: &[String]) -> MultiLabelReport {
    let tallies: Vec<Tally> = counts.labels.iter().map(|label| label.tally()).collect();
    let Averages { micro, macro_, weighted } = Averages::of(&tallies);
    let scores = counts.labels.iter().map(|label| &label.scores);
    let (per_class, curves) = per_class(labels, tallies.into_iter().zip(scores));
    let (roc_auc, pr_auc) = (mean_area(&curves.roc), mean_area(&curves.pr));
    let micro_roc_auc = counts.all_scores().and_then(|scores| scores.roc_auc());
    MultiLabelReport {
        num_examples: counts.examples,
        loss: counts.mean_loss(),
        accuracy: ratio(counts.exact, counts.examples),
        micro_precision: micro.precision,
        micro_recall: micro.recall,
        micro_f1: micro.f1,
        macro_precision: macro_.precision,
        macro_recall: macro_.recall,
        macro_f1: macro_.f1,
        weighted_precision: weighted.precision,
        weighted_recall: weighted.recall,
        weighted_f1: weighted.f1,
        roc_auc: roc_auc.map(|area| area.value),
        roc_auc_error: roc_auc.map(|area| area.error),
        micro_roc_auc: micro_roc_auc.map(|area| area.value),
        micro_roc_auc_error: micro_roc_auc.map(|area| area.error),
        pr_auc: pr_auc.map(|area| area.value),
        pr_auc_error: pr_auc.map(|area| area.error),
        per_class,
    }
}
