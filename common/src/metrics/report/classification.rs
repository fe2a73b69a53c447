//! The report on a classifier.

use serde::{Deserialize, Serialize};

use super::{ClassReport, Curves, mean_area, per_class};
use crate::metrics::calibration::{self, Bin, edge};
use crate::metrics::classification::Classification;
use crate::metrics::curves::Area;
use crate::metrics::fixed::UNITS;
use crate::metrics::ratios::{Averages, Tally, ratio};

/// The metrics of a classifier. Where nothing else is said, a metric lies in [0, 1] and more is better.
///
/// The macro averages are over the labels that occur in truth or prediction, as scikit-learn takes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassificationReport {
    /// Examples counted.
    pub num_examples: u64,
    /// Mean cross-entropy (log loss) in nats, from 0 on; less is better.
    pub loss: f64,
    /// Share of right predictions.
    pub accuracy: f64,
    /// Mean recall over the labels that have examples.
    pub balanced_accuracy: f64,
    /// Precision over all labels together; with one label an example it is the accuracy, as are the next two.
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
    /// Area under the ROC curve: with two labels of the second one, otherwise the mean one-vs-rest area over
    /// the labels that have one. `None` when no label has.
    pub roc_auc: Option<f64>,
    /// The most by which binning can have changed `roc_auc`.
    pub roc_auc_error: Option<f64>,
    /// Area under the precision-recall curve, as average precision: with two labels of the second one, otherwise the
    /// mean over the labels that have examples.
    pub pr_auc: Option<f64>,
    /// The most by which binning can have changed `pr_auc`.
    pub pr_auc_error: Option<f64>,
    /// Matthews' correlation coefficient, in [-1, 1].
    pub mcc: f64,
    /// Cohen's kappa, in [-1, 1].
    pub cohen_kappa: f64,
    /// Mean squared difference between probabilities and truth; less is better. With two labels of the second one's
    /// probability, otherwise summed over the labels and in [0, 2].
    pub brier_score: f64,
    /// Expected calibration error of the predicted label's probability, in ten bins; less is better.
    pub calibration_error: f64,
    /// The calibration curve: what came of predictions by how sure the model was.
    pub calibration: Vec<CalibrationReport>,
    /// Each label, in the order of the model's outputs.
    pub per_class: Vec<ClassReport>,
    /// Confusion matrix: true label by predicted label.
    pub confusion: Vec<Vec<u64>>,
}

/// Predictions that the model was about equally sure of.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CalibrationReport {
    /// The predicted label's probability is more than this,
    pub above: f64,
    /// and at most this.
    pub to: f64,
    /// Predictions.
    pub num_examples: u64,
    /// Their mean probability; `None` when there are none.
    pub confidence: Option<f64>,
    /// Share of them that is right; `None` when there are none.
    pub accuracy: Option<f64>,
}

pub(super) fn report(counts: &Classification, labels: &[String]) -> ClassificationReport {
    let confusion = counts.confusion();
    let tallies = confusion.tallies();
    let occurring: Vec<Tally> = tallies.iter().copied().filter(Tally::occurs).collect();
    let Averages { micro, macro_, weighted } = Averages::of(&occurring);
    let (per_class, curves) = per_class(labels, tallies.into_iter().zip(&counts.scores));
    let (roc_auc, pr_auc) = overall(&curves);
    let halved = if counts.num_labels() == 2 { 0.5 } else { 1.0 };
    ClassificationReport {
        num_examples: counts.num_examples(),
        loss: counts.mean_loss(),
        accuracy: confusion.accuracy(),
        balanced_accuracy: confusion.balanced_accuracy(),
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
        pr_auc: pr_auc.map(|area| area.value),
        pr_auc_error: pr_auc.map(|area| area.error),
        mcc: confusion.mcc(),
        cohen_kappa: confusion.kappa(),
        brier_score: halved * counts.mean_squares(),
        calibration_error: counts.calibration.error(),
        calibration: calibration(&counts.calibration),
        per_class,
        confusion: confusion.rows().map(<[u64]>::to_vec).collect(),
    }
}

fn overall(curves: &Curves) -> (Option<Area>, Option<Area>) {
    match (curves.roc.as_slice(), curves.pr.as_slice()) {
        ([_, roc], [_, pr]) => (*roc, *pr),
        (roc, pr) => (mean_area(roc), mean_area(pr)),
    }
}

fn calibration(calibration: &calibration::Calibration) -> Vec<CalibrationReport> {
    let report = |(at, bin): (usize, &Bin)| {
        let some = |value: f64| (bin.count > 0).then_some(value);
        CalibrationReport {
            above: edge(at),
            to: edge(at + 1),
            num_examples: bin.count,
            confidence: some(bin.confidence as f64 / UNITS as f64 / bin.count.max(1) as f64),
            accuracy: some(ratio(bin.right, bin.count)),
        }
    };
    calibration.bins.iter().enumerate().map(report).collect()
}
