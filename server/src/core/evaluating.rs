//! All rounds are done: the sites that are connected evaluate the last model on their validation splits. In a run that
//! leaves a site out it alone does so, on all of its data. A sum over one site is that site's, so its answer comes in the
//! open, and whether it comes is that site's to say.
//! A survey has no rounds, and is this alone: the sites count what they hold.
//!
//! With `validation.test_split` another evaluation follows: of the run's result, which the validation metrics chose, on
//! what neither trained nor chose it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sheaf_common::id::ClientId;
use sheaf_common::message::{Job, TaskId};
use sheaf_common::metrics::{Counts, Kind, Report};
use sheaf_common::status::Answer;
use sheaf_common::time::Timestamp;

use super::collecting::pool;
use super::securing::Closed;
use super::{Context, Effect, Finished, Input, RoundView, Securing, State};

/// Most sites whose reasons are told when a survey fails.
const REASONS: usize = 8;

/// Who was asked and what came back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Evaluating {
    part: Part,
    started: Timestamp,
    pub(super) deadline: Timestamp,
    members: BTreeMap<ClientId, Member>,
}

/// Which of the held-out parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    /// The last model on validation splits.
    Validation,
    /// The run's result on test splits.
    Test,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Member {
    Pending,
    /// With secure aggregation: its counts are ready, and stay at the site.
    Ready,
    Evaluated(Option<Counts>),
    Declined(String),
}

impl Evaluating {
    /// Asks every connected site, unless there is nothing to evaluate on; or the one that was left out, which is waited
    /// for.
    pub(super) fn start(context: &mut Context, now: Timestamp) -> State {
        let spec = &context.run.spec;
        let sites = match &spec.validation.leave_out {
            Some(site) => BTreeSet::from([site.clone()]),
            None if spec.validates() => context.connected.clone(),
            None => BTreeSet::new(),
        };
        Self::of(Part::Validation, sites, context, now)
    }

    fn of(part: Part, sites: BTreeSet<ClientId>, context: &mut Context, now: Timestamp) -> State {
        let state = Self {
            part,
            started: now,
            deadline: now.after(context.run.spec.cohort.round_timeout),
            members: sites.into_iter().map(|site| (site, Member::Pending)).collect(),
        };
        for site in state.members.keys() {
            if context.connected.contains(site) {
                state.ask(context, site);
            }
        }
        state.proceed(context, now)
    }

    pub(super) fn handle(mut self, context: &mut Context, input: Input, now: Timestamp) -> State {
        match input {
            Input::Ready { from, .. } => self.answer(&from, Member::Ready),
            // What is ready at a site is summed, and never said in the open.
            Input::Evaluated { from, .. } if is_summed(context) => {
                self.answer(&from, Member::Declined("it sent its metrics in the open".into()));
            }
            Input::Evaluated { from, metrics, .. } => {
                let kind = Kind::of(&context.run.spec);
                let sound = metrics.as_ref().map_or(Ok(()), |counts| counts.is_sound(&kind, 1));
                let answer = match sound {
                    Ok(()) => Member::Evaluated(metrics),
                    Err(why) => Member::Declined(format!("its metrics do not add up: {why}")),
                };
                self.answer(&from, answer);
            }
            Input::Declined { from, reason, .. } => self.answer(&from, Member::Declined(reason)),
            Input::Excluded { site, why, .. } => self.answer(&site, Member::Declined(why)),
            // One that is ready may have forgotten what it is about.
            Input::Connected(site)
                if matches!(self.members.get(&site), Some(Member::Pending | Member::Ready)) =>
            {
                self.ask(context, &site);
            }
            Input::Restarted => self.deadline = now.after(context.run.spec.cohort.round_timeout),
            Input::Start
            | Input::Connected(_)
            | Input::Disconnected(_)
            | Input::Update { .. }
            | Input::Secure { .. }
            | Input::Aggregated { .. }
            | Input::AggregationFailed { .. }
            | Input::Stop(_)
            | Input::Tick => {}
        }
        self.proceed(context, now)
    }

    fn proceed(self, context: &mut Context, now: Timestamp) -> State {
        if now < self.deadline && self.members.values().any(|member| *member == Member::Pending) {
            return State::Evaluating(self);
        }
        if self.members.values().any(|member| *member == Member::Ready) {
            return Securing::start(context, Closed::Final(self), now);
        }
        let counts = self.members.values().filter_map(|member| match member {
            Member::Evaluated(counts) => counts.as_ref(),
            Member::Pending | Member::Ready | Member::Declined(_) => None,
        });
        let counts: Vec<&Counts> = counts.collect();
        let (sites, spec) = (counts.len(), &context.run.spec);
        if spec.is_survey() && sites < spec.cohort.min_updates as usize {
            let why = format!("{sites} sites counted, {} are needed", spec.cohort.min_updates);
            return self.fail(context, &why, now);
        }
        let report = pool(&Kind::of(spec), counts.into_iter());
        self.complete(context, report, now)
    }

