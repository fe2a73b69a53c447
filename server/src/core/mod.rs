//! The coordinator of one run: every decision about its rounds, as a deterministic state machine without IO.
//!
//! Feed it [`Input`]s and the time; take [`Effect`]s out. The same inputs give the same effects, which is why the
//! journal of inputs is the run's durable form: [`Coordinator::handle`] over the journal brings a run back.
//!
//! One state, one file, in the order of a run's life:
//! `queued` → `waiting` → `collecting` → `aggregating` → (next round) → `evaluating` → `finished`. With secure
//! aggregation `securing` and `opening` stand in the place of `aggregating`, and follow `evaluating` too. A survey
//! goes from `waiting` to `evaluating`.

mod aggregating;
mod collecting;
mod evaluating;
mod finished;
mod members;
mod opening;
mod queued;
mod securing;
mod selector;
mod verdict;
mod waiting;

pub mod queue;
#[cfg(test)]
mod secure_tests;
#[cfg(test)]
mod survey_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use sheaf_common::aggregate::Finding;
use sheaf_common::author::Author;
use sheaf_common::blob::BlobId;
use sheaf_common::compression::Form;
use sheaf_common::id::{ClientId, Federation, Name, RunId};
use sheaf_common::message::{Job, TaskId, Update};
use sheaf_common::metrics::{Counts, Report};
use sheaf_common::params::{ParamSpec, Phases};
use sheaf_common::record::{Counted, SignedRecord};
use sheaf_common::run::{Best, RunSpec, SecureAggregation};
use sheaf_common::secagg::message::{Answer as SecureAnswer, Ask};
use sheaf_common::secagg::server::{Evidence, Unmasking};
use sheaf_common::secagg::transcript::Digest;
use sheaf_common::status::{Answer, RoundRecord, RunState, SecureSum};
use sheaf_common::time::Timestamp;

use aggregating::Aggregating;
use collecting::Collecting;
use evaluating::Evaluating;
use finished::Finished;
use opening::Opening;
use queued::Queued;
use securing::Securing;
use waiting::Waiting;

/// A run as it was submitted: fixed for its whole life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// The federation that it is a run of.
    pub federation: Federation,
    /// What was asked for.
    pub spec: RunSpec,
    /// Operator who submitted it.
    pub submitted_by: Name,
    /// The operator's word for it.
    pub author: Option<Author>,
    /// When.
    pub submitted_at: Timestamp,
    /// Manifest of the imported model, if there is one.
    pub model: Option<BlobId>,
    /// The parameters that travel in which round.
    pub phases: Phases,
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
    /// A site's result is ready to be summed securely.
    Ready {
        /// The site.
        from: ClientId,
        /// The task.
        task: TaskId,
    },
    /// A site answered a stage of a secure sum.
    Secure {
        /// The site.
        from: ClientId,
        /// The task.
        task: TaskId,
        /// What it says.
        answer: Box<SecureAnswer>,
        /// What the shell found out about it.
        evidence: Evidence,
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
        /// What is published of it; the evaluation of the final model makes no model.
        record: Option<Box<SignedRecord>>,
        /// What else a secure sum gave.
        summed: Option<Box<Summed>>,
    },
    /// The aggregation that was asked for did not work.
    AggregationFailed {
        /// The attempt.
        task: TaskId,
        /// Why.
        why: String,
    },
    /// A site may no longer take part: it is gone, and nothing more of it counts.
    Excluded {
        /// The site.
        site: ClientId,
        /// Whether what it gave to the round in progress counts.
        keep_updates: bool,
        /// For the record.
        why: String,
    },
    /// An operator stops the run.
    Stop(Name),
    /// Time has passed.
    Tick,
}

impl Input {
    /// A site's answer: whose, and to which task.
    fn answer(&self) -> Option<(&ClientId, &TaskId)> {
        match self {
            Self::Update { from, update, .. } => Some((from, &update.task)),
            Self::Ready { from, task }
            | Self::Secure { from, task, .. }
            | Self::Declined { from, task, .. }
            | Self::Evaluated { from, task, .. } => Some((from, task)),
            Self::Start
            | Self::Restarted
            | Self::Connected(_)
            | Self::Disconnected(_)
            | Self::Aggregated { .. }
            | Self::AggregationFailed { .. }
            | Self::Excluded { .. }
            | Self::Stop(_)
            | Self::Tick => None,
        }
    }
}

/// What a look at an update's blob found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// How many values it has.
    pub numel: u64,
    /// Their form; none when they are plain.
    pub form: Option<Form>,
    /// What they are.
    pub finding: Finding,
}

