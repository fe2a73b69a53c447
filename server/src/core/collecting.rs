//! A round in progress: its cohort trains and answers.
//!
//! It closes when every member has answered, or at the deadline with at least `min_updates`. It is abandoned at
//! the deadline below that, or as soon as `min_updates` can no longer be reached.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sheaf_common::blob::BlobId;
use sheaf_common::id::ClientId;
use sheaf_common::message::{TaskId, Update};
use sheaf_common::metrics::{Counts, Kind, Report};
use sheaf_common::record::Counted;
use sheaf_common::status::{Answer, Participant, RoundOutcome, RoundRecord};
use sheaf_common::time::Timestamp;

use super::members::{Member, Members};
use super::securing::Closed;
use super::verdict::{Accepted, Rejected, judge};
use super::{
    Aggregating, Context, Effect, Evaluating, Finished, Input, Inspection, RoundView, Securing, State,
    Summed, Waiting,
};

/// Who was asked and what came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Collecting {
    task: TaskId,
    started: Timestamp,
    pub(super) deadline: Timestamp,
    members: Members,
}

impl Collecting {
    /// Sends the task to the cohort.
    pub(super) fn start(
        context: &mut Context,
        task: TaskId,
        cohort: BTreeSet<ClientId>,
        now: Timestamp,
    ) -> Self {
        let deadline = now.after(context.run.spec.cohort.round_timeout);
        for site in &cohort {
            context.emit(Effect::Train { to: site.clone(), task: task.clone(), deadline });
        }
        Self { task, started: now, deadline, members: Members::of(cohort) }
    }

    pub(super) fn handle(mut self, context: &mut Context, input: Input, now: Timestamp) -> State {
        match input {
            Input::Update { from, update, inspection } => self.take(context, from, *update, inspection),
            Input::Ready { from, .. } => self.members.set(&from, Member::Ready),
            Input::Declined { from, reason, .. } => self.members.set(&from, Member::Declined(reason)),
            Input::Connected(site) => self.remind(context, &site),
            Input::Excluded { site, keep_updates, why } => self.exclude(context, &site, keep_updates, why),
            // Sites may have waited for the server in vain: the round's clock starts again.
            Input::Restarted => self.deadline = now.after(context.run.spec.cohort.round_timeout),
            Input::Tick
            | Input::Start
            | Input::Disconnected(_)
            | Input::Secure { .. }
            | Input::Evaluated { .. }
            | Input::Aggregated { .. }
            | Input::AggregationFailed { .. }
            | Input::Stop(_) => {}
        }
        self.proceed(context, now)
    }

    /// Closes, abandons or goes on.
    fn proceed(self, context: &mut Context, now: Timestamp) -> State {
        let needed = context.run.spec.cohort.min_updates as usize;
        let (accepted, pending) = (self.members.counting(), self.members.pending());
        if pending > 0 && now < self.deadline && accepted + pending >= needed {
            return State::Collecting(self);
        }
        if accepted >= needed && context.is_secure() {
            Securing::start(context, Closed::Round(self), now)
        } else if accepted >= needed {
            State::Aggregating(Aggregating::start(context, self))
        } else {
            let why = if pending > 0 && now >= self.deadline {
                "the deadline passed"
            } else {
                "too many sites fell out"
            };
            let why = format!("{why} with {accepted} of {needed} needed updates");
            self.abandon(context, why, now)
        }
    }

    /// Ends the attempt without a result and tries again, or gives the run up.
    pub(super) fn abandon(self, context: &mut Context, why: String, now: Timestamp) -> State {
        let record = self.record(RoundOutcome::Abandoned(why.clone()), context, now);
        context.emit(Effect::Record(Box::new(record)));
        let attempts = context.run.spec.cohort.max_attempts;
        let last = self.task.attempt >= attempts;
        // Updates that are ready at their sites, and were not revealed, serve the next attempt.
        if last || !context.is_secure() {
            self.dismiss(context);
        }
        if last {
            let why =
                format!("round {} was abandoned {attempts} times; the last time {why}", self.task.round);
            return Finished::failed(context, why);
        }
        Waiting { round: self.task.round, attempt: self.task.attempt + 1 }.proceed(context, now)
    }

