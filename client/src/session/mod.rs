//! A site's side of the protocol, as a deterministic state machine without IO: one task at a time, and an
//! update that is finished is kept until the server says that its round is over.
//!
//! Feed it [`Input`]s, take [`Effect`]s out. The states, in the order of a task's life:
//! `Idle` → `Fetching` → `Working` → `Uploading` → `Idle`. Work goes on while the connection is away. With secure
//! aggregation an update that is finished waits for the stages of the sum, which `secure` answers.

mod fetching;
mod secure;
mod standby;
mod uploading;
mod working;

#[cfg(test)]
mod secure_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use sheaf_common::blob::BlobId;
use sheaf_common::id::RunId;
use sheaf_common::message::{EvaluateTask, Job, ServerMessage, SiteMessage, TaskId, TrainTask, Update};
use sheaf_common::metrics::Counts;
use sheaf_common::record::{Record, SignedRecord};
use sheaf_common::run::{LocalWork, RunSpec, Training};
use sheaf_common::secagg::client::{Client, Witness};
use sheaf_common::status::Progress;

use fetching::Fetching;
pub use secure::{Entropy, Memory, Trust};
use standby::Announced;
pub use standby::Gate;
use uploading::Uploading;
use working::Working;

/// Something that happened and that matters to the session.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The server welcomed us.
    Connected,
    /// The connection is gone.
    Disconnected,
    /// The server said something.
    Message(ServerMessage),
    /// The blobs of a task are here, or why not.
    Fetched(TaskId, Result<(), TransferFailure>),
    /// A task's work came to an end.
    Worked(TaskId, Result<Outcome, WorkFailure>),
    /// A task's masked vector is durable, or why it cannot be made.
    Masked(TaskId, Result<BlobId, String>),
    /// A task's blob is at the server, or why not.
    Uploaded(TaskId, Result<(), TransferFailure>),
    /// Time has passed, or a person has decided: whether the site stands by for a run may have changed.
    Reconsider,
}

/// Why a task's blobs are not where they are needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferFailure {
    /// The connection broke; the server sends the task again when it is back.
    Lost,
    /// It will not work, and why.
    Refused(String),
}

/// What a task's work gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A round's update. It and its blob are durable already.
    Trained(Box<Update>),
    /// The final model's counts.
    Evaluated(Option<Counts>),
}

/// An update that is finished and kept until its round is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The run that it is for ([`Job::origin`]): a server may give a task's name to any other.
    pub origin: BlobId,
    /// What was trained or measured.
    pub update: Update,
}

/// Why a task's work gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkFailure {
    /// We called it off ourselves.
    Cancelled,
    /// It will not work, and why: one sentence that holds none of the site's data.
    Declined(String),
}

/// Something for the shell to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Fetch every blob that the task names, and answer with [`Input::Fetched`].
    Fetch {
        /// The task.
        task: Task,
        /// Make the global parameters out of the published sum, which this checks, in place of fetching them.
        witness: Option<Box<Witness>>,
    },
    /// Do the task, and answer with [`Input::Worked`].
    Work(Task),
    /// Call off what is under way: the work, or the upload.
    Cancel,
    /// Make the update's masked vector, durably, and answer with [`Input::Masked`].
    Mask {
        /// Holds the masks.
        client: Box<Client>,
        /// What is masked.
        update: Box<Update>,
    },
    /// Move a task's blob to the server, and answer with [`Input::Uploaded`].
    Upload {
        /// The task.
        task: TaskId,
        /// The update's delta, or its masked vector.
        blob: BlobId,
    },
    /// Make this durable, and only then do what goes with it.
    Remember {
        /// All that must be remembered of secure sums.
        memory: Box<Memory>,
        /// What may leave once it is.
        then: Option<Then>,
    },
    /// The update serves another attempt: keep it under its new task.
    Rename {
        /// Its old task.
        from: TaskId,
        /// The update, with its new task.
        finished: Box<Finished>,
    },
    /// This masked vector is no longer needed.
    Discard(BlobId),
    /// These global parameters are no longer needed.
    Release(BlobId),
    /// Tell the server.
    Say(SiteMessage),
    /// The update and the global parameters of this task are no longer needed.
    Forget(TaskId),
}

