//! Metrics by round, from what `sheaf run show --json` prints.

use serde::Deserialize;

use crate::metric::Score;

/// The global model after so many rounds, on the validation examples of all sites.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    /// Rounds completed; 0 is before the first.
    pub(crate) round: u32,
    /// How good it was.
    pub(crate) metrics: Score,
}

/// A run, round by round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct History {
    /// What the server says of secure aggregation.
    pub(crate) secure_aggregation: String,
    /// The global model, by round.
    pub(crate) global: Vec<Point>,
    /// Mean training loss of each completed round.
    pub(crate) train_loss: Vec<(u32, f64)>,
}

/// A run, as far as it is used here.
#[derive(Deserialize)]
pub(crate) struct Shown {
    secure_aggregation: String,
    completed_rounds: u32,
    history: Vec<Record>,
    final_metrics: Option<Score>,
}

#[derive(Deserialize)]
struct Record {
    round: u32,
    outcome: String,
    global_metrics: Option<Score>,
    train_loss: Option<f64>,
}

impl History {
    /// What was measured in a round is the model that it started from: the one after the round before.
    pub(crate) fn new(shown: &Shown) -> Self {
        let completed = || shown.history.iter().filter(|record| record.outcome == "completed");
        let started = completed().filter_map(|record| {
            let round = record.round.saturating_sub(1);
            record.global_metrics.clone().map(|metrics| Point { round, metrics })
        });
        let last =
            shown.final_metrics.clone().map(|metrics| Point { round: shown.completed_rounds, metrics });
        Self {
            secure_aggregation: shown.secure_aggregation.clone(),
            global: started.chain(last).collect(),
            train_loss: completed().filter_map(|record| Some((record.round, record.train_loss?))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::ACCURACY;

    #[test]
    fn a_round_measures_what_it_starts_from() {
        let metrics = |accuracy: f64| format!(r#"{{"accuracy": {accuracy}, "other": []}}"#);
        let record = |round: u32, outcome: &str, accuracy: f64| {
            let metrics = metrics(accuracy);
            format!(
                r#"{{"round": {round}, "outcome": "{outcome}", "global_metrics": {metrics}, "train_loss": 2.5}}"#
            )
        };
        let shown = format!(
            r#"{{"secure_aggregation": "off", "completed_rounds": 2, "history": [{}, {}, {}], "final_metrics": {}}}"#,
            record(1, "completed", 0.25),
            record(2, "abandoned", 0.0),
            record(2, "completed", 0.5),
            metrics(0.75)
        );
        let history = History::new(&serde_json::from_str(&shown).unwrap());
        let points: Vec<_> =
            history.global.iter().map(|point| (point.round, point.metrics.value(ACCURACY))).collect();
        assert_eq!(points, [(0, Some(0.25)), (1, Some(0.5)), (2, Some(0.75))]);
        assert_eq!(history.train_loss, [(1, 2.5), (2, 2.5)]);
    }
}
