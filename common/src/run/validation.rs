//! What a run does with validation metrics: how often they are asked for, when it stops early, and which model is its
//! result. The names are those of Keras's `EarlyStopping`.

use serde::{Deserialize, Serialize};

use crate::metrics::Report;

/// The table `[validation]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Sites evaluate in every so many rounds, from the first on; at the end they do in any case.
    pub every: u32,
    /// What is watched.
    pub monitor: Monitor,
    /// A change by this or less is no improvement.
    pub min_delta: f64,
    /// The run stops after so many evaluations in a row without improvement; never when not given.
    pub patience: Option<u32>,
    /// The run's result is the best model that was evaluated, not the last one.
    pub restore_best: bool,
}

/// A pooled metric that can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// Mean cross-entropy; less is better.
    Loss,
    /// Share of right predictions.
    Accuracy,
    /// Mean F1 over labels.
    MacroF1,
    /// Area under the ROC curve.
    RocAuc,
    /// Mean recall over labels.
    BalancedAccuracy,
    /// Area under the precision-recall curve.
    PrAuc,
    /// Matthews' correlation coefficient.
    Mcc,
    /// Mean squared difference between probabilities and truth; less is better.
    BrierScore,
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Rounds after which the model was so good; 0 is the model that the run started from.
    pub round: u32,
    /// The monitored metric.
    pub value: f64,
    /// Evaluations since, none of which was better.
    pub since: u32,
}

impl Default for Validation {
    fn default() -> Self {
        Self { every: 1, monitor: Monitor::Loss, min_delta: 0.0, patience: None, restore_best: false }
    }
}

impl Validation {
    /// Whether sites evaluate in this round (from 1), which tells about the model after the round before.
    pub fn is_due(&self, round: u32) -> bool {
        round.saturating_sub(1).is_multiple_of(self.every.max(1))
    }

    /// What an evaluation of the model after `round` rounds makes of the best one before.
    pub fn observe(&self, best: Option<Best>, round: u32, report: &Report) -> Option<Best> {
        let Some(value) = self.monitor.of(report) else { return best };
        let first = Best { round, value, since: 0 };
        Some(match best {
            Some(best) if self.monitor.gain(best.value, value) <= self.min_delta => {
                Best { since: best.since + 1, ..best }
            }
            Some(_) | None => first,
        })
    }

    /// Whether the run stops early.
    pub fn is_exhausted(&self, best: Option<Best>) -> bool {
        self.patience.zip(best).is_some_and(|(patience, best)| best.since >= patience)
    }
}

impl Monitor {
    /// The metric's value; `None` when there is none, or it is no number.
    pub fn of(self, report: &Report) -> Option<f64> {
        let figures = report.figures();
        let own = figures.iter().find(|figure| figure.key == self.key())?;
        own.value.filter(|value| value.is_finite())
    }

    /// Its name in `run.toml` and in a report.
    fn key(self) -> &'static str {
        match self {
            Self::Loss => "loss",
            Self::Accuracy => "accuracy",
            Self::MacroF1 => "macro_f1",
            Self::RocAuc => "roc_auc",
            Self::BalancedAccuracy => "balanced_accuracy",
            Self::PrAuc => "pr_auc",
            Self::Mcc => "mcc",
            Self::BrierScore => "brier_score",
        }
    }

    /// By how much `after` is better than `before`.
    fn gain(self, before: f64, after: f64) -> f64 {
        match self {
            Self::Loss | Self::BrierScore => before - after,
            Self::Accuracy
            | Self::MacroF1
            | Self::RocAuc
            | Self::BalancedAccuracy
            | Self::PrAuc
            | Self::Mcc => after - before,
        }
    }
}

impl std::fmt::Display for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Classification, ClassificationReport, Counts, Kind};

    fn watch(monitor: Monitor) -> Validation {
        Validation { every: 2, monitor, min_delta: 0.01, patience: Some(2), restore_best: true }
    }

    fn report(loss: f64) -> Report {
        let nothing =
            Counts::from(Classification::new(2)).report(&Kind::Classification { labels: Vec::new() });
        let more = nothing.classification().unwrap().clone();
        Report::Classification(Box::new(ClassificationReport { loss, accuracy: 1.0 - loss, ..more }))
    }

    #[test]
    fn every_name_in_a_run_is_a_metric_of_a_classifier() {
        let report = counted();
        let json = serde_json::to_value(&report).unwrap();
        for name in
            ["loss", "accuracy", "macro_f1", "roc_auc", "balanced_accuracy", "pr_auc", "mcc", "brier_score"]
        {
            let monitor: Monitor = serde_json::from_value(name.into()).unwrap();
            assert_eq!(monitor.to_string(), name);
            assert_eq!(monitor.of(&report), json[name].as_f64(), "{name}");
            assert!(monitor.of(&report).is_some(), "{name}");
        }
    }

    /// Two examples, one of them right.
    fn counted() -> Report {
        let mut counts = Classification::new(2);
        counts.observe(0, &[0.0, 1.0]);
        counts.observe(1, &[0.0, 2.0]);
        Counts::from(counts).report(&Kind::Classification { labels: Vec::new() })
    }

    fn follow(watch: Validation, losses: &[f64]) -> Option<Best> {
        let observed = losses.iter().enumerate();
        observed.fold(None, |best, (round, loss)| watch.observe(best, round as u32, &report(*loss)))
    }

    #[test]
    fn every_second_round_is_due_from_the_first_on() {
        let due: Vec<u32> = (1..7).filter(|round| watch(Monitor::Loss).is_due(*round)).collect();
        assert_eq!(due, [1, 3, 5]);
    }

    #[test]
    fn the_best_is_the_least_loss_or_the_most_accuracy() {
        let losses = [0.9, 0.5, 0.7, 0.3];
        for monitor in [Monitor::Loss, Monitor::Accuracy] {
            let best = follow(watch(monitor), &losses).unwrap();
            assert_eq!((best.round, best.since), (3, 0));
        }
    }

    #[test]
    fn patience_ends_when_nothing_gained_more_than_the_least_change() {
        let watch = watch(Monitor::Loss);
        assert!(!watch.is_exhausted(follow(watch, &[0.9, 0.5, 0.495])));
        let best = follow(watch, &[0.9, 0.5, 0.495, 0.6]);
        assert_eq!(best, Some(Best { round: 1, value: 0.5, since: 2 }));
        assert!(watch.is_exhausted(best));
        assert!(!Validation { patience: None, ..watch }.is_exhausted(best));
    }

    #[test]
    fn an_evaluation_without_the_metric_says_nothing() {
        let watch = watch(Monitor::RocAuc);
        assert_eq!(watch.observe(None, 0, &report(0.5)), None);
        assert_eq!(self::watch(Monitor::Loss).observe(None, 0, &report(f64::NAN)), None);
    }
}
