//! The cohort's results are ready at the sites; the five stages of a secure sum bring them together.
//!
//! Every stage waits until everybody has answered or fallen out, at most until its deadline, and goes on with
//! those that did. What follows from who is missing is the protocol's to say ([`sheaf_common::secagg::server`]).

use serde::{Deserialize, Serialize};
use sheaf_common::id::ClientId;
use sheaf_common::message::{Job, TaskId};
use sheaf_common::run::{GraphKind, SecAggSpec, SecureAggregation};
use sheaf_common::secagg::graph::{COMPLETE_MAX, roster_max};
use sheaf_common::secagg::layout::Layout;
use sheaf_common::secagg::params::RoundParams;
use sheaf_common::secagg::quantize::Encoding;
use sheaf_common::secagg::server::{Next, Server};
use sheaf_common::status::RunState;
use sheaf_common::time::Timestamp;

use super::{Collecting, Context, Effect, Evaluating, Input, Opening, RoundView, State};

/// What is summed: a round's updates, or the counts of the final model's evaluation or of a survey.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Closed {
    Round(Collecting),
    Final(Evaluating),
}

/// Which stage, among whom, until when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Securing {
    pub(super) closed: Closed,
    pub(super) protocol: Server,
    pub(super) deadline: Timestamp,
}

impl Securing {
    /// Opens the first stage among the members whose results are ready.
    pub(super) fn start(context: &mut Context, closed: Closed, now: Timestamp) -> State {
        let SecureAggregation::Required(spec) = context.run.spec.secure_aggregation else {
            return closed.fail(context, "the run does not ask for secure aggregation".into(), now);
        };
        let members = closed.ready();
        let params = match params(context, &closed, &spec, members.len()) {
            Ok(params) => params,
            Err(why) => return closed.fail(context, why, now),
        };
        let state = Self { closed, protocol: Server::new(params, members), deadline: now };
        state.begin(context, &spec, now)
    }

    pub(super) fn handle(mut self, context: &mut Context, input: Input, now: Timestamp) -> State {
        let SecureAggregation::Required(spec) = context.run.spec.secure_aggregation else {
            return self.fail(context, "the run does not ask for secure aggregation".into(), now);
        };
        match input {
            Input::Secure { from, task, answer, evidence } => {
                if let Err(rejected) = self.protocol.take(&from, *answer, evidence) {
                    let reason = rejected.to_string();
                    self.protocol.lost(&from);
                    self.closed.blame(&from, &reason);
                    context.emit(Effect::Reject { to: from, task, reason });
                }
            }
            Input::Declined { from, reason, .. } => {
                self.protocol.lost(&from);
                self.closed.blame(&from, &reason);
            }
            Input::Connected(site) => self.remind(context, &site),
            // Once shares were asked for, its update is in a sum that cannot be formed again without it.
            Input::Excluded { site, keep_updates, why } => {
                let dropped = !keep_updates && !self.protocol.is_unmasking() && self.protocol.holds(&site);
                self.protocol.lost(&site);
                self.closed.blame(&site, &why);
                if dropped {
                    let why = format!("a masked update no longer counts: of {site}, {why}");
                    return self.fail(context, why, now);
                }
            }
            Input::Restarted => self.deadline = now.after(self.patience(context, &spec)),
            Input::Start
            | Input::Update { .. }
            | Input::Ready { .. }
            | Input::Disconnected(_)
            | Input::Evaluated { .. }
            | Input::Aggregated { .. }
            | Input::AggregationFailed { .. }
            | Input::Stop(_)
            | Input::Tick => {}
        }
        self.proceed(context, &spec, now)
    }

    /// Whether an answer is awaited: not what came late or twice, or for another stage.
    pub(super) fn awaits(&self, context: &Context, input: &Input, from: &ClientId, task: &TaskId) -> bool {
        let awaited = if let Input::Secure { answer, .. } = input {
            self.protocol.awaits(from, answer)
        } else {
            matches!(input, Input::Declined { .. }) && self.protocol.awaited().contains(from)
        };
        awaited && *task == self.closed.task(context)
    }

    /// Goes on to the next stage when this one is over.
    fn proceed(self, context: &mut Context, spec: &SecAggSpec, now: Timestamp) -> State {
        if !self.protocol.awaited().is_empty() && now < self.deadline {
            return State::Securing(self);
        }
        let Self { closed, protocol, deadline } = self;
        let blobs = protocol.blobs();
        match protocol.proceed() {
            Ok(Next::Stage(protocol)) => Self { closed, protocol, deadline }.begin(context, spec, now),
            Ok(Next::Open(unmasking)) => State::Opening(Opening::start(context, closed, unmasking)),
            Err(aborted) => {
                context.emit(Effect::Forget(blobs));
                closed.fail(context, aborted.to_string(), now)
            }
        }
    }

    /// Asks everybody who is awaited.
    fn begin(mut self, context: &mut Context, spec: &SecAggSpec, now: Timestamp) -> State {
        self.deadline = now.after(self.patience(context, spec));
        for site in self.protocol.awaited() {
            self.ask(context, site);
        }
        State::Securing(self)
    }

