//! What an operator sees of runs and sites.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::blob::BlobId;
use crate::id::{ClientId, Name, RunId};
use crate::metrics::Report;
use crate::record::SignedRecord;
use crate::run::{Best, RunSpec};
use crate::time::Timestamp;

/// What a site is doing for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Fetching the model.
    Fetching,
    /// Reading data.
    Preparing,
    /// Evaluating on its validation split.
    Evaluating,
    /// Training.
    Training,
    /// Uploading its update.
    Uploading,
}

/// How far a site is with what it does for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it is doing.
    pub phase: Phase,
    /// Steps, examples or bytes done.
    pub done: u64,
    /// Steps, examples or bytes in all.
    pub total: u64,
    /// Steps of one pass over the training data, where it trains in passes.
    pub steps_per_epoch: Option<NonZeroU64>,
    /// Until the phase is over, if it goes on as fast as so far. `None` before that can be said.
    pub time_left: Option<Duration>,
}

impl Progress {
    /// `done` of `total` of a phase of which no more is known.
    pub fn new(phase: Phase, done: u64, total: u64) -> Self {
        Self { phase, done, total, steps_per_epoch: None, time_left: None }
    }

    /// The same without what tells how much a site has to work on: tenths of the phase, or in training of each of so many
    /// passes. What is transferred is as long for every site.
    pub fn in_tenths(self, passes: u64) -> Self {
        let tenths = match self.phase {
            Phase::Fetching | Phase::Uploading => return self,
            Phase::Preparing | Phase::Evaluating => 10,
            Phase::Training => passes.saturating_mul(10),
        };
        let done = u128::from(self.done) * u128::from(tenths) / u128::from(self.total.max(1));
        Self {
            done: u64::try_from(done).unwrap_or(tenths).min(tenths),
            total: tenths,
            steps_per_epoch: NonZeroU64::new(10).filter(|_| self.steps_per_epoch.is_some() && passes > 1),
            ..self
        }
    }

    /// The pass over the training data in hand, from 1, and passes in all, when there are several.
    pub fn epoch(&self) -> Option<(u64, u64)> {
        let per_epoch = self.steps_per_epoch?.get();
        let epochs = self.total.div_ceil(per_epoch);
        (epochs > 1).then(|| ((self.done / per_epoch).saturating_add(1).min(epochs), epochs))
    }
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunState {
    /// Behind another run that holds sites of its cohort.
    Queued,
    /// Waiting for enough sites to be connected.
    Waiting,
    /// A round is in progress.
    Running,
    /// The last round is done; sites evaluate the final model.
    Evaluating,
    /// All rounds are done.
    Completed,
    /// It cannot go on.
    Failed,
    /// An operator stopped it.
    Stopped,
}

impl RunState {
    /// Whether nothing more will happen.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Stopped)
    }
}

impl std::fmt::Display for RunState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Evaluating => "evaluating",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        })
    }
}

/// A run in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its name.
    pub run: RunId,
    /// Where it stands.
    pub state: RunState,
    /// Rounds completed.
    pub completed_rounds: u32,
    /// Rounds asked for.
    pub rounds: u32,
    /// Operator who submitted it.
    pub submitted_by: Name,
    /// When.
    pub submitted_at: Timestamp,
    /// Why it waits, failed or was stopped; empty when there is nothing to say.
    pub detail: String,
}

/// A run in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// The run in a list.
    pub summary: RunSummary,
    /// What was asked for.
    pub spec: RunSpec,
    /// Values that travel in each direction per site and round.
    pub num_params: u64,
    /// Connected sites that do not stand by for the run now, and why: nothing is asked of them.
    pub held: Vec<(ClientId, String)>,
    /// The round in progress.
    pub current: Option<RoundStatus>,
    /// Records older than those in `history`, which holds as many as fit one message. The server has them all.
    pub earlier_records: u64,
    /// Rounds completed and attempts abandoned, in order, up to the newest.
    pub history: Vec<RoundRecord>,
    /// The final model on the sites' validation splits.
    pub final_metrics: Option<Report>,
    /// The run's result on the sites' test splits.
    pub test_metrics: Option<Report>,
    /// The best evaluation so far, by the metric that the run monitors.
    pub best: Option<Best>,
    /// Rounds after which the model is the run's result: the last, or the best if the run says so.
    pub result: u32,
    /// The global parameters after the last completed round.
    pub global: BlobId,
}

impl RunStatus {
    /// The metrics of the global model after `round` rounds: the final ones, or those that the next round started from.
    pub fn metrics_after(&self, round: u32) -> Option<&Report> {
        let next = self.history.iter().rfind(|record| round.checked_add(1) == Some(record.round));
        let last = self.final_metrics.as_ref().filter(|_| round == self.summary.completed_rounds);
        last.or_else(|| next.and_then(|record| record.global_metrics.as_ref()))
    }
}

