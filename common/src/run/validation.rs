//! What a run validates on, and what it does with the metrics: how often they are asked for, when it stops early, and
//! which model is its result. The names are those of Keras's `EarlyStopping`.

use serde::{Deserialize, Serialize};

use crate::id::ClientId;
use crate::metrics::Report;

use super::task::Target;

/// The table `[validation]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// What every site holds out of its own data, the same in every round.
    pub held_out: HeldOut,
    /// This share of every site's data, in [0, 0.9], is neither trained on nor validated on: the run's result is tested on
    /// it, once.
    pub test_split: f64,
    /// This site does not train: the final model is evaluated on all of its data, and on nothing else.
    pub leave_out: Option<ClientId>,
}

/// What a site holds out to validate on, stratified by label.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum HeldOut {
    /// This share, in [0, 0.9].
    Share(f64),
    /// One of several parts that are equally large, and together are everything.
    Fold(Fold),
}

/// One part of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fold {
    /// Which, from 1.
    pub number: u32,
    /// How many there are, at least 2.
    pub of: u32,
}

/// A pooled metric that can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Monitor {
    /// Mean cross-entropy, of a label or a token; less is better.
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
    /// Root of the mean squared error; less is better.
    Rmse,
    /// Mean magnitude of the error; less is better.
    Mae,
    /// Coefficient of determination.
    R2,
    /// e to the mean loss of a token; less is better.
    Perplexity,
    /// Share of the tokens that were the likeliest.
    TokenAccuracy,
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
        Self {
            every: 1,
            monitor: Monitor::Loss,
            min_delta: 0.0,
            patience: None,
            restore_best: false,
            held_out: HeldOut::Share(0.1),
            test_split: 0.0,
            leave_out: None,
        }
    }
}

impl HeldOut {
    /// Whether sites hold out nothing at all.
    pub fn is_nothing(self) -> bool {
        self == Self::Share(0.0)
    }
}

impl Validation {
    /// Whether it is this site that does not train.
    pub fn leaves_out(&self, site: &str) -> bool {
        self.leave_out.as_ref().is_some_and(|left_out| left_out.as_str() == site)
    }

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
    /// The metrics of runs that learn `target`; the first is watched when none is named.
    pub fn of_task(target: &Target) -> &'static [Self] {
        match target {
            Target::Label { .. } | Target::Nothing => &[
                Self::Loss,
                Self::Accuracy,
                Self::BalancedAccuracy,
                Self::MacroF1,
                Self::RocAuc,
                Self::PrAuc,
                Self::Mcc,
                Self::BrierScore,
            ],
            Target::Labels { .. } => &[Self::Loss, Self::Accuracy, Self::MacroF1, Self::RocAuc, Self::PrAuc],
            Target::Number(_) => &[Self::Rmse, Self::Mae, Self::R2],
            Target::NextToken { .. } => &[Self::Loss, Self::Perplexity, Self::TokenAccuracy],
        }
    }

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
            Self::Rmse => "rmse",
            Self::Mae => "mae",
            Self::R2 => "r2",
            Self::Perplexity => "perplexity",
            Self::TokenAccuracy => "token_accuracy",
        }
    }

    /// By how much `after` is better than `before`: the difference, whichever way the metric is better.
    pub fn gain(self, before: f64, after: f64) -> f64 {
        match self {
            Self::Loss | Self::BrierScore | Self::Rmse | Self::Mae | Self::Perplexity => before - after,
            Self::Accuracy
            | Self::MacroF1
            | Self::RocAuc
            | Self::BalancedAccuracy
            | Self::PrAuc
            | Self::Mcc
            | Self::R2
            | Self::TokenAccuracy => after - before,
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
    use crate::metrics::Scale;
    use crate::metrics::{
        Classification, ClassificationReport, Counts, Kind, Language, MultiLabel, Regression,
    };
    use crate::run::NumberTarget;

    fn watch(monitor: Monitor) -> Validation {
        Validation {
            every: 2,
            monitor,
            min_delta: 0.01,
            patience: Some(2),
            restore_best: true,
            ..Validation::default()
        }
    }

    fn report(loss: f64) -> Report {
        let nothing =
            Counts::from(Classification::new(2)).report(&Kind::Classification { labels: Vec::new() });
        let more = nothing.classification().unwrap().clone();
        Report::Classification(Box::new(ClassificationReport { loss, accuracy: 1.0 - loss, ..more }))
    }

    #[test]
    fn every_metric_that_a_task_can_watch_is_in_its_report() {
        let (column, labels) = (String::new(), Vec::new());
        let targets = [
            (Target::Label { column: column.clone(), labels: labels.clone() }, classified()),
            (Target::Labels { column: column.clone(), separator: String::new(), labels }, labelled()),
            (Target::Number(NumberTarget { column, mean: 0.0, std: 1.0 }), regressed()),
            (Target::NextToken { answer: None, template: "{text}".into() }, foretold()),
        ];
        for (target, report) in targets {
            let json = serde_json::to_value(&report).unwrap();
            for monitor in Monitor::of_task(&target) {
                let name = monitor.to_string();
                assert_eq!(serde_json::from_value::<Monitor>(name.as_str().into()).unwrap(), *monitor);
                assert_eq!(monitor.of(&report), json[&name].as_f64(), "{name}");
                assert!(monitor.of(&report).is_some(), "{name}");
            }
        }
    }

    /// Two examples, one of them right.
    fn classified() -> Report {
        let mut counts = Classification::new(2);
        counts.observe(0, &[0.0, 1.0]);
        counts.observe(1, &[0.0, 2.0]);
        Counts::from(counts).report(&Kind::Classification { labels: Vec::new() })
    }

    fn labelled() -> Report {
        let mut counts = MultiLabel::new(2);
        counts.observe(&[true, false], &[0.0, 1.0]);
        counts.observe(&[false, true], &[0.0, 2.0]);
        Counts::from(counts).report(&Kind::MultiLabel { labels: Vec::new() })
    }

    fn regressed() -> Report {
        let mut counts = Regression::default();
        counts.observe(1.0, 0.5);
        counts.observe(2.0, 2.5);
        Counts::from(counts).report(&Kind::Regression { target: Scale { mean: 0.0, std: 1.0 } })
    }

    fn foretold() -> Report {
        let mut counts = Language::default();
        counts.observe([(0.5, true), (1.5, false)]);
        Counts::from(counts).report(&Kind::Language)
    }

    fn follow(watch: &Validation, losses: &[f64]) -> Option<Best> {
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
            let best = follow(&watch(monitor), &losses).unwrap();
            assert_eq!((best.round, best.since), (3, 0));
        }
    }

    #[test]
    fn patience_ends_when_nothing_gained_more_than_the_least_change() {
        let watch = watch(Monitor::Loss);
        assert!(!watch.is_exhausted(follow(&watch, &[0.9, 0.5, 0.495])));
        let best = follow(&watch, &[0.9, 0.5, 0.495, 0.6]);
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
