//! What is known of each round: a row of `rounds.csv`.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sheaf_common::blob::BlobId;
use sheaf_common::metrics::Report;
use sheaf_common::status::{Answer, RoundOutcome, RoundRecord};
use sheaf_common::time::Timestamp;

/// The metrics of a model, by name.
pub type Score = BTreeMap<String, f64>;

/// Bytes that all clients together sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// To the server.
    pub up: u64,
    /// From it.
    pub down: u64,
}

impl Traffic {
    /// What was sent after there had been so much.
    pub fn since(self, before: Self) -> Self {
        Self { up: self.up.saturating_sub(before.up), down: self.down.saturating_sub(before.down) }
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.up += more.up;
        self.down += more.down;
    }
}

/// An attempt at a round that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The round, from 1.
    pub round: u32,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Why nothing came of it, if so.
    pub abandoned: Option<String>,
    /// Clients that were asked.
    pub cohort: u32,
    /// Those whose updates are in the model.
    pub participants: u32,
    /// Mean training loss, weighted by examples, in nats.
    pub train_loss: Option<f64>,
    /// The model that the round started from, on the validation splits of the clients that answered.
    pub validation: Score,
    /// The model after the round, on the common test set.
    pub test: Score,
    /// What was sent since the row before.
    pub traffic: Traffic,
    /// Simulated seconds since the beginning.
    pub simulated: f64,
    /// Real seconds since the beginning.
    pub real: f64,
    /// The global parameters after it.
    pub global: Option<BlobId>,
}

impl Row {
    /// What a round's record says, and what only a simulation knows.
    pub fn of(
        record: &RoundRecord,
        test: Option<Score>,
        traffic: Traffic,
        now: Timestamp,
        real: Duration,
    ) -> Self {
        let (global, abandoned) = match &record.outcome {
            RoundOutcome::Completed(global) => (Some(*global), None),
            RoundOutcome::Abandoned(why) => (None, Some(why.clone())),
        };
        let accepted = record.participants.iter().filter(|one| one.answer == Answer::Accepted);
        Self {
            round: record.round,
            attempt: record.attempt,
            abandoned,
            cohort: count(record.participants.len()),
            participants: count(accepted.count()),
            train_loss: record.train_loss,
            validation: record.global_metrics.as_ref().map(score).unwrap_or_default(),
            test: test.unwrap_or_default(),
            traffic,
            simulated: now.since(Timestamp(0)).as_secs_f64(),
            real: real.as_secs_f64(),
            global,
        }
    }

    /// Whether a model came of it.
    pub fn is_completed(&self) -> bool {
        self.global.is_some()
    }
}

/// The metrics of a report that has them, as numbers: that of a model that has diverged may be none.
pub fn score(report: &Report) -> Score {
    let value = |figure: sheaf_common::metrics::Figure| {
        let value = figure.value.filter(|value| value.is_finite())?;
        Some((figure.key.to_owned(), value))
    };
    report.figures().into_iter().filter_map(value).collect()
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