/// What leaves the site once something is remembered, and not before.
#[derive(Clone, Debug, PartialEq)]
pub enum Then {
    /// As [`Effect::Say`].
    Say(SiteMessage),
    /// As [`Effect::Upload`].
    Upload {
        /// The task.
        task: TaskId,
        /// Its masked vector.
        blob: BlobId,
    },
}

/// A task of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Train.
    Train(Box<TrainTask>),
    /// Evaluate the final model, or test the run's result.
    Evaluate(Box<EvaluateTask>),
}

impl Task {
    /// What is answered.
    pub fn id(&self) -> &TaskId {
        match self {
            Self::Train(task) => &task.id,
            Self::Evaluate(task) => &task.id,
        }
    }

    /// What is to be done.
    pub fn job(&self) -> &Job {
        match self {
            Self::Train(task) => &task.job,
            Self::Evaluate(task) => &task.job,
        }
    }

    /// Whether it is done with this blob, beside the files of its model.
    pub fn takes(&self, blob: BlobId) -> bool {
        let of_record = self.record().map(|record| &record.body);
        let sum = of_record.and_then(Record::sum).map(|sum| sum.blob);
        [Some(self.job().global), of_record.map(|record| record.model_in), sum].contains(&Some(blob))
    }

    /// Whether its run has such a task: what the site agrees to is that many rounds and attempts at each.
    fn belongs(&self) -> bool {
        let (id, spec) = (self.id(), &self.job().spec);
        match self {
            Self::Train(_) => {
                !spec.is_survey()
                    && (1..=spec.rounds).contains(&id.round)
                    && (1..=spec.cohort.max_attempts).contains(&id.attempt)
            }
            Self::Evaluate(_) => id.is_evaluation() && id.round <= spec.rounds,
        }
    }

    /// How its global parameters came about.
    pub fn record(&self) -> Option<&SignedRecord> {
        match self {
            Self::Train(task) => task.record.as_deref(),
            Self::Evaluate(task) => task.record.as_deref(),
        }
    }
}

/// A site's session: it outlives connections and, through the updates it starts with, restarts.
#[derive(Debug)]
pub struct Session {
    context: Context,
    state: State,
}

/// What all states share.
#[derive(Debug)]
struct Context {
    connected: bool,
    trust: Trust,
    memory: Memory,
    /// The task whose masked vector is being made.
    masking: Option<TaskId>,
    /// The runs that the server announced over this connection.
    announced: BTreeMap<RunId, Announced>,
    /// What the newest task is about.
    job: Option<(TaskId, Job)>,
    /// The one model of each run that leaves this site out whose metrics here may leave.
    evaluated: BTreeMap<BlobId, BlobId>,
    /// Updates that are finished, durable, and not known to be over.
    ready: BTreeMap<TaskId, Finished>,
    effects: VecDeque<Effect>,
}

#[derive(Debug)]
enum State {
    Idle,
    Fetching(Fetching),
    Working(Working),
    Uploading(Uploading),
}

impl Session {
    /// A session that knows the updates that were durable when the daemon started.
    pub fn new(ready: impl IntoIterator<Item = Finished>, memory: Memory, trust: Trust) -> Self {
        let ready = ready.into_iter().map(|finished| (finished.update.task.clone(), finished)).collect();
        let context = Context {
            connected: false,
            trust,
            memory,
            masking: None,
            announced: BTreeMap::new(),
            job: None,
            evaluated: BTreeMap::new(),
            ready,
            effects: VecDeque::new(),
        };
        Self { context, state: State::Idle }
    }

    /// Takes in something that happened.
    pub fn handle(&mut self, input: Input) {
        let state = std::mem::replace(&mut self.state, State::Idle);
        self.state = self.context.dispatch(state, input);
    }

