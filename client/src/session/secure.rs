//! The site's part in a secure sum: what it must remember, and what each stage asks of it.
//!
//! An attempt is a [`Client`] of `sheaf_common::secagg`. It is remembered, whole, before an answer leaves
//! ([`Effect::Remember`]), so that a daemon that was killed answers the same again and never anything else.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sheaf_common::blob::BlobId;
use sheaf_common::id::Federation;
use sheaf_common::message::{Job, SiteMessage, TaskId, Update};
use sheaf_common::record::{BadRecord, History, SignedRecord, Start};
use sheaf_common::run::{RunSpec, SecureAggregation};
use sheaf_common::secagg::client::{Client, Expectation, Party, Reaction, Refusal, Witness};
use sheaf_common::secagg::layout::Layout;
use sheaf_common::secagg::message::{Answer, Ask};
use sheaf_common::secagg::params::RoundParams;
use sheaf_common::secagg::quantize::Encoding;
use sheaf_common::secagg::transcript::Digest;
use sheaf_common::wire;

use super::standby::Gate;
use super::{Context, Effect, State, Task, Then, Uploading};
use crate::config::Policy;

/// Names of what was released that are remembered, two for each update: the oldest go first.
const RELEASED_MAX: usize = 20_000;

/// Who the site is and what it agrees to.
pub struct Trust {
    /// The certificate's key and the federation's CA.
    pub party: Box<dyn Party + Send>,
    /// Its federation.
    pub federation: Federation,
    /// Its own rules.
    pub policy: Policy,
    /// What its people, its clock and its trust in certificates say of a run.
    pub gate: Box<dyn Gate + Send>,
    /// Fresh random bytes for each attempt.
    pub entropy: Entropy,
}

/// Where random bytes come from, others for each attempt: masks, and how values are rounded, follow from them.
pub type Entropy = Box<dyn FnMut(&TaskId) -> [u8; 32] + Send>;

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trust").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// What must survive a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The newest attempt that was joined in each run, by the run's origin: an older one is a replay.
    joined: BTreeMap<BlobId, (u32, u32)>,
    /// Updates whose masks were given away, and rounds in which some were, and the survivors with whom they were summed.
    released: Vec<(BlobId, Digest)>,
    /// The records of each run's rounds, by the run's origin.
    histories: BTreeMap<BlobId, History>,
    attempt: Option<Attempt>,
}

/// The attempt in hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Attempt {
    task: TaskId,
    origin: BlobId,
    client: Client,
    /// What the ledger knows our contribution by.
    content: BlobId,
    masked: Option<BlobId>,
}

impl Memory {
    /// The survivors with whom what has these names was summed.
    fn released_with(&self, names: &[BlobId]) -> Vec<Digest> {
        let with = |name| self.released.iter().rev().find(|(released, _)| released == name);
        names.iter().filter_map(with).map(|(_, with)| *with).collect()
    }

    fn release(&mut self, names: &[BlobId], with: Digest) {
        let excess = (self.released.len() + names.len()).saturating_sub(RELEASED_MAX);
        self.released.drain(..excess);
        self.released.extend(names.iter().map(|name| (*name, with)));
    }

    /// The masked vector of the attempt in hand.
    pub(crate) fn masked(&self) -> Option<BlobId> {
        self.attempt.as_ref()?.masked
    }

    /// Whether no attempt is in hand.
    pub(super) fn is_idle(&self) -> bool {
        self.attempt.is_none()
    }

    /// Whether these global parameters are needed to check a sum.
    pub(super) fn needs(&self, model: BlobId) -> bool {
        self.histories.values().any(|history| history.needs(model))
    }
}

/// Whether a run's results leave the site only in sums.
pub(super) fn is_secure(spec: &RunSpec) -> bool {
    spec.secure_aggregation != SecureAggregation::Off
}

impl Context {
    /// Takes a stage's question.
    pub(super) fn on_ask(&mut self, state: State, task: TaskId, ask: Ask) -> State {
        let in_hand = self.memory.attempt.as_ref().is_some_and(|attempt| attempt.task == task);
        let reaction = match ask {
            Ask::Advertise(params) if !in_hand => self.join(&task, *params),
            ask @ (Ask::Advertise(_)
            | Ask::ShareKeys(_)
            | Ask::MaskInput { .. }
            | Ask::Confirm(_)
            | Ask::Unmask(_)) => self.go_on(&task, ask),
        };
        match reaction {
            Ok(Reaction::Say(Answer::Masked(blob))) => {
                Uploading::masked(task.clone(), blob, secure(task, Answer::Masked(blob)), self)
            }
            Ok(Reaction::Say(answer)) => {
                self.remember(Some(Then::Say(secure(task, answer))));
                state
            }
            Ok(Reaction::Mask | Reaction::Nothing) => {
                self.remember(None);
                self.mask(&task);
                state
            }
            Err(refusal) => {
                self.end_attempt();
                let reason = refusal.to_string();
                self.remember(Some(Then::Say(SiteMessage::Declined { task, reason })));
                state
            }
        }
    }

