//! What examples measure: metrics under the names that Sheaf's programs give them in JSON.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Its name in JSON.
    pub(crate) key: &'static str,
    /// Its name for people.
    pub(crate) title: &'static str,
}

/// Share of right predictions.
pub(crate) const ACCURACY: Metric = Metric { key: "accuracy", title: "accuracy" };
/// Mean recall of the labels.
pub(crate) const BALANCED_ACCURACY: Metric = Metric { key: "balanced_accuracy", title: "balanced acc." };
/// Mean F1 over the labels.
pub(crate) const MACRO_F1: Metric = Metric { key: "macro_f1", title: "macro F1" };
/// Area under the ROC curve; with more than two labels, the mean of each against the rest.
pub(crate) const ROC_AUC: Metric = Metric { key: "roc_auc", title: "ROC AUC" };
/// Area under the precision-recall curve, likewise.
pub(crate) const PR_AUC: Metric = Metric { key: "pr_auc", title: "PR AUC" };
/// Expected calibration error.
pub(crate) const CALIBRATION_ERROR: Metric = Metric { key: "calibration_error", title: "calib. error" };
/// Mean cross-entropy in nats.
pub(crate) const LOSS: Metric = Metric { key: "loss", title: "loss" };

/// What one model reaches, as a program printed it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Score(Map<String, Value>);

impl Score {
    /// The value of a metric; none where it is not defined, as an area is when there is one label only.
    pub(crate) fn value(&self, metric: Metric) -> Option<f64> {
        self.0.get(metric.key)?.as_f64()
    }

    /// These metrics alone.
    pub(crate) fn only(&self, metrics: &[Metric]) -> Self {
        let entry = |metric: &Metric| {
            let value = self.0.get(metric.key).cloned().unwrap_or(Value::Null);
            (metric.key.to_owned(), value)
        };
        Self(metrics.iter().map(entry).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_name_and_may_be_undefined() {
        let score: Score =
            serde_json::from_str(r#"{"accuracy": 0.5, "roc_auc": null, "per_class": []}"#).unwrap();
        assert_eq!(score.value(ACCURACY), Some(0.5));
        assert_eq!(score.value(ROC_AUC), None);
        let only = serde_json::to_string(&score.only(&[ACCURACY, ROC_AUC])).unwrap();
        assert_eq!(only, r#"{"accuracy":0.5,"roc_auc":null}"#);
    }
}