    /// Something to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.context.effects.pop_front()
    }

    /// Whether nothing is in hand and nothing waits: a session made later of what is durable goes on alike.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Idle) && self.context.ready.is_empty() && self.context.memory.is_idle()
    }

    /// How far the site is, as the server may know it: of an encrypted run only what does not tell how much the site has.
    pub fn told(&self, task: &TaskId, progress: Progress) -> Progress {
        let known = self.context.job.as_ref().filter(|(of, _)| of == task);
        match known.map(|(_, job)| &job.spec) {
            Some(spec) if !secure::is_secure(spec) => progress,
            Some(RunSpec { training: Training { local: LocalWork::Epochs(epochs), .. }, .. }) => {
                progress.in_tenths((*epochs).into())
            }
            Some(_) | None => progress.in_tenths(1),
        }
    }

    /// Whether these global parameters are still needed, to check a published sum.
    pub fn needs(&self, model: BlobId) -> bool {
        self.context.memory.needs(model)
    }
}

impl State {
    /// The task in hand.
    fn task(&self) -> Option<&TaskId> {
        match self {
            Self::Idle => None,
            Self::Fetching(state) => Some(state.task.id()),
            Self::Working(state) => Some(state.task.id()),
            Self::Uploading(state) => Some(&state.task),
        }
    }
}

impl Context {
    fn dispatch(&mut self, state: State, input: Input) -> State {
        match (state, input) {
            (State::Fetching(fetching), Input::Fetched(id, result)) if *fetching.task.id() == id => {
                fetching.done(self, result)
            }
            (State::Working(working), Input::Worked(id, result)) if *working.task.id() == id => {
                working.done(self, result)
            }
            (State::Uploading(uploading), Input::Uploaded(id, result)) if uploading.task == id => {
                uploading.done(self, result)
            }
            (state, Input::Masked(id, result)) => self.masked(state, id, result),
            // It was called off too late: the update is durable, and nobody asks for it.
            (state, Input::Worked(id, Ok(Outcome::Trained(_)))) => {
                if !self.ready.contains_key(&id) {
                    self.emit(Effect::Forget(id));
                }
                state
            }
            // What became of a task that is no longer in hand is of no interest.
            (state, Input::Fetched(..) | Input::Worked(..) | Input::Uploaded(..)) => state,
            (state, Input::Message(message)) => self.on_message(state, message),
            (state, Input::Reconsider) => {
                self.reconsider();
                state
            }
            (state, Input::Connected) => {
                self.connected = true;
                state
            }
            (state, Input::Disconnected) => {
                self.connected = false;
                self.announced.clear();
                // The work needs no connection. The rest starts again when the server asks again.
                if matches!(state, State::Working(_)) { state } else { State::Idle }
            }
        }
    }

    fn on_message(&mut self, state: State, message: ServerMessage) -> State {
        match message {
            ServerMessage::Train(task) => self.take(state, Task::Train(task)),
            ServerMessage::Evaluate(task) => self.take(state, Task::Evaluate(task)),
            ServerMessage::Secure { task, ask } => self.on_ask(state, task, ask),
            ServerMessage::Rejected { task, .. } => {
                self.forget(&task);
                if matches!(state, State::Uploading(_)) && state.task() == Some(&task) {
                    self.drop_work(&state)
                } else {
                    state
                }
            }
            ServerMessage::Over(task) => {
                self.forget(&task);
                if state.task() == Some(&task) { self.drop_work(&state) } else { state }
            }
            ServerMessage::Announce { run, job } => {
                self.announced(run, *job);
                state
            }
            ServerMessage::Welcome { .. } | ServerMessage::Refused(_) | ServerMessage::Certificate(_) => {
                state
            }
        }
    }

    /// A task from the server: the newest word counts.
    fn take(&mut self, state: State, task: Task) -> State {
        if state.task() == Some(task.id()) {
            return state;
        }
        self.drop_work(&state);
        if let Some(reason) = self.objection(&task) {
            return self.decline(&task, reason);
        }
        let (secure, origin) = (secure::is_secure(&task.job().spec), task.job().origin());
        if secure {
            self.rename(task.id(), origin);
        }
        self.forget_others(task.id(), origin);
        let witness = match self.judge(&task) {
            Ok(witness) => witness,
            Err(bad) => return self.decline(&task, bad.to_string()),
        };
        if self.is_left_out(task.job()) {
            self.evaluated.insert(origin, task.job().global);
        }
        self.job = Some((task.id().clone(), task.job().clone()));
        match (&task, self.ready.get(task.id())) {
            (_, Some(_)) if secure => {
                self.emit(Effect::Say(SiteMessage::Ready(task.id().clone())));
                State::Idle
            }
            (Task::Train(_), Some(ready)) => Uploading::update(ready.update.clone(), self),
            (Task::Train(_), None) | (Task::Evaluate(_), _) => Fetching::start(task, witness, self),
        }
    }