    /// Masked vectors are as long as the model; everything else is short.
    fn patience(&self, context: &Context, spec: &SecAggSpec) -> std::time::Duration {
        match self.protocol {
            Server::Masking(_) => context.run.spec.cohort.round_timeout.max(spec.stage_timeout),
            Server::Advertising(_) | Server::Sharing(_) | Server::Confirming(_) | Server::Unmasking(_) => {
                spec.stage_timeout
            }
        }
    }

    fn ask(&self, context: &mut Context, site: &ClientId) {
        let Some(ask) = self.protocol.ask(site) else { return };
        let put = self.protocol.masked_bytes();
        let (to, task) = (site.clone(), self.closed.task(context));
        context.emit(Effect::Ask { to, task, ask: Box::new(ask), put });
    }

    /// Gives a member that came back its task again, which it may have forgotten, and the stage's question.
    fn remind(&self, context: &mut Context, site: &ClientId) {
        if self.protocol.awaited().contains(site) {
            self.closed.remind(context, site, self.deadline);
            self.ask(context, site);
        }
    }

    fn fail(self, context: &mut Context, why: String, now: Timestamp) -> State {
        context.emit(Effect::Forget(self.protocol.blobs()));
        self.closed.fail(context, why, now)
    }

    pub(super) fn dismiss(&self, context: &mut Context) {
        context.emit(Effect::Forget(self.protocol.blobs()));
        self.closed.dismiss(context);
    }

    pub(super) fn view(&self, context: &Context) -> RoundView {
        RoundView { deadline: self.deadline, stage: self.protocol.stage(), ..self.closed.view(context) }
    }
}

impl Closed {
    fn ready(&self) -> std::collections::BTreeSet<ClientId> {
        match self {
            Self::Round(state) => state.ready(),
            Self::Final(state) => state.ready(),
        }
    }

    pub(super) fn task(&self, context: &Context) -> TaskId {
        match self {
            Self::Round(state) => state.task().clone(),
            Self::Final(state) => state.task(context),
        }
    }

    /// What the members' tasks are about.
    pub(super) fn job(&self, context: &Context) -> Job {
        match self {
            Self::Round(_) => context.job(),
            Self::Final(state) => state.job(context),
        }
    }

    pub(super) fn state(&self) -> RunState {
        match self {
            Self::Round(_) => RunState::Running,
            Self::Final(_) => RunState::Evaluating,
        }
    }

    /// Nothing comes of the attempt: a round is tried again, a final evaluation is done without, a survey fails.
    pub(super) fn fail(self, context: &mut Context, why: String, now: Timestamp) -> State {
        match self {
            Self::Round(state) => state.abandon(context, why, now),
            Self::Final(state) => state.fail(context, &why, now),
        }
    }

    fn blame(&mut self, site: &ClientId, why: &str) {
        match self {
            Self::Round(state) => state.blame(site, why),
            Self::Final(state) => state.blame(site, why),
        }
    }

    fn remind(&self, context: &mut Context, site: &ClientId, deadline: Timestamp) {
        let (to, task) = (site.clone(), self.task(context));
        context.emit(match self {
            Self::Round(_) => Effect::Train { to, task, deadline },
            Self::Final(_) => Effect::Evaluate { to, task },
        });
    }

    pub(super) fn dismiss(&self, context: &mut Context) {
        match self {
            Self::Round(state) => state.dismiss(context),
            Self::Final(state) => state.dismiss(context),
        }
    }

    pub(super) fn view(&self, context: &Context) -> RoundView {
        match self {
            Self::Round(state) => state.view(),
            Self::Final(state) => state.view(context),
        }
    }
}

/// The terms of the attempt, which every site derives by itself too.
fn params(
    context: &Context,
    closed: &Closed,
    spec: &SecAggSpec,
    members: usize,
) -> Result<RoundParams, String> {
    let (job, task) = (closed.job(context), closed.task(context));
    let layout = match closed {
        Closed::Round(_) => Layout::of_round(&job),
        Closed::Final(_) => Layout::of_evaluation(&job),
    };
    let most = u32::try_from(members).unwrap_or(u32::MAX);
    if most > COMPLETE_MAX && spec.graph == GraphKind::Complete {
        return Err(format!(
            "{members} sites are too many for a complete graph, which is for {COMPLETE_MAX}: bound the cohort with `count`"
        ));
    }
    let most_keys = roster_max(spec.post_quantum);
    if most > most_keys {
        return Err(format!(
            "the keys of {members} sites do not fit in a message, only those of {most_keys}: bound the cohort with `count`"
        ));
    }
    let encoding = Encoding::new(spec.quantization_bits, most.max(2)).map_err(|e| e.to_string())?;
    let ranges = match closed {
        Closed::Round(_) => context.ranges.clone(),
        Closed::Final(_) => Vec::new(),
    };
    Ok(RoundParams {
        federation: context.run.federation.clone(),
        // What is tested was published before, and the newest record need not be that of its round.
        previous: context.digest().filter(|_| !task.is_test()),
        task,
        origin: job.origin(),
        model: job.global,
        layout,
        encoding,
        ranges,
        weight_cap: job.spec.cohort.max_examples,
        min_updates: job.spec.cohort.min_updates,
        max_colluding: spec.max_colluding,
        graph: spec.graph,
        post_quantum: spec.post_quantum,
    })
}