    fn join(&mut self, task: &TaskId, params: RoundParams) -> Result<Reaction, Refusal> {
        let job = self.job.as_ref().filter(|(of, _)| of == task).map(|(_, job)| job);
        let (Some(ready), Some(job)) = (self.ready.get(task), job) else {
            return Err(Refusal::Terms("task"));
        };
        let origin = job.origin();
        // The evaluation of the final model comes after all attempts at its round, the test after everything.
        let order = match task.attempt {
            TaskId::TEST => (u32::MAX, TaskId::TEST),
            0 => (task.round.saturating_add(1), 0),
            attempt => (task.round, attempt),
        };
        if self.memory.joined.get(&origin).is_some_and(|newest| *newest >= order) {
            return Err(Refusal::Replayed);
        }
        let content = content(&ready.update);
        let known = self.memory.histories.get(&origin).filter(|_| !task.is_test());
        let previous = known.and_then(History::digest);
        let expectation = Expectation {
            params: expected(&self.trust.federation, task, job, previous, &params)?,
            sites: job.spec.cohort.sites.clone(),
            min_updates: self.trust.policy.min_updates,
            released_with: self.memory.released_with(&names(content, origin, task)),
        };
        let entropy = (self.trust.entropy)(task);
        let client = Client::join(params, &expectation, &*self.trust.party, entropy)?;
        let reaction = client.answer().map_or(Reaction::Nothing, Reaction::Say);
        self.memory.joined.insert(origin, order);
        self.end_attempt();
        self.memory.attempt = Some(Attempt { task: task.clone(), origin, client, content, masked: None });
        Ok(reaction)
    }

    fn go_on(&mut self, task: &TaskId, ask: Ask) -> Result<Reaction, Refusal> {
        let attempt = self.memory.attempt.as_mut().filter(|attempt| attempt.task == *task);
        let Some(Attempt { client, content, origin, .. }) = attempt else {
            return Err(Refusal::Over);
        };
        let before = client.released_with();
        let reaction = client.handle(ask, &*self.trust.party)?;
        let names = names(*content, *origin, task);
        if let (None, Some(with)) = (before, client.released_with()) {
            self.memory.release(&names, with);
        }
        Ok(reaction)
    }

    /// Has the masked vector made, unless that is under way.
    fn mask(&mut self, task: &TaskId) {
        let (Some(attempt), Some(ready)) = (&self.memory.attempt, self.ready.get(task)) else { return };
        if attempt.client.plan().is_some() && self.masking.as_ref() != Some(task) {
            self.masking = Some(task.clone());
            let (client, update) = (attempt.client.clone(), ready.update.clone());
            self.emit(Effect::Mask { client: Box::new(client), update: Box::new(update) });
        }
    }

    /// The masked vector is durable, or cannot be made.
    pub(super) fn masked(&mut self, state: State, task: TaskId, result: Result<BlobId, String>) -> State {
        if self.masking.as_ref() == Some(&task) {
            self.masking = None;
        }
        let Some(attempt) = self.memory.attempt.as_mut().filter(|attempt| attempt.task == task) else {
            if let Ok(blob) = result {
                self.emit(Effect::Discard(blob));
            }
            return state;
        };
        match result {
            Ok(blob) => {
                attempt.masked = Some(blob);
                match attempt.client.masked(blob) {
                    Some(answer) if self.connected => {
                        Uploading::masked(task.clone(), blob, secure(task, answer), self)
                    }
                    Some(_) | None => {
                        self.remember(None);
                        state
                    }
                }
            }
            Err(reason) => {
                self.end_attempt();
                self.remember(Some(Then::Say(SiteMessage::Declined { task, reason })));
                state
            }
        }
    }

    /// The task is over: so is its attempt, and its secrets go.
    pub(super) fn end_attempt_of(&mut self, task: &TaskId) {
        if self.memory.attempt.as_ref().is_some_and(|attempt| attempt.task == *task) {
            self.end_attempt();
            self.remember(None);
        }
    }

    /// Whether the update's masks were given away before.
    pub(super) fn was_released(&self, update: &Update) -> bool {
        !self.memory.released_with(&[content(update)]).is_empty()
    }

    /// Its secrets go; what checks the sum stays.
    fn end_attempt(&mut self) {
        let Some(Attempt { task, origin, client, masked, .. }) = self.memory.attempt.take() else { return };
        // An evaluation publishes no sum.
        if let Some(witness) = client.witness().filter(|_| !task.is_evaluation()) {
            self.memory.histories.entry(origin).or_default().took_part(witness);
        }
        if let Some(blob) = masked {
            self.emit(Effect::Discard(blob));
        }
    }

