//! The metrics that people read, computed from counts with scikit-learn's definitions.

use serde::{Deserialize, Serialize};

use super::counts::Counts;

/// What is read off counts. Every ratio whose denominator is 0 is 0 (scikit-learn's `zero_division=0`).
///
/// The macro averages are over the labels that occur in truth or prediction, as scikit-learn takes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Examples counted.
    pub num_examples: u64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Share of right predictions, in [0, 1].
    pub accuracy: f64,
    /// Mean precision over labels.
    pub macro_precision: f64,
    /// Mean recall over labels.
    pub macro_recall: f64,
    /// Mean F1 over labels.
    pub macro_f1: f64,
    /// Area under the ROC curve: with two labels of the second one, otherwise the mean one-vs-rest area over
    /// the labels that have one. `None` when no label has.
    pub roc_auc: Option<f64>,
    /// Each label, in the order of the model's outputs.
    pub per_class: Vec<ClassReport>,
    /// Confusion matrix: true label by predicted label.
    pub confusion: Vec<Vec<u64>>,
}

/// One label against the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// The label.
    pub label: String,
    /// Share of the predictions of this label that are right.
    pub precision: f64,
    /// Share of the examples of this label that were found.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Examples of this label.
    pub support: u64,
    /// Area under the ROC curve against the rest; `None` when all or none of the examples have this label.
    pub roc_auc: Option<f64>,
}

/// The report of `counts`. A class without a name in `labels` is named by its number.
pub(super) fn report(counts: &Counts, labels: &[String]) -> Report {
    let confusion: Vec<Vec<u64>> = (0..counts.num_labels()).map(|label| counts.row(label).to_vec()).collect();
    let per_class: Vec<ClassReport> = (0..confusion.len())
        .map(|class| {
            let name = labels.get(class).cloned().unwrap_or_else(|| class.to_string());
            class_report(name, class, &confusion, counts.roc_auc(class))
        })
        .collect();
    let occurring: Vec<&ClassReport> = per_class
        .iter()
        .enumerate()
        .filter(|(class, report)| report.support > 0 || predicted(*class, &confusion) > 0)
        .map(|(_, report)| report)
        .collect();
    let right = (0..confusion.len()).map(|class| confusion[class][class]).sum();
    Report {
        num_examples: counts.num_examples(),
        loss: counts.mean_loss(),
        accuracy: ratio(right, counts.num_examples()),
        macro_precision: mean(occurring.iter().map(|class| class.precision)),
        macro_recall: mean(occurring.iter().map(|class| class.recall)),
        macro_f1: mean(occurring.iter().map(|class| class.f1)),
        roc_auc: overall_roc_auc(&per_class),
        per_class,
        confusion,
    }
}

fn class_report(label: String, class: usize, confusion: &[Vec<u64>], roc_auc: Option<f64>) -> ClassReport {
    let right = confusion[class][class];
    let support: u64 = confusion[class].iter().sum();
    let predicted = predicted(class, confusion);
    ClassReport {
        label,
        precision: ratio(right, predicted),
        recall: ratio(right, support),
        f1: ratio(2 * right, predicted + support),
        support,
        roc_auc,
    }
}

/// Number of predictions of `class`.
fn predicted(class: usize, confusion: &[Vec<u64>]) -> u64 {
    confusion.iter().map(|row| row[class]).sum()
}

fn overall_roc_auc(per_class: &[ClassReport]) -> Option<f64> {
    if let [_, positive] = per_class {
        return positive.roc_auc;
    }
    let areas: Vec<f64> = per_class.iter().filter_map(|class| class.roc_auc).collect();
    (!areas.is_empty()).then(|| mean(areas.into_iter()))
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The mean; 0 over nothing.
fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    if count == 0 { 0.0 } else { values.sum::<f64>() / count as f64 }
}
