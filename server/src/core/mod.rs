//! The coordinator of one run: every decision about its rounds, as a deterministic state machine without IO.
//!
//! Feed it [`Input`]s and the time; take [`Effect`]s out. The same inputs give the same effects, which is why the
//! journal of inputs is the run's durable form: [`Coordinator::handle`] over the journal brings a run back.
//!
//! One state, one file, in the order of a run's life:
//! `queued` → `waiting` → `collecting` → `aggregating` → (next round) → `evaluating` → `finished`.

mod aggregating;
mod collecting;
mod evaluating;
mod finished;
mod queued;
mod selector;
mod verdict;
mod waiting;

pub mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use sheaf_common::aggregate::Finding;
use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Name, RunId};
use sheaf_common::message::{Job, TaskId, Update};
use sheaf_common::metrics::{Counts, Report};
use sheaf_common::params::ParamSpec;
use sheaf_common::run::RunSpec;
use sheaf_common::status::{Answer, RoundRecord, RunState};
use sheaf_common::time::Timestamp;

use aggregating::Aggregating;
use collecting::Collecting;
use evaluating::Evaluating;
use finished::Finished;
use queued::Queued;
use waiting::Waiting;

/// A run as it was submitted: fixed for its whole life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// What was asked for.
    pub spec: RunSpec,
    /// Operator who submitted it.
    pub submitted_by: Name,
    /// When.
    pub submitted_at: Timestamp,
    /// Manifest of the imported model, if there is one.
    pub model: Option<BlobId>,
    /// The parameters that travel.
    pub params: ParamSpec,
    /// Their values before round 1.
    pub initial: BlobId,
}

/// Something that happened and that matters to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Input {
    /// The queue lets the run go.
    Start,
    /// The server came back: nobody is connected, and nothing is under way.
    Restarted,
    /// A site that may take part is connected.
    Connected(ClientId),
    /// It no longer is.
    Disconnected(ClientId),
    /// A site answered a task. The identity is its certificate's.
    Update {
        /// The site.
        from: ClientId,
        /// What it says.
        update: Box<Update>,
        /// What a look at the blob found; `None` when it is not here.
        inspection: Option<Inspection>,
    },
    /// A site will not or cannot do a task.
    Declined {
        /// The site.
        from: ClientId,
        /// The task.
        task: TaskId,
        /// Its reason.
        reason: String,
    },
    /// A site evaluated the final model.
    Evaluated {
        /// The site.
        from: ClientId,
        /// The task.
        task: TaskId,
        /// Its counts, if it has a validation split.
        metrics: Option<Counts>,
    },
    /// The aggregation that was asked for is done and durable.
    Aggregated {
        /// The attempt.
        task: TaskId,
        /// The new global parameters.
        global: BlobId,
    },
    /// The aggregation that was asked for did not work.
    AggregationFailed {
        /// The attempt.
        task: TaskId,
        /// Why.
        why: String,
    },
    /// An operator stops the run.
    Stop(Name),
    /// Time has passed.
    Tick,
}

/// What a look at an update's blob found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// Its bytes.
    pub length: u64,
    /// Its values.
    pub finding: Finding,
}

/// Something for the shell to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Give a site a round's task.
    Train {
        /// The site.
        to: ClientId,
        /// The task.
        task: TaskId,
        /// The round's deadline.
        deadline: Timestamp,
    },
    /// Have a site evaluate the final model.
    Evaluate {
        /// The site.
        to: ClientId,
        /// The task.
        task: TaskId,
    },
    /// Tell a site that its update was not counted.
    Reject {
        /// The site.
        to: ClientId,
        /// The task that it answered.
        task: TaskId,
        /// Why.
        reason: String,
    },
    /// Tell a site that a task is over.
    Over {
        /// The site.
        to: ClientId,
        /// The task.
        task: TaskId,
    },
    /// Make the next global parameters, durably, and answer with [`Input::Aggregated`].
    Aggregate(Aggregate),
    /// Keep the record of an attempt.
    Record(Box<RoundRecord>),
    /// Keep the final model's metrics.
    FinalMetrics(Box<Report>),
    /// These updates are no longer needed.
    Forget(Vec<BlobId>),
    /// The run is over.
    Ended(RunState),
}

/// The updates of a round, to be averaged.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The attempt.
    pub task: TaskId,
    /// The parameters that the round started from.
    pub global: BlobId,
    /// Each delta and its weight.
    pub updates: Vec<(BlobId, u64)>,
}

/// One run's state machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coordinator {
    context: Context,
    state: State,
}

/// What all states share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Context {
    run: Run,
    /// The newest global parameters.
    global: BlobId,
    /// Rounds completed.
    completed: u32,
    /// Sites that may take part and are connected.
    connected: BTreeSet<ClientId>,
    #[serde(skip)]
    effects: VecDeque<Effect>,
}

/// Where a run stands: a state consumes itself to become the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    Queued(Queued),
    Waiting(Waiting),
    Collecting(Collecting),
    Aggregating(Aggregating),
    Evaluating(Evaluating),
    Finished(Finished),
}

/// The round in progress, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundView {
    /// The attempt.
    pub task: TaskId,
    /// When it started.
    pub started: Timestamp,
    /// When it must end.
    pub deadline: Timestamp,
    /// Its cohort and what became of each member's answer.
    pub members: Vec<(ClientId, Answer)>,
}

