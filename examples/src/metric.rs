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
    /// Whether it lies between 0 and 1 and should rise.
    pub(crate) share: bool,
}

const fn share(key: &'static str, title: &'static str) -> Metric {
    Metric { key, title, share: true }
}

const fn falling(key: &'static str, title: &'static str) -> Metric {
    Metric { key, title, share: false }
}

/// Share of right predictions.
pub(crate) const ACCURACY: Metric = share("accuracy", "accuracy");
/// Mean recall of the labels.
pub(crate) const BALANCED_ACCURACY: Metric = share("balanced_accuracy", "balanced acc.");
/// Mean F1 over the labels.
pub(crate) const MACRO_F1: Metric = share("macro_f1", "macro F1");
/// Area under the ROC curve; with more than two labels, the mean of each against the rest.
pub(crate) const ROC_AUC: Metric = share("roc_auc", "ROC AUC");
/// Area under the precision-recall curve, likewise.
pub(crate) const PR_AUC: Metric = share("pr_auc", "PR AUC");
/// Expected calibration error.
pub(crate) const CALIBRATION_ERROR: Metric = falling("calibration_error", "calib. error");
/// Mean cross-entropy in nats.
pub(crate) const LOSS: Metric = falling("loss", "loss");
/// The number of tokens that a language model is as unsure between: e to the power of its loss.
pub(crate) const PERPLEXITY: Metric = falling("perplexity", "perplexity");
/// Share of tokens that a language model finds the likeliest.
pub(crate) const TOKEN_ACCURACY: Metric = share("token_accuracy", "token acc.");

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