/// What a secure sum gave besides the new global parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summed {
    /// For the record.
    pub sum: SecureSum,
    /// Mean training loss, weighted by examples, in nats.
    pub train_loss: Option<f64>,
    /// The incoming (or, at the end, the final) global model on the sites' validation splits, pooled.
    pub global_metrics: Option<Counts>,
    /// The sites' own trained models on the same.
    pub local_metrics: Option<Counts>,
    /// The clipping ranges for the next round.
    pub ranges: Vec<f32>,
    /// Sites that gave a wrong share.
    pub culprits: Vec<ClientId>,
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
    /// Ask a site for its answer to a stage of a secure sum.
    Ask {
        /// The site.
        to: ClientId,
        /// The task.
        task: TaskId,
        /// What is asked.
        ask: Box<Ask>,
        /// Bytes of the masked vector that the site may now send, when that is what is asked.
        put: Option<u64>,
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
    /// Open a secure sum and make the next global parameters of it, durably; answer with [`Input::Aggregated`].
    Open(Box<Open>),
    /// Keep the record of an attempt.
    Record(Box<RoundRecord>),
    /// Keep the final model's metrics.
    FinalMetrics(Box<Report>),
    /// Keep the metrics of the run's result on the test splits.
    TestMetrics(Box<Report>),
    /// These updates are no longer needed.
    Forget(Vec<BlobId>),
    /// This published sum is no longer needed: a newer one stands.
    Withdraw(BlobId),
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
    /// Whose updates count, each with its weight.
    pub updates: Vec<Counted>,
    /// Digest of the record of the round before.
    pub previous: Option<Digest>,
}

/// A secure sum that is ready to be opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Open {
    /// The attempt; attempt 0 sums the evaluation of the final model and leaves the parameters as they are.
    pub task: TaskId,
    /// The parameters that the round started from.
    pub global: BlobId,
    /// The shares and the names of the masked vectors.
    pub unmasking: Unmasking,
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
    /// The clipping range of each tensor in the next secure sum.
    ranges: Vec<f32>,
    /// How the newest global parameters came about.
    record: Option<Box<SignedRecord>>,
    /// The best evaluation so far.
    best: Option<Best>,
    /// The parameters that it was of.
    best_global: BlobId,
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
    Securing(Securing),
    Opening(Opening),
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
    /// What it waits for.
    pub stage: &'static str,
    /// Its cohort and what became of each member's answer.
    pub members: Vec<(ClientId, Answer)>,
}

impl Coordinator {
    /// A run that waits to be let go.
    pub fn new(run: Run) -> Self {
        let context = Context {
            ranges: vec![first_range(&run.spec); run.phases.after(0).tensors.len()],
            global: run.initial,
            best_global: run.initial,
            run,
            completed: 0,
            record: None,
            best: None,
            connected: BTreeSet::new(),
            effects: VecDeque::new(),
        };
        Self { context, state: State::Queued(Queued) }
    }