/// A round in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundStatus {
    /// The round.
    pub round: u32,
    /// The attempt.
    pub attempt: u32,
    /// When it started.
    pub started: Timestamp,
    /// Time until its deadline.
    pub time_left: Duration,
    /// What it waits for.
    pub stage: String,
    /// Its cohort.
    pub members: Vec<MemberStatus>,
}

/// A member of a round's cohort.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The site.
    pub site: ClientId,
    /// Whether it is connected.
    pub connected: bool,
    /// What it did or does.
    pub answer: Answer,
    /// What it is doing.
    pub progress: Option<Progress>,
}

/// What became of a member's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// Not here yet.
    Pending,
    /// Counted.
    Accepted,
    /// The update was refused, and why.
    Rejected(String),
    /// The site declined, and why.
    Declined(String),
    /// Done at the site, and not yet in the sum.
    Ready,
}

/// How an attempt at a round ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// The round.
    pub round: u32,
    /// The attempt.
    pub attempt: u32,
    /// When it started.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The global parameters after it, or why it was abandoned.
    pub outcome: RoundOutcome,
    /// What each member of the cohort did.
    pub participants: Vec<Participant>,
    /// The global model that the round started from, on the validation splits of the sites that answered.
    pub global_metrics: Option<Report>,
    /// The sites' own trained models on the same, pooled.
    pub local_metrics: Option<Report>,
    /// Mean training loss, weighted by examples, in nats.
    pub train_loss: Option<f64>,
    /// What secure aggregation came to; `None` without it.
    pub secure: Option<SecureSum>,
    /// What is published of a completed round: signed, and chained to the record of the round before.
    pub record: Option<Box<SignedRecord>>,
}

/// What is known of a secure sum besides the sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecureSum {
    /// Sites whose updates are in the sum.
    pub sites: u64,
    /// Their examples, each site's capped.
    pub num_examples: u64,
    /// Share of all values that were clamped to their range.
    pub clamped: f64,
    /// Root mean square of the error that quantization adds to a value of the mean, over the root mean square of
    /// the mean itself.
    pub rounding_error: f64,
}

/// How an attempt at a round ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoundOutcome {
    /// The global parameters after the round.
    Completed(BlobId),
    /// Why nothing came of it.
    Abandoned(String),
}

/// What a member did in a round that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Participant {
    /// The site.
    pub site: ClientId,
    /// Its answer; `Pending` means that none came in time.
    pub answer: Answer,
    /// Its weight in the mean; 0 when it was not counted, `None` when secure aggregation hides it.
    pub num_examples: Option<u64>,
}

/// A site in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteStatus {
    /// The site.
    pub site: ClientId,
    /// Its connection, while there is one.
    pub connection: Option<SiteConnection>,
    /// Whether it may connect.
    pub standing: Standing,
    /// Where from.
    pub address: String,
    /// Version of its program.
    pub software: String,
    /// When its connection came or went.
    pub since: Timestamp,
    /// The run that it works for.
    pub run: Option<RunId>,
    /// Bytes of blobs that it has fetched since the server started.
    pub bytes_down: u64,
    /// Bytes of blobs that it has sent since the server started.
    pub bytes_up: u64,
    /// When the certificate ends with which it was last connected.
    pub expires: Timestamp,
}

/// How a site is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteConnection {
    /// Over what.
    pub transport: Transport,
    /// How long ago it was last heard of, in whole seconds. A site that only trains is heard of every few.
    pub silent_secs: u32,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        })
    }
}

/// Whether a site may take part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It may.
    #[default]
    Admitted,
    /// Not until it is resumed.
    Suspended,
    /// Never again under this name.
    Revoked,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Admitted => "admitted",
            Self::Suspended => "suspended",
            Self::Revoked => "revoked",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenths_tell_how_far_a_site_is_and_not_how_much_it_has() {
        let training = |done, per_epoch: u64| {
            let steps_per_epoch = NonZeroU64::new(per_epoch);
            Progress { steps_per_epoch, ..Progress::new(Phase::Training, done, 3 * per_epoch) }.in_tenths(3)
        };
        for per_epoch in [1, 7, 10, 1000, u64::MAX / 3] {
            let (begun, third, ended) =
                (training(0, per_epoch), training(per_epoch, per_epoch), training(3 * per_epoch, per_epoch));
            assert_eq!([begun.done, third.done, ended.done], [0, 10, 30]);
            assert_eq!((third.total, third.epoch()), (30, Some((2, 3))));
        }
        let of = |phase| {
            let told = Progress::new(phase, 612, 1000).in_tenths(1);
            (told.done, told.total)
        };
        assert_eq!([Phase::Preparing, Phase::Evaluating, Phase::Training].map(of), [(6, 10); 3]);
        assert_eq!(of(Phase::Uploading), (612, 1000));
        assert_eq!(Progress::new(Phase::Evaluating, 0, 0).in_tenths(1).done, 0);
    }
}