    /// Tells the members that the attempt is over and lets go of their updates.
    pub(super) fn dismiss(&self, context: &mut Context) {
        for site in self.members.all().keys() {
            context.emit(Effect::Over { to: site.clone(), task: self.task.clone() });
        }
        context.emit(Effect::Forget(self.deltas().collect()));
    }

    fn take(
        &mut self,
        context: &mut Context,
        from: ClientId,
        update: Update,
        inspection: Option<Inspection>,
    ) {
        let task = update.task.clone();
        let member = match judge(context, update, inspection) {
            Ok(accepted) => Member::Accepted(Box::new(accepted)),
            Err(Rejected(reason)) => {
                context.emit(Effect::Reject { to: from.clone(), task, reason: reason.clone() });
                Member::Rejected(reason)
            }
        };
        self.members.set(&from, member);
    }

    /// Why an answer is not awaited, if so.
    pub(super) fn objection(
        &self,
        context: &Context,
        input: &Input,
        from: &ClientId,
        task: &TaskId,
    ) -> Option<String> {
        if *task != self.task {
            return Some(format!("it answers {task}, but {} is in progress", self.task));
        }
        match self.members.all().get(from) {
            None => return Some(format!("{from} is not in the cohort of {task}")),
            Some(Member::Pending) => {}
            Some(Member::Accepted(_) | Member::Ready | Member::Rejected(_) | Member::Declined(_)) => {
                return Some(format!("{from} has already answered {task}"));
            }
        }
        let secure = context.is_secure();
        if secure && matches!(input, Input::Update { .. }) {
            return Some("this run encrypts updates: nobody may send one in the open".into());
        }
        let fits = matches!(
            (input, secure),
            (Input::Update { .. }, false) | (Input::Ready { .. }, true) | (Input::Declined { .. }, _)
        );
        (!fits).then(|| format!("no such answer to {task} is awaited"))
    }

    /// The members whose updates are ready to be summed securely.
    pub(super) fn ready(&self) -> BTreeSet<ClientId> {
        let ready = self.members.all().iter().filter(|(_, member)| **member == Member::Ready);
        ready.map(|(site, _)| site.clone()).collect()
    }

    /// Says of a member why it fell out of a secure sum.
    pub(super) fn blame(&mut self, site: &ClientId, why: &str) {
        self.members.set(site, Member::Declined(why.to_owned()));
    }

    /// A member may no longer take part. What lies at the site cannot be had any more; what it gave is dropped, unless
    /// it is to be kept.
    pub(super) fn exclude(
        &mut self,
        context: &mut Context,
        site: &ClientId,
        keep_updates: bool,
        why: String,
    ) {
        match self.members.all().get(site) {
            Some(Member::Accepted(accepted)) if !keep_updates => {
                context.emit(Effect::Forget(vec![accepted.delta]));
                self.members.set(site, Member::Rejected(why));
            }
            Some(Member::Pending | Member::Ready) => self.members.set(site, Member::Declined(why)),
            Some(Member::Accepted(_) | Member::Rejected(_) | Member::Declined(_)) | None => {}
        }
    }

    /// Gives a member that came back its task again, and one that is ready, too: it may have forgotten what the task is about.
    fn remind(&self, context: &mut Context, site: &ClientId) {
        if matches!(self.members.all().get(site), Some(Member::Pending | Member::Ready)) {
            let (to, task, deadline) = (site.clone(), self.task.clone(), self.deadline);
            context.emit(Effect::Train { to, task, deadline });
        }
    }

    /// Whether an update of the site counts.
    pub(super) fn counts(&self, site: &ClientId) -> bool {
        matches!(self.members.all().get(site), Some(Member::Accepted(_)))
    }

    pub(super) fn task(&self) -> &TaskId {
        &self.task
    }

    /// The updates that count and their weights, in the order of the sites' names.
    pub(super) fn updates(&self) -> impl Iterator<Item = &Accepted> {
        self.members.all().values().filter_map(|member| match member {
            Member::Accepted(accepted) => Some(&**accepted),
            Member::Pending | Member::Ready | Member::Rejected(_) | Member::Declined(_) => None,
        })
    }