    /// Why the site does not do a task, if it does not: one sentence for the operator.
    fn objection(&self, task: &Task) -> Option<String> {
        let (job, policy) = (task.job(), &self.trust.policy);
        let author = match self.trust.gate.author(job) {
            Ok(author) => author,
            Err(why) => return Some(format!("no operator of the federation asked for this run: {why}")),
        };
        let left_out = self.is_left_out(job);
        match task {
            _ if !task.belongs() => Some("the run has no such task".into()),
            Task::Train(_) if left_out => {
                Some("the run leaves this site out, and so it does not train".into())
            }
            Task::Evaluate(_) if left_out => policy.keeps_own_metrics(),
            Task::Train(_) | Task::Evaluate(_) => None,
        }
        .or_else(|| policy.objection(job, &author))
        .or_else(|| self.hold(&task.id().run, job, Some(task.id().round)))
        .or_else(|| {
            // Those of many models would tell about its examples one by one.
            let another = self.evaluated.get(&job.origin()).is_some_and(|first| *first != job.global);
            another.then(|| "this site has evaluated another model of this run by itself already".into())
        })
    }

    /// Whether the run leaves this site out: what leaves it are metrics of its own.
    fn is_left_out(&self, job: &Job) -> bool {
        job.spec.validation.leaves_out(self.trust.party.name().as_str())
    }

    fn decline(&mut self, task: &Task, reason: String) -> State {
        self.emit(Effect::Say(SiteMessage::Declined { task: task.id().clone(), reason }));
        State::Idle
    }

    /// An update whose masks were not given away serves the next attempt at its round.
    fn rename(&mut self, newest: &TaskId, origin: BlobId) {
        let same = |(task, of): &(&TaskId, &Finished)| {
            of.origin == origin
                && task.run == newest.run
                && task.round == newest.round
                && task.attempt < newest.attempt
        };
        let trained = |old: &&TaskId| !old.is_evaluation() && !newest.is_evaluation();
        let older = self.ready.iter().rfind(same).map(|(task, _)| task);
        let Some(old) = older.filter(trained).cloned() else { return };
        if self.ready.get(&old).is_some_and(|ready| self.was_released(&ready.update)) {
            return;
        }
        self.end_attempt_of(&old);
        if let Some(mut finished) = self.ready.remove(&old) {
            finished.update.task = newest.clone();
            self.ready.insert(newest.clone(), finished.clone());
            self.emit(Effect::Rename { from: old, finished: Box::new(finished) });
        }
    }

    /// Calls off what is in hand. What is being fetched may serve the next task, and a lie in it is seen.
    fn drop_work(&mut self, state: &State) -> State {
        if matches!(state, State::Working(_) | State::Uploading(_)) {
            self.emit(Effect::Cancel);
        }
        State::Idle
    }

    fn forget(&mut self, task: &TaskId) {
        self.ready.remove(task);
        self.job.take_if(|(of, _)| of == task);
        self.end_attempt_of(task);
        self.emit(Effect::Forget(task.clone()));
    }

    /// A site works for one run at a time: a task makes whatever is kept for others useless. What another run of its name
    /// left is another's too: it was agreed to on other terms, and must not leave on these.
    fn forget_others(&mut self, newest: &TaskId, origin: BlobId) {
        self.job.take_if(|(task, _)| task != newest);
        let other = |(task, ready): &(&TaskId, &Finished)| *task != newest || ready.origin != origin;
        let old: Vec<TaskId> = self.ready.iter().filter(other).map(|(task, _)| task.clone()).collect();
        for task in old {
            self.forget(&task);
        }
    }

    fn emit(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }
}
