//! What became of a trial's run, and which was best.

use std::cmp::{Ordering, Reverse};

use sheaf_common::id::{ClientId, RunId};
use sheaf_common::run::Monitor;
use sheaf_common::status::{Answer, RunState, RunStatus};

use super::plan::Job;

/// What became of a trial's run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) job: Job,
    pub(super) run: RunId,
    /// Rounds that it was to have.
    pub(super) rounds: u32,
    /// Rounds that it had.
    pub(super) completed_rounds: u32,
    /// How it ended.
    pub(super) state: RunState,
    /// Why so; empty when there is nothing to say.
    pub(super) detail: String,
    /// The pooled metric of the run's result; `None` unless it was completed and evaluated.
    pub(super) score: Option<f64>,
}

impl Outcome {
    /// What became of a run that is over.
    pub(super) fn of(job: Job, status: &RunStatus, metric: Monitor) -> Self {
        let summary = &status.summary;
        let completed = summary.state == RunState::Completed;
        let score = if status.spec.validation.restore_best {
            status.best.map(|best| best.value)
        } else {
            status.final_metrics.as_ref().and_then(|report| metric.of(report))
        };
        let score = score.filter(|_| completed);
        let mut detail = summary.detail.clone();
        if completed && score.is_none() && detail.is_empty() {
            detail = format!("no {metric} came from the sites");
        } else if let Some((site, reason)) = refusal(status).filter(|_| summary.state == RunState::Failed) {
            detail = format!("{detail}; {site}: {reason}");
        }
        Self {
            job,
            run: summary.run.clone(),
            rounds: summary.rounds,
            completed_rounds: summary.completed_rounds,
            state: summary.state.clone(),
            detail,
            score,
        }
    }

    /// The server would not take the run.
    pub(super) fn refused(job: Job, run: RunId, rounds: u32, why: String) -> Self {
        Self { job, run, rounds, completed_rounds: 0, state: RunState::Failed, detail: why, score: None }
    }
}

/// What a site said in the last attempt, or what was said of its update: mostly why the run failed.
fn refusal(status: &RunStatus) -> Option<(&ClientId, &str)> {
    status.history.last()?.participants.iter().find_map(|member| match &member.answer {
        Answer::Rejected(reason) | Answer::Declined(reason) => Some((&member.site, reason.as_str())),
        Answer::Pending | Answer::Ready | Answer::Accepted => None,
    })
}

/// The best first: those with a score before those without, more rounds before fewer, for a figure after few rounds is
/// none after many. What is equally good stays in the order of the trials.
pub(super) fn ranked<'a>(outcomes: impl Iterator<Item = &'a Outcome>, metric: Monitor) -> Vec<&'a Outcome> {
    let mut ranked: Vec<&Outcome> = outcomes.collect();
    let score = |one: &Outcome, other: &Outcome| match (one.score, other.score) {
        (Some(one), Some(other)) => metric.gain(one, other).total_cmp(&0.0),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    };
    let scored = |outcome: &Outcome| (outcome.score.is_none(), Reverse(outcome.job.rung));
    ranked.sort_by(|one, other| {
        let rungs = scored(one).cmp(&scored(other));
        rungs.then_with(|| score(one, other)).then_with(|| one.job.cmp(&other.job))
    });
    ranked
}