    /// The same, as they are published.
    pub(super) fn counted(&self) -> Vec<Counted> {
        let counted = |(site, member): (&ClientId, &Member)| match member {
            Member::Accepted(accepted) => Some(Counted {
                site: site.clone(),
                update: accepted.delta,
                num_examples: accepted.num_examples,
            }),
            Member::Pending | Member::Ready | Member::Rejected(_) | Member::Declined(_) => None,
        };
        self.members.all().iter().filter_map(counted).collect()
    }

    pub(super) fn deltas(&self) -> impl Iterator<Item = BlobId> {
        self.updates().map(|accepted| accepted.delta)
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.members.pending() == self.members.all().len()
    }

    pub(super) fn view(&self) -> RoundView {
        let members =
            self.members.all().iter().map(|(site, member)| (site.clone(), member.answer())).collect();
        let (task, started, deadline) = (self.task.clone(), self.started, self.deadline);
        RoundView { task, started, deadline, stage: "training", members }
    }

    pub(super) fn record(&self, outcome: RoundOutcome, context: &Context, now: Timestamp) -> RoundRecord {
        let weight: u64 = self.updates().map(|update| update.num_examples).sum();
        let loss: f64 = self.updates().map(|update| update.train_loss * update.num_examples as f64).sum();
        let kind = Kind::of(&context.run.spec);
        RoundRecord {
            round: self.task.round,
            attempt: self.task.attempt,
            started: self.started,
            ended: now,
            outcome,
            participants: self.participants(),
            global_metrics: pool(&kind, self.updates().filter_map(|update| update.global_metrics.as_ref())),
            local_metrics: pool(&kind, self.updates().filter_map(|update| update.local_metrics.as_ref())),
            train_loss: (weight > 0).then(|| loss / weight as f64),
            secure: None,
            record: None,
        }
    }

    /// The record of a round that was summed securely over `survivors`.
    pub(super) fn secure_record(
        &self,
        outcome: RoundOutcome,
        summed: &Summed,
        survivors: &BTreeSet<ClientId>,
        context: &Context,
        now: Timestamp,
    ) -> RoundRecord {
        let kind = Kind::of(&context.run.spec);
        let mut record = self.record(outcome, context, now);
        for participant in &mut record.participants {
            if survivors.contains(&participant.site) {
                (participant.answer, participant.num_examples) = (Answer::Accepted, None);
            }
            if summed.culprits.contains(&participant.site) {
                participant.answer = Answer::Rejected("it gave a wrong share".into());
            }
        }
        RoundRecord {
            global_metrics: pool(&kind, summed.global_metrics.iter()),
            local_metrics: pool(&kind, summed.local_metrics.iter()),
            train_loss: summed.train_loss,
            secure: Some(summed.sum.clone()),
            ..record
        }
    }

    /// The round is done: the next one, or the end.
    pub(super) fn complete(self, context: &mut Context, global: BlobId, now: Timestamp) -> State {
        self.dismiss(context);
        context.global = global;
        context.completed = self.task.round;
        let spec = &context.run.spec;
        if context.completed < spec.rounds && !spec.validation.is_exhausted(context.best) {
            Waiting { round: context.completed + 1, attempt: 1 }.proceed(context, now)
        } else {
            Evaluating::start(context, now)
        }
    }

    fn participants(&self) -> Vec<Participant> {
        let weight = |member: &Member| match member {
            Member::Accepted(accepted) => accepted.num_examples,
            Member::Pending | Member::Ready | Member::Rejected(_) | Member::Declined(_) => 0,
        };
        self.members
            .all()
            .iter()
            .map(|(site, member)| Participant {
                site: site.clone(),
                answer: member.answer(),
                num_examples: Some(weight(member)),
            })
            .collect()
    }
}

/// The metrics over all sites' examples, from their merged counts.
pub(super) fn pool<'a>(kind: &Kind, counts: impl Iterator<Item = &'a Counts>) -> Option<Report> {
    let mut pooled = Counts::new(kind);
    for counts in counts {
        // Counts that were checked against the run's task always merge; others were rejected.
        pooled.merge(counts).ok()?;
    }
    (pooled.num_examples() > 0).then(|| pooled.report(kind))
}