    /// Takes in something that happened at `now`. False: it has changed nothing, as an answer that nothing waits for.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> bool {
        if let Input::Disconnected(site) = &input
            && !self.context.connected.contains(site)
        {
            return false;
        }
        if let Some(why) = self.objection(&input) {
            self.refuse(&input, why);
            return false;
        }
        match &input {
            Input::Connected(site) => _ = self.context.connected.insert(site.clone()),
            Input::Disconnected(site) | Input::Excluded { site, .. } => {
                self.context.connected.remove(site);
            }
            Input::Restarted => self.context.connected.clear(),
            Input::Start
            | Input::Update { .. }
            | Input::Ready { .. }
            | Input::Secure { .. }
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
            (State::Finished(state), _) => State::Finished(state),
            (state, Input::Stop(by)) => {
                state.dismiss(context);
                Finished::stopped(context, &by)
            }
            (State::Queued(state), input) => state.handle(context, &input, now),
            (State::Waiting(state), _) => state.proceed(context, now),
            (State::Collecting(state), input) => state.handle(context, input, now),
            (State::Aggregating(state), input) => state.handle(context, input, now),
            (State::Securing(state), input) => state.handle(context, input, now),
            (State::Opening(state), input) => state.handle(context, input, now),
            (State::Evaluating(state), input) => state.handle(context, input, now),
        };
        true
    }

    /// Why nothing waits for an answer, if so. What is awaited is so once.
    fn objection(&self, input: &Input) -> Option<String> {
        let (from, task) = input.answer()?;
        if self.context.is_late(task) {
            return Some(format!("it came late: round {} is over", task.round));
        }
        let awaited = match &self.state {
            State::Collecting(state) => return state.objection(&self.context, input, from, task),
            State::Securing(state) => state.awaits(&self.context, input, from, task),
            State::Evaluating(state) => state.awaits(&self.context, input, from, task),
            State::Finished(_) => return Some(format!("run {} is over", self.context.run.id)),
            State::Queued(_) | State::Waiting(_) | State::Aggregating(_) | State::Opening(_) => false,
        };
        (!awaited).then(|| format!("no update of {task} is awaited now"))
    }

    /// Whether an input would be looked at.
    pub fn awaits(&self, input: &Input) -> bool {
        self.objection(input).is_none()
    }

    /// Tells a site that its update does not count, or that what is ready at it serves no longer.
    fn refuse(&mut self, input: &Input, reason: String) {
        let Some((from, task)) = input.answer() else { return };
        let (to, task) = (from.clone(), task.clone());
        let is_over = matches!(self.state, State::Finished(_)) || self.context.is_late(&task);
        if matches!(input, Input::Update { .. }) {
            self.context.emit(Effect::Reject { to, task, reason });
        } else if is_over && matches!(input, Input::Ready { .. } | Input::Secure { .. }) {
            self.context.emit(Effect::Over { to, task });
        }
    }

    /// Something to do, in order; `None` when there is nothing left.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.context.effects.pop_front()
    }

    /// When [`Input::Tick`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::Collecting(state) => Some(state.deadline),
            State::Securing(state) => Some(state.deadline),
            State::Evaluating(state) => Some(state.deadline),
            State::Queued(_)
            | State::Waiting(_)
            | State::Aggregating(_)
            | State::Opening(_)
            | State::Finished(_) => None,
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

    /// The parameters that travel now.
    pub fn params(&self) -> &ParamSpec {
        self.context.params()
    }

    /// The newest global parameters.
    pub fn global(&self) -> BlobId {
        self.context.global
    }

    /// The best evaluation so far, by the metric that the run monitors.
    pub fn best(&self) -> Option<Best> {
        self.context.best
    }

    /// Rounds after which the model is the run's result.
    pub fn result(&self) -> u32 {
        self.context.result().0
    }

    /// Whether `site` may take part.
    pub fn admits(&self, site: &ClientId) -> bool {
        self.context.run.spec.cohort.sites.as_ref().is_none_or(|sites| sites.contains(site))
    }

    /// What a task is about.
    pub fn job(&self) -> Job {
        match &self.state {
            State::Securing(Securing { closed, .. }) | State::Opening(Opening { closed, .. }) => {
                closed.job(&self.context)
            }
            State::Evaluating(state) => state.job(&self.context),
            State::Queued(_)
            | State::Waiting(_)
            | State::Collecting(_)
            | State::Aggregating(_)
            | State::Finished(_) => self.context.job(),
        }
    }

    /// How the newest global parameters came about.
    pub fn record(&self) -> Option<&SignedRecord> {
        self.context.record.as_deref()
    }

    /// Where the run stands and, in a sentence, why.
    pub fn state(&self) -> (RunState, String) {
        match &self.state {
            State::Queued(_) => (RunState::Queued, "behind a run that holds its sites".into()),
            State::Waiting(state) => (RunState::Waiting, state.detail(&self.context)),
            State::Collecting(_) | State::Aggregating(_) => (RunState::Running, String::new()),
            State::Securing(Securing { closed, .. }) | State::Opening(Opening { closed, .. }) => {
                (closed.state(), String::new())
            }
            State::Evaluating(_) => (RunState::Evaluating, String::new()),
            State::Finished(state) => (state.outcome.clone(), state.detail.clone()),
        }
    }

    /// The round in progress.
    pub fn round(&self) -> Option<RoundView> {
        match &self.state {
            State::Collecting(state) => Some(state.view()),
            State::Aggregating(state) => Some(RoundView { stage: "averaging", ..state.closed.view() }),
            State::Securing(state) => Some(state.view(&self.context)),
            State::Opening(state) => {
                Some(RoundView { stage: "unmasking", ..state.closed.view(&self.context) })
            }
            State::Evaluating(state) => Some(state.view(&self.context)),
            State::Queued(_) | State::Waiting(_) | State::Finished(_) => None,
        }
    }

    /// Whether the state is at a boundary between rounds: small, and a good place for a snapshot.
    pub fn is_between_rounds(&self) -> bool {
        match &self.state {
            State::Queued(_) | State::Waiting(_) | State::Finished(_) => true,
            State::Collecting(state) => state.is_fresh(),
            State::Aggregating(_) | State::Securing(_) | State::Opening(_) | State::Evaluating(_) => false,
        }
    }

    /// Whether the update of `site` is in a masked sum that can no longer be formed without it.
    pub fn sums_with(&self, site: &ClientId) -> bool {
        match &self.state {
            State::Securing(state) => state.protocol.is_unmasking() && state.protocol.holds(site),
            State::Opening(state) => state.unmasking.masked().contains_key(site),
            State::Queued(_)
            | State::Waiting(_)
            | State::Collecting(_)
            | State::Aggregating(_)
            | State::Evaluating(_)
            | State::Finished(_) => false,
        }
    }

    /// Whether it waits for the queue to let it go.
    pub fn is_queued(&self) -> bool {
        matches!(self.state, State::Queued(_))
    }

    /// Whether an update of the round in progress lies in `blob`.
    pub fn holds(&self, blob: BlobId) -> bool {
        self.held().contains(&blob)
    }

    /// The blobs in which updates of the round in progress lie.
    pub fn held(&self) -> Vec<BlobId> {
        match &self.state {
            State::Collecting(state) => state.deltas().collect(),
            State::Aggregating(state) => state.closed.deltas().collect(),
            State::Securing(state) => state.protocol.blobs(),
            State::Opening(state) => state.unmasking.masked().values().copied().collect(),
            State::Queued(_) | State::Waiting(_) | State::Evaluating(_) | State::Finished(_) => Vec::new(),
        }
    }
}