    /// Keeps what was counted, if there is something.
    pub(super) fn complete(self, context: &mut Context, report: Option<Report>, now: Timestamp) -> State {
        let Some(report) = report else { return self.without_metrics(context, now) };
        self.dismiss(context);
        if self.part == Part::Test {
            context.emit(Effect::TestMetrics(Box::new(report)));
            return Finished::completed(context);
        }
        // Another site's data says nothing about which round was best on those that trained.
        if context.run.spec.validation.leave_out.is_none() {
            context.observe(context.completed, Some(&report));
        }
        context.emit(Effect::FinalMetrics(Box::new(report)));
        Self::go_on(context, now)
    }

    /// The validation splits have said what they have to say.
    fn go_on(context: &mut Context, now: Timestamp) -> State {
        if !context.run.spec.tests() {
            return Finished::completed(context);
        }
        Self::of(Part::Test, context.connected.clone(), context, now)
    }

    /// Says why, when it was for them that a site was left out.
    fn without_metrics(self, context: &mut Context, now: Timestamp) -> State {
        if context.run.spec.is_survey() || self.part == Part::Test {
            return self.fail(context, "no site has enough examples to send their counts", now);
        }
        self.dismiss(context);
        let Some(site) = &context.run.spec.validation.leave_out else { return Self::go_on(context, now) };
        let why = match self.members.get(site) {
            Some(Member::Declined(why)) => format!("{site}, which was left out: {why}"),
            Some(Member::Evaluated(_)) => {
                format!("{site}, which was left out, sent none: it has too few examples, as its log says")
            }
            Some(Member::Pending | Member::Ready) | None => {
                format!("{site}, which was left out, did not answer in time")
            }
        };
        Finished::completed_without_metrics(context, &why)
    }

    /// Nothing comes of it: a trained model stands all the same, a survey has failed.
    pub(super) fn fail(self, context: &mut Context, why: &str, now: Timestamp) -> State {
        self.dismiss(context);
        if self.part == Part::Test {
            return Finished::completed_without_test(context, why);
        }
        if context.run.spec.tests() {
            return Self::go_on(context, now);
        }
        if !context.run.spec.is_survey() {
            return Finished::completed_without_metrics(context, why);
        }
        let declined = self.members.iter().filter_map(|(site, member)| match member {
            Member::Declined(reason) => Some(format!("; {site}: {reason}")),
            Member::Pending | Member::Ready | Member::Evaluated(_) => None,
        });
        let reasons: String = declined.take(REASONS).collect();
        Finished::failed(context, format!("the survey came to nothing: {why}{reasons}"))
    }

    /// Tells the members that nothing more is asked of them.
    pub(super) fn dismiss(&self, context: &mut Context) {
        for site in self.members.keys() {
            let task = self.task(context);
            context.emit(Effect::Over { to: site.clone(), task });
        }
    }

    /// Whether an answer is awaited: the first of a member counts.
    pub(super) fn awaits(&self, context: &Context, input: &Input, from: &ClientId, task: &TaskId) -> bool {
        let fits = matches!(input, Input::Evaluated { .. } | Input::Declined { .. })
            || matches!(input, Input::Ready { .. }) && is_summed(context);
        fits && *task == self.task(context) && self.members.get(from) == Some(&Member::Pending)
    }

    fn answer(&mut self, from: &ClientId, answer: Member) {
        if let Some(member) = self.members.get_mut(from) {
            *member = answer;
        }
    }

    fn ask(&self, context: &mut Context, site: &ClientId) {
        let task = self.task(context);
        context.emit(Effect::Evaluate { to: site.clone(), task });
    }

    /// The members whose counts are ready to be summed securely.
    pub(super) fn ready(&self) -> BTreeSet<ClientId> {
        let ready = self.members.iter().filter(|(_, member)| **member == Member::Ready);
        ready.map(|(site, _)| site.clone()).collect()
    }

    /// Says of a member why it fell out of a secure sum.
    pub(super) fn blame(&mut self, site: &ClientId, why: &str) {
        self.answer(site, Member::Declined(why.to_owned()));
    }

    pub(super) fn task(&self, context: &Context) -> TaskId {
        match self.part {
            Part::Validation => context.task(context.completed, 0),
            Part::Test => context.task(context.result().0, TaskId::TEST),
        }
    }

    /// What the sites are asked to evaluate.
    pub(super) fn job(&self, context: &Context) -> Job {
        match self.part {
            Part::Validation => context.job(),
            Part::Test => context.result_job(),
        }
    }

    pub(super) fn view(&self, context: &Context) -> RoundView {
        let answer = |member: &Member| match member {
            Member::Pending => Answer::Pending,
            Member::Ready => Answer::Ready,
            Member::Evaluated(_) => Answer::Accepted,
            Member::Declined(why) => Answer::Declined(why.clone()),
        };
        RoundView {
            task: self.task(context),
            started: self.started,
            deadline: self.deadline,
            stage: match self.part {
                Part::Test => "testing",
                Part::Validation if context.run.spec.is_survey() => "counting",
                Part::Validation => "evaluating",
            },
            members: self.members.iter().map(|(site, member)| (site.clone(), answer(member))).collect(),
        }
    }
}

/// Whether answers are summed securely.
fn is_summed(context: &Context) -> bool {
    context.is_secure() && context.run.spec.validation.leave_out.is_none()
}
