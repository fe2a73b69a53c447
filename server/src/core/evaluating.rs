//! All rounds are done: the sites that are connected evaluate the final model on their validation splits. In a run that
//! leaves a site out it alone does so, on all of its data. A sum over one site is that site's, so its answer comes in the
//! open, and whether it comes is that site's to say.
//! A survey has no rounds, and is this alone: the sites count what they hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sheaf_common::id::ClientId;
use sheaf_common::message::TaskId;
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
    started: Timestamp,
    pub(super) deadline: Timestamp,
    members: BTreeMap<ClientId, Member>,
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
        let deadline = now.after(spec.cohort.round_timeout);
        let sites = match &spec.validation.leave_out {
            Some(site) => BTreeSet::from([site.clone()]),
            None if spec.validates() => context.connected.clone(),
            None => BTreeSet::new(),
        };
        let state = Self {
            started: now,
            deadline,
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
            Input::Ready { from, task } if task == Self::task(context) && is_summed(context) => {
                self.answer(from, Member::Ready);
            }
            // What is ready at a site is summed, and never said in the open.
            Input::Evaluated { from, task, .. } if task == Self::task(context) && is_summed(context) => {
                self.answer(from, Member::Declined("it sent its metrics in the open".into()));
            }
            Input::Evaluated { from, task, metrics } if task == Self::task(context) => {
                let kind = Kind::of(&context.run.spec);
                let sound = metrics.as_ref().map_or(Ok(()), |counts| counts.is_sound(&kind, 1));
                let answer = match sound {
                    Ok(()) => Member::Evaluated(metrics),
                    Err(why) => Member::Declined(format!("its metrics do not add up: {why}")),
                };
                self.answer(from, answer);
            }
            Input::Declined { from, task, reason } if task == Self::task(context) => {
                self.answer(from, Member::Declined(reason));
            }
            Input::Excluded { site, why, .. } => self.blame(&site, &why),
            Input::Connected(site) if self.members.get(&site) == Some(&Member::Pending) => {
                self.ask(context, &site);
            }
            Input::Restarted => self.deadline = now.after(context.run.spec.cohort.round_timeout),
            Input::Update { .. } => context.refuse_stray(input),
            Input::Start
            | Input::Connected(_)
            | Input::Disconnected(_)
            | Input::Ready { .. }
            | Input::Secure { .. }
            | Input::Declined { .. }
            | Input::Evaluated { .. }
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
            return self.fail(context, &why);
        }
        let report = pool(&Kind::of(spec), counts.into_iter());
        self.complete(context, report)
    }

    /// Keeps what was counted, if there is something.
    pub(super) fn complete(self, context: &mut Context, report: Option<Report>) -> State {
        let Some(report) = report else { return self.without_metrics(context) };
        self.dismiss(context);
        // Another site's data says nothing about which round was best on those that trained.
        if context.run.spec.validation.leave_out.is_none() {
            context.observe(context.completed, Some(&report));
        }
        context.emit(Effect::FinalMetrics(Box::new(report)));
        Finished::completed(context)
    }

    /// Says why, when it was for them that a site was left out.
    fn without_metrics(self, context: &mut Context) -> State {
        if context.run.spec.is_survey() {
            return self.fail(context, "no site has enough examples to send their counts");
        }
        self.dismiss(context);
        let Some(site) = &context.run.spec.validation.leave_out else { return Finished::completed(context) };
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
    pub(super) fn fail(self, context: &mut Context, why: &str) -> State {
        self.dismiss(context);
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
            let task = Self::task(context);
            context.emit(Effect::Over { to: site.clone(), task });
        }
    }

    /// The first answer of a member counts.
    fn answer(&mut self, from: ClientId, answer: Member) {
        if let Some(member) = self.members.get_mut(&from)
            && *member == Member::Pending
        {
            *member = answer;
        }
    }

    fn ask(&self, context: &mut Context, site: &ClientId) {
        let task = Self::task(context);
        context.emit(Effect::Evaluate { to: site.clone(), task });
    }

    /// The members whose counts are ready to be summed securely.
    pub(super) fn ready(&self) -> BTreeSet<ClientId> {
        let ready = self.members.iter().filter(|(_, member)| **member == Member::Ready);
        ready.map(|(site, _)| site.clone()).collect()
    }

    /// Says of a member why it fell out of a secure sum.
    pub(super) fn blame(&mut self, site: &ClientId, why: &str) {
        if let Some(member) = self.members.get_mut(site) {
            *member = Member::Declined(why.to_owned());
        }
    }

    pub(super) fn task(context: &Context) -> TaskId {
        context.task(context.completed, 0)
    }

    pub(super) fn view(&self, context: &Context) -> RoundView {
        let answer = |member: &Member| match member {
            Member::Pending => Answer::Pending,
            Member::Ready => Answer::Ready,
            Member::Evaluated(_) => Answer::Accepted,
            Member::Declined(why) => Answer::Declined(why.clone()),
        };
        RoundView {
            task: Self::task(context),
            started: self.started,
            deadline: self.deadline,
            stage: if context.run.spec.is_survey() { "counting" } else { "evaluating" },
            members: self.members.iter().map(|(site, member)| (site.clone(), answer(member))).collect(),
        }
    }
}

/// Whether answers are summed securely.
fn is_summed(context: &Context) -> bool {
    context.is_secure() && context.run.spec.validation.leave_out.is_none()
}
