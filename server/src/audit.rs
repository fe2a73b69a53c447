//! What the server writes into its audit log: everything that it makes durable, in the words of an auditor.
//!
//! The log is made of the very writes that go to the database, before they are committed, so that nothing is remembered
//! that the log lacks. What a crash in between undid is asked for again, and then is in the log twice.

use serde::Serialize;
use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Name, RunId};
use sheaf_common::message::TaskId;
use sheaf_common::secagg::message::Answer;
use sheaf_common::status::{self, Participant, RoundOutcome, RoundRecord, Standing};
use sheaf_transport::audit::brief;

use crate::core::Input;
use crate::store::Write;

/// An event in the life of a server.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(crate) enum Event<'a> {
    /// A site came.
    SiteConnected {
        /// The site.
        site: &'a ClientId,
        /// Where from.
        address: &'a str,
        /// Version of its program.
        software: &'a str,
    },
    /// An operator said whether a site may take part.
    Standing {
        /// The site.
        site: &'a ClientId,
        /// Whether it may.
        standing: Standing,
        /// The operator.
        by: &'a Name,
    },
    /// An operator imported a model.
    ModelImported {
        /// Its name.
        name: &'a str,
        /// Its id.
        model: BlobId,
    },
    /// An operator submitted a run.
    RunSubmitted {
        /// The run.
        run: &'a RunId,
        /// The operator.
        by: &'a Name,
        /// Hash of all that is fixed in it.
        origin: BlobId,
        /// The imported model.
        model: Option<BlobId>,
        /// The global parameters before round 1.
        global: BlobId,
    },
    /// A run is over.
    RunEnded {
        /// The run.
        run: &'a RunId,
    },
    /// A site was invited, or an invitation was used.
    Invitation {
        /// The site.
        site: &'a ClientId,
    },
    /// A run was stopped.
    RunStopped {
        /// The run.
        run: &'a RunId,
        /// The operator.
        by: &'a Name,
    },
    /// A site sent an update in the open; what became of it is in the round's entry.
    Update {
        /// For which task.
        #[serde(flatten)]
        task: Task<'a>,
        /// The site.
        site: &'a ClientId,
        /// What.
        blob: BlobId,
        /// Its examples.
        num_examples: u64,
    },
    /// A site said something about a task.
    Answer {
        /// For which task.
        #[serde(flatten)]
        task: Task<'a>,
        /// The site.
        site: &'a ClientId,
        /// `ready`, `metrics`, or its answer to a stage of a secure sum.
        what: &'static str,
        /// The masked vector.
        blob: Option<BlobId>,
    },
    /// A site declined a task.
    Declined {
        /// Which.
        #[serde(flatten)]
        task: Task<'a>,
        /// The site.
        site: &'a ClientId,
        /// Why.
        reason: &'a str,
    },
    /// An attempt at a round is over.
    Round {
        /// The run.
        run: &'a RunId,
        /// The round.
        round: u32,
        /// The attempt.
        attempt: u32,
        /// What it came to: the global parameters after it, or why there are none.
        outcome: RoundOutcome,
        /// How many took part.
        sites: usize,
        /// Who took part, and what became of each one's update; the first of them.
        participants: Vec<Participant>,
        /// Digest of the published record.
        record: Option<String>,
    },
    /// More of those who took part in the attempt that the entry before is about.
    Participants {
        /// The run.
        run: &'a RunId,
        /// The round.
        round: u32,
        /// The attempt.
        attempt: u32,
        /// Who took part, and what became of each one's update.
        participants: Vec<Participant>,
    },
}

/// Participants in an entry: as many as fit, whatever their reasons.
const PARTICIPANTS: usize = 200;

/// A task, as an auditor reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Task<'a> {
    run: &'a RunId,
    round: u32,
    attempt: u32,
}

impl<'a> From<&'a TaskId> for Task<'a> {
    fn from(TaskId { run, round, attempt }: &'a TaskId) -> Self {
        Self { run, round: *round, attempt: *attempt }
    }
}

impl<'a> Event<'a> {
    /// The events in a durable write that an auditor cares for.
    pub(crate) fn of(write: &'a Write) -> Vec<Self> {
        if let Write::Round { run, record } = write {
            return Self::of_round(run, record);
        }
        Self::of_one(write).into_iter().collect()
    }

    /// A round may have thousands of sites, and an entry has an end.
    fn of_round(run: &'a RunId, record: &'a RoundRecord) -> Vec<Self> {
        let RoundRecord { round, attempt, .. } = *record;
        let mut parts = record.participants.chunks(PARTICIPANTS).map(|part| part.iter().map(heard).collect());
        let first = Self::Round {
            run,
            round,
            attempt,
            outcome: match &record.outcome {
                RoundOutcome::Completed(global) => RoundOutcome::Completed(*global),
                RoundOutcome::Abandoned(why) => RoundOutcome::Abandoned(brief(why).to_owned()),
            },
            sites: record.participants.len(),
            participants: parts.next().unwrap_or_default(),
            record: record.record.as_ref().map(|record| record.body.digest().to_string()),
        };
        let more = parts.map(|participants| Self::Participants { run, round, attempt, participants });
        [first].into_iter().chain(more).collect()
    }