    /// Judges the record of the round before, which comes with a task; gives back what checks its sum.
    pub(super) fn judge(&mut self, task: &Task) -> Result<Option<Box<Witness>>, BadRecord> {
        let (id, job) = (task.id(), task.job());
        // What is tested is not trained on, and its record may be long past.
        if id.is_test() {
            return Ok(None);
        }
        let start =
            Start { run: &id.run, origin: job.origin(), completed: id.completed(), model: job.global };
        if !is_secure(&job.spec) {
            return SignedRecord::check(task.record(), start, &*self.trust.party).map(|_| None);
        }
        // What is left of an older attempt in this run tells whether we took part in the round before.
        let ended = |old: &Attempt| old.task.run == id.run && (old.task != *id || old.origin != start.origin);
        if self.memory.attempt.as_ref().is_some_and(ended) {
            self.end_attempt();
        }
        // A site works for one run at a time: with its task every other run is over.
        let others = self.memory.histories.iter_mut().filter(|(of, _)| **of != start.origin);
        let models: Vec<BlobId> = others.filter_map(|(_, history)| history.ended()).collect();
        for model in models {
            if model != job.global && !self.memory.needs(model) {
                self.emit(Effect::Release(model));
            }
        }
        let history = self.memory.histories.entry(start.origin).or_default();
        let witness = history.judge(start, task.record(), &*self.trust.party)?;
        self.remember(None);
        Ok(witness.map(Box::new))
    }

    /// The sum of the round before was checked, and the model made of it.
    pub(super) fn checked(&mut self, task: &Task) {
        let history = self.memory.histories.entry(task.job().origin()).or_default();
        let before = task.record().and_then(|record| history.checked(&record.body));
        if let Some(model) = before.filter(|model| !self.memory.needs(*model)) {
            self.emit(Effect::Release(model));
        }
        self.remember(None);
    }

    pub(super) fn remember(&mut self, then: Option<Then>) {
        let memory = Box::new(self.memory.clone());
        self.emit(Effect::Remember { memory, then });
    }
}

fn secure(task: TaskId, answer: Answer) -> SiteMessage {
    SiteMessage::Secure { task, answer }
}

/// What the ledger of released updates knows an update by: its delta or, without one, its metrics. With neither it
/// adds nothing to a sum that another sum could uncover, and is one of its task alone.
fn content(update: &Update) -> BlobId {
    let hash = |bytes: Result<Vec<u8>, _>| BlobId::of(&bytes.unwrap_or_default());
    if update.delta != BlobId::of(&[]) {
        return update.delta;
    }
    match (&update.global_metrics, &update.local_metrics) {
        (None, None) => hash(wire::encode_record(&update.task)),
        metrics => hash(wire::encode_record(&metrics)),
    }
}

/// What the ledger knows a contribution to a task by: its content and, since the bits of one that is trained again may
/// differ where the training does not, the model of which run it was trained from. An evaluation is joined only once.
fn names(content: BlobId, origin: BlobId, task: &TaskId) -> Vec<BlobId> {
    let round = (!task.is_evaluation()).then(|| {
        let trained = wire::encode_record(&("round", origin, task.completed()));
        BlobId::of(&trained.unwrap_or_default())
    });
    [content].into_iter().chain(round).collect()
}

/// The terms as we derive them from the job; the ranges and the ring are the server's to choose.
fn expected(
    federation: &Federation,
    task: &TaskId,
    job: &Job,
    previous: Option<Digest>,
    offered: &RoundParams,
) -> Result<RoundParams, Refusal> {
    let SecureAggregation::Required(spec) = job.spec.secure_aggregation else {
        return Err(Refusal::Terms("secure_aggregation"));
    };
    let layout = if task.is_evaluation() { Layout::of_evaluation(job) } else { Layout::of_round(job) };
    Ok(RoundParams {
        federation: federation.clone(),
        task: task.clone(),
        origin: job.origin(),
        model: job.global,
        previous,
        layout,
        encoding: Encoding::new(spec.quantization_bits, 2).map_err(|_| Refusal::Terms("quantization"))?,
        ranges: offered.ranges.clone(),
        weight_cap: job.spec.cohort.max_examples,
        min_updates: job.spec.cohort.min_updates,
        max_colluding: spec.max_colluding,
        graph: spec.graph,
        post_quantum: spec.post_quantum,
    })
}

#[cfg(test)]
mod tests {
    use sheaf_common::metrics::{Classification, Counts};

    use super::*;

    fn evaluated(run: &str, metrics: Option<Counts>) -> Update {
        Update {
            task: TaskId { run: run.parse().unwrap(), round: 3, attempt: 0 },
            delta: BlobId::of(&[]),
            num_examples: 0,
            train_loss: 0.0,
            global_metrics: metrics,
            local_metrics: None,
        }
    }

    #[test]
    fn the_ledger_knows_metrics_in_every_run_and_their_absence_in_one() {
        let counts = || Some(Counts::from(Classification::new(2)));
        assert_eq!(content(&evaluated("a", counts())), content(&evaluated("b", counts())));
        assert_ne!(content(&evaluated("a", None)), content(&evaluated("b", None)));
        assert_eq!(content(&evaluated("a", None)), content(&evaluated("a", None)));
        let trained = |run| Update { delta: BlobId::of(b"delta"), ..evaluated(run, None) };
        assert_eq!(content(&trained("a")), content(&trained("b")));
    }
}