impl Coordinator {
    /// A run that waits to be let go.
    pub fn new(run: Run) -> Self {
        let context = Context {
            global: run.initial,
            run,
            completed: 0,
            connected: BTreeSet::new(),
            effects: VecDeque::new(),
        };
        Self { context, state: State::Queued(Queued) }
    }

    /// Takes in something that happened at `now`.
    pub fn handle(&mut self, input: Input, now: Timestamp) {
        match &input {
            Input::Connected(site) => _ = self.context.connected.insert(site.clone()),
            Input::Disconnected(site) => _ = self.context.connected.remove(site),
            Input::Restarted => self.context.connected.clear(),
            Input::Start
            | Input::Update { .. }
            | Input::Declined { .. }
            | Input::Evaluated { .. }
            | Input::Aggregated { .. }
            | Input::AggregationFailed { .. }
            | Input::Stop(_)
            | Input::Tick => {}
        }
        let state = std::mem::replace(&mut self.state, State::Queued(Queued));
        let context = &mut self.context;
        self.state = match (state, input) {
            (State::Finished(state), input) => state.handle(context, input),
            (state, Input::Stop(by)) => {
                state.dismiss(context);
                Finished::stopped(context, &by)
            }
            (State::Queued(state), input) => state.handle(context, &input, now),
            (State::Waiting(state), input) => {
                context.refuse_stray(input);
                state.proceed(context, now)
            }
            (State::Collecting(state), input) => state.handle(context, input, now),
            (State::Aggregating(state), input) => state.handle(context, input, now),
            (State::Evaluating(state), input) => state.handle(context, input, now),
        };
    }

    /// Something to do, in order; `None` when there is nothing left.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.context.effects.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::Collecting(state) => Some(state.deadline),
            State::Evaluating(state) => Some(state.deadline),
            State::Queued(_) | State::Waiting(_) | State::Aggregating(_) | State::Finished(_) => None,
        }
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.context.run
    }

    /// Rounds completed.
    pub fn completed(&self) -> u32 {
        self.context.completed
    }

    /// The newest global parameters.
    pub fn global(&self) -> BlobId {
        self.context.global
    }

    /// Whether `site` may take part.
    pub fn admits(&self, site: &ClientId) -> bool {
        self.context.run.spec.cohort.sites.as_ref().is_none_or(|sites| sites.contains(site))
    }

    /// What a task is about.
    pub fn job(&self) -> Job {
        self.context.job()
    }

    /// Where the run stands and, in a sentence, why.
    pub fn state(&self) -> (RunState, String) {
        match &self.state {
            State::Queued(_) => (RunState::Queued, "behind a run that holds its sites".into()),
            State::Waiting(state) => (RunState::Waiting, state.detail(&self.context)),
            State::Collecting(_) | State::Aggregating(_) => (RunState::Running, String::new()),
            State::Evaluating(_) => (RunState::Evaluating, String::new()),
            State::Finished(state) => (state.outcome.clone(), state.detail.clone()),
        }
    }

    /// The round in progress.
    pub fn round(&self) -> Option<RoundView> {
        match &self.state {
            State::Collecting(state) => Some(state.view()),
            State::Aggregating(state) => Some(state.closed.view()),
            State::Evaluating(state) => Some(state.view(&self.context)),
            State::Queued(_) | State::Waiting(_) | State::Finished(_) => None,
        }
    }

    /// Whether the state is at a boundary between rounds: small, and a good place for a snapshot.
    pub fn is_between_rounds(&self) -> bool {
        match &self.state {
            State::Queued(_) | State::Waiting(_) | State::Finished(_) => true,
            State::Collecting(state) => state.is_fresh(),
            State::Aggregating(_) | State::Evaluating(_) => false,
        }
    }

    /// Whether an update of the round in progress lies in `blob`.
    pub fn holds(&self, blob: BlobId) -> bool {
        match &self.state {
            State::Collecting(state) => state.deltas().any(|delta| delta == blob),
            State::Aggregating(state) => state.closed.deltas().any(|delta| delta == blob),
            State::Queued(_) | State::Waiting(_) | State::Evaluating(_) | State::Finished(_) => false,
        }
    }
}

impl State {
    /// Tells the sites that work for the run that they need not, and lets go of their updates.
    fn dismiss(&self, context: &mut Context) {
        match self {
            Self::Collecting(state) => state.dismiss(context),
            Self::Aggregating(state) => state.closed.dismiss(context),
            Self::Evaluating(state) => state.dismiss(context),
            Self::Queued(_) | Self::Waiting(_) | Self::Finished(_) => {}
        }
    }
}

impl Context {
    fn emit(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    fn job(&self) -> Job {
        Job {
            spec: self.run.spec.clone(),
            model: self.run.model,
            params: self.run.params.clone(),
            global: self.global,
        }
    }

    fn task(&self, round: u32, attempt: u32) -> TaskId {
        TaskId { run: self.run.id.clone(), round, attempt }
    }

    /// Refuses an answer that no state waits for.
    fn refuse_stray(&mut self, input: Input) {
        if let Input::Update { from, update, .. } = input {
            let reason = match self.completed {
                done if update.task.round <= done => {
                    format!("it came late: round {} is over", update.task.round)
                }
                _ => format!("no update of {} is awaited now", update.task),
            };
            self.emit(Effect::Reject { to: from, task: update.task, reason });
        }
    }
}