    fn of_one(write: &'a Write) -> Option<Self> {
        Some(match write {
            Write::Run(coordinator) => {
                let (run, job) = (coordinator.run(), coordinator.job());
                let (origin, model, global) = (job.origin(), job.model, job.global);
                Self::RunSubmitted { run: &run.id, by: &run.submitted_by, origin, model, global }
            }
            Write::Input { run, input, .. } => return Self::of_input(run, input),
            Write::Model(info) => Self::ModelImported { name: &info.name, model: info.manifest },
            Write::Site(seen) => {
                let software = brief(&seen.software);
                Self::SiteConnected { site: &seen.site, address: &seen.address, software }
            }
            Write::Standing { site, standing, by, .. } => Self::Standing { site, standing: *standing, by },
            Write::Ended { run, .. } => Self::RunEnded { run },
            Write::Invitation(site, _) => Self::Invitation { site },
            Write::Round { .. }
            | Write::Snapshot(_)
            | Write::FinalMetrics { .. }
            | Write::TestMetrics { .. } => return None,
        })
    }

    fn of_input(run: &'a RunId, input: &'a Input) -> Option<Self> {
        let answer =
            |task: &'a TaskId, site, what, blob| Some(Self::Answer { task: task.into(), site, what, blob });
        match input {
            Input::Update { from, update, .. } => Some(Self::Update {
                task: (&update.task).into(),
                site: from,
                blob: update.delta,
                num_examples: update.num_examples,
            }),
            Input::Ready { from, task } => answer(task, from, "ready", None),
            Input::Evaluated { from, task, .. } => answer(task, from, "metrics", None),
            Input::Secure { from, task, answer: said, .. } => match &**said {
                Answer::Advertisement(_) => answer(task, from, "keys", None),
                Answer::Shares(_) => answer(task, from, "sealed shares", None),
                Answer::Masked(blob) => answer(task, from, "masked vector", Some(*blob)),
                Answer::Confirmed(_) => answer(task, from, "signature of the survivors", None),
                Answer::Unmasking(_) => answer(task, from, "shares", None),
            },
            Input::Declined { from, task, reason } => {
                Some(Self::Declined { task: task.into(), site: from, reason: brief(reason) })
            }
            Input::Stop(by) => Some(Self::RunStopped { run, by }),
            Input::Start
            | Input::Restarted
            | Input::Connected(_)
            | Input::Disconnected(_)
            | Input::Excluded { .. }
            | Input::Aggregated { .. }
            | Input::AggregationFailed { .. }
            | Input::Tick => None,
        }
    }
}

/// A participant, with no more of a reason than an entry should hold.
fn heard(Participant { site, answer, num_examples }: &Participant) -> Participant {
    let answer = match answer {
        status::Answer::Rejected(why) => status::Answer::Rejected(brief(why).to_owned()),
        status::Answer::Declined(why) => status::Answer::Declined(brief(why).to_owned()),
        status::Answer::Pending | status::Answer::Accepted | status::Answer::Ready => answer.clone(),
    };
    Participant { site: site.clone(), answer, num_examples: *num_examples }
}

#[cfg(test)]
mod tests {
    use sheaf_common::time::Timestamp;
    use sheaf_transport::audit::ENTRY_MAX;

    use super::*;

    #[test]
    fn a_round_of_any_size_is_told_in_entries_that_a_reader_takes() {
        let declined = |at: usize| Participant {
            site: format!("site-{at:058}").parse().unwrap(),
            // What takes the most room in JSON.
            answer: status::Answer::Declined("\u{1}".repeat(100_000)),
            num_examples: None,
        };
        let record = RoundRecord {
            round: 1,
            attempt: 1,
            started: Timestamp(0),
            ended: Timestamp(1),
            outcome: RoundOutcome::Abandoned("\u{1}".repeat(2_000_000)),
            participants: (0..2 * PARTICIPANTS + 1).map(declined).collect(),
            global_metrics: None,
            local_metrics: None,
            train_loss: None,
            secure: None,
            record: None,
        };
        let sites: Vec<ClientId> = record.participants.iter().map(|one| one.site.clone()).collect();
        let (run, mut told) = ("toy".parse().unwrap(), Vec::new());
        let write = Write::Round { run, record: Box::new(record) };
        for event in Event::of(&write) {
            assert!(serde_json::to_string(&event).unwrap().len() < ENTRY_MAX - 1000);
            let (Event::Round { participants, .. } | Event::Participants { participants, .. }) = event else {
                panic!("{event:?}")
            };
            told.extend(participants.into_iter().map(|one| one.site));
        }
        assert_eq!(told, sites);
    }
}