impl State {
    /// Tells the sites that work for the run that they need not, and lets go of their updates.
    fn dismiss(&self, context: &mut Context) {
        match self {
            Self::Collecting(state) => state.dismiss(context),
            Self::Aggregating(state) => state.closed.dismiss(context),
            Self::Securing(state) => state.dismiss(context),
            Self::Opening(state) => state.dismiss(context),
            Self::Evaluating(state) => state.dismiss(context),
            Self::Queued(_) | Self::Waiting(_) | Self::Finished(_) => {}
        }
    }
}

/// The clipping range of a tensor that no secure sum was over yet.
fn first_range(spec: &RunSpec) -> f32 {
    match spec.secure_aggregation {
        SecureAggregation::Off => 1.0,
        SecureAggregation::Required(spec) => spec.clipping_range,
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
            params: self.params().clone(),
            global: self.global,
            submitted_at: self.run.submitted_at,
            author: self.run.author.clone(),
        }
    }

    /// Rounds after which the model is the run's result, and its parameters.
    fn result(&self) -> (u32, BlobId) {
        let best = self.best.filter(|_| self.run.spec.validation.restore_best);
        best.map_or((self.completed, self.global), |best| (best.round, self.best_global))
    }

    /// [`Self::job`] of the run's result.
    fn result_job(&self) -> Job {
        let (round, global) = self.result();
        Job { params: self.run.phases.after(round).clone(), global, ..self.job() }
    }

    /// The parameters that travel now.
    fn params(&self) -> &ParamSpec {
        self.run.phases.after(self.completed)
    }

    /// Takes in the clipping ranges that round `round` suggests for what it trained. What the next round begins to
    /// train has the first range, as everything had.
    fn take_ranges(&mut self, round: u32, ranges: Vec<f32>) {
        let first = first_range(&self.run.spec);
        let mut trained = self.params().tensors.iter().zip(ranges).peekable();
        let range =
            |tensor| trained.next_if(|(trained, _)| *trained == tensor).map_or(first, |(_, range)| range);
        self.ranges = self.run.phases.after(round).tensors.iter().map(range).collect();
    }

    /// Takes in what is published of the newest global parameters, as sites are told. The sum of the round before has served.
    fn publish(&mut self, record: Option<Box<SignedRecord>>) {
        let record = record.map(|record| Box::new(record.in_short()));
        let before = std::mem::replace(&mut self.record, record);
        if let Some(sum) = before.as_ref().and_then(|before| before.body.sum()) {
            self.emit(Effect::Withdraw(sum.blob));
        }
    }

    /// Digest of the newest record.
    fn digest(&self) -> Option<Digest> {
        self.record.as_ref().map(|record| record.body.digest())
    }

    /// Takes in an evaluation of the global model, which is the one after `round` rounds.
    fn observe(&mut self, round: u32, report: Option<&Report>) {
        if let Some(report) = report {
            self.best = self.run.spec.validation.observe(self.best, round, report);
            if self.best.is_some_and(|best| best.round == round) {
                self.best_global = self.global;
            }
        }
    }

    /// The connected sites that train.
    fn trainers(&self) -> BTreeSet<ClientId> {
        let validation = &self.run.spec.validation;
        self.connected.iter().filter(|site| !validation.leaves_out(site.as_str())).cloned().collect()
    }

    fn is_secure(&self) -> bool {
        self.run.spec.secure_aggregation != SecureAggregation::Off
    }

    /// Whether the round of a task is over; what is evaluated is so after its round.
    fn is_late(&self, task: &TaskId) -> bool {
        !task.is_evaluation() && task.round <= self.completed
    }

    fn task(&self, round: u32, attempt: u32) -> TaskId {
        TaskId { run: self.run.id.clone(), round, attempt }
    }
}
