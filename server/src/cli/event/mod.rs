//! What happened to a run between two looks at it, and ([`text`]) how it is written.

mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use sheaf_common::id::{ClientId, RunId};
use sheaf_common::metrics::Report;
use sheaf_common::status::{Answer, Progress, RoundRecord, RunState, RunStatus};

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    /// It is seen for the first time.
    Found { run: RunId, state: RunState, detail: String, completed: u32, rounds: u32 },
    /// It waits, or goes on, for this reason.
    State { state: RunState, detail: String },
    /// An attempt at a round began.
    Started { at: At, sites: Vec<ClientId> },
    /// A site began a pass over its training data that is not the first.
    Epoch { at: At, site: ClientId, epoch: u64, epochs: u64, time_left: Option<Duration> },
    /// A site's update was counted; so many of the cohort's were by then.
    Answered { at: At, site: ClientId, answered: usize, of: usize },
    /// A site's update was refused, or the site declined.
    Refused { at: At, site: ClientId, answer: Answer },
    /// An attempt at a round is over.
    Over { at: At, record: Box<RoundRecord> },
    /// Nothing more will happen.
    Ended {
        run: RunId,
        state: RunState,
        detail: String,
        metrics: Option<Box<Report>>,
        test: Option<Box<Report>>,
    },
}

/// An attempt at a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) round: u32,
    pub(super) rounds: u32,
    pub(super) attempt: u32,
}

/// The events that lead from `old` (nothing, at the first look) to `new`, in their order. What was over before the
/// first look is told without its details.
pub(super) fn changes(old: Option<&RunStatus>, new: &RunStatus) -> Vec<Event> {
    let mut events = Vec::new();
    if old.is_none() {
        events.push(found(new));
    }
    let before = old.and_then(Attempt::current);
    let known = old.map_or(0, |old| old.history.len());
    for record in new.history.get(known..).unwrap_or_default() {
        let attempt = Attempt::over(new, record);
        if old.is_some() {
            attempt.progress_since(before.as_ref(), &mut events);
        }
        events.push(Event::Over { at: attempt.at, record: Box::new(record.clone()) });
    }
    if let Some(attempt) = Attempt::current(new) {
        attempt.progress_since(before.as_ref(), &mut events);
    }
    events.extend(state_change(old, new));
    events
}

fn found(status: &RunStatus) -> Event {
    let summary = &status.summary;
    Event::Found {
        run: summary.run.clone(),
        state: summary.state.clone(),
        detail: if summary.state.is_final() { String::new() } else { summary.detail.clone() },
        completed: summary.completed_rounds,
        rounds: summary.rounds,
    }
}

fn state_change(old: Option<&RunStatus>, new: &RunStatus) -> Option<Event> {
    let summary = &new.summary;
    let (state, detail) = (summary.state.clone(), summary.detail.clone());
    if state.is_final() {
        let metrics = new.final_metrics.clone().map(Box::new);
        let test = new.test_metrics.clone().map(Box::new);
        return Some(Event::Ended { run: summary.run.clone(), state, detail, metrics, test });
    }
    let old = &old?.summary;
    let same = old.state == state && old.detail == detail;
    // That it runs is seen from its rounds.
    (!same && state != RunState::Running).then_some(Event::State { state, detail })
}

/// An attempt at a round, in progress or over: who is asked, and what became of it.
struct Attempt<'a> {
    at: At,
    answers: Vec<(&'a ClientId, &'a Answer)>,
    /// What those do that have not answered.
    progress: BTreeMap<&'a ClientId, &'a Progress>,
}

impl<'a> Attempt<'a> {
    fn current(status: &'a RunStatus) -> Option<Self> {
        let current = status.current.as_ref()?;
        Some(Self {
            at: At { round: current.round, rounds: status.summary.rounds, attempt: current.attempt },
            answers: current.members.iter().map(|member| (&member.site, &member.answer)).collect(),
            progress: current
                .members
                .iter()
                .filter(|member| member.answer == Answer::Pending)
                .filter_map(|member| Some((&member.site, member.progress.as_ref()?)))
                .collect(),
        })
    }

    fn over(status: &RunStatus, record: &'a RoundRecord) -> Self {
        Self {
            at: At { round: record.round, rounds: status.summary.rounds, attempt: record.attempt },
            answers: record.participants.iter().map(|member| (&member.site, &member.answer)).collect(),
            progress: BTreeMap::new(),
        }
    }

    /// What happened in this attempt since `before`, which may have been another one.
    fn progress_since(&self, before: Option<&Attempt<'_>>, events: &mut Vec<Event>) {
        let before = before.filter(|before| before.at == self.at);
        if before.is_none() {
            let sites = self.answers.iter().map(|(site, _)| (*site).clone()).collect();
            events.push(Event::Started { at: self.at, sites });
        }
        self.epochs_since(before, events);
        let known = |site: &ClientId| {
            let answers = before.map_or(&[][..], |before| &before.answers);
            answers.iter().find(|(member, _)| *member == site).map_or(&Answer::Pending, |(_, answer)| *answer)
        };
        let (of, counted) = (self.answers.len(), |answer: &Answer| *answer == Answer::Accepted);
        let mut answered = self.answers.iter().filter(|(site, _)| counted(known(site))).count();
        for (site, answer) in self.answers.iter().filter(|(site, answer)| known(site) != *answer) {
            let (at, site) = (self.at, (*site).clone());
            match answer {
                Answer::Pending | Answer::Ready => {}
                Answer::Accepted => {
                    answered += 1;
                    events.push(Event::Answered { at, site, answered, of });
                }
                Answer::Rejected(_) | Answer::Declined(_) => {
                    events.push(Event::Refused { at, site, answer: (*answer).clone() });
                }
            }
        }
    }

    fn epochs_since(&self, before: Option<&Attempt<'_>>, events: &mut Vec<Event>) {
        let known =
            |site| before.and_then(|before| before.progress.get(site)?.epoch()).map(|(epoch, _)| epoch);
        for (site, progress) in &self.progress {
            let Some((epoch, epochs)) = progress.epoch() else { continue };
            if epoch > known(site).unwrap_or(1) {
                let (at, site, time_left) = (self.at, (*site).clone(), progress.time_left);
                events.push(Event::Epoch { at, site, epoch, epochs, time_left });
            }
        }
    }
}

impl Event {
    /// Whether it is worth a line where the bars show what goes on anyway.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Over { .. } | Self::Ended { .. } => true,
            Self::Found { .. }
            | Self::State { .. }
            | Self::Started { .. }
            | Self::Epoch { .. }
            | Self::Answered { .. } => false,
        }
    }
}
