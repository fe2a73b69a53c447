//! A virtual client that is awake: a site's own session and state directory, without a process, a network or a thread.
//!
//! It wakes when something is asked of it, and sleeps when nothing is in hand; what a site remembers is in its directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rand::Rng;
use sheaf_client::config::Policy;
use sheaf_client::party::SiteParty;
use sheaf_client::session::{Effect, Entropy, Gate, Input, Session, Task, TransferFailure, Trust};
use sheaf_client::state::{SiteState, StateError};
use sheaf_client::verification;
use sheaf_common::blob::BlobId;
use sheaf_common::id::{Name, RunId};
use sheaf_common::message::{Job, TaskId};
use sheaf_common::secagg::client::Witness;
use sheaf_common::seed;
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::durable::Outlive;
use sheaf_transport::tls::Credentials;
use tokio::sync::watch;

use crate::base::Base;
use crate::hub::OPERATOR;
use crate::profile::Mood;

/// A client that is awake.
#[derive(Debug)]
pub struct Client {
    /// Its state directory.
    pub state: SiteState,
    /// The global parameters of each task, which go with it.
    pub globals: BTreeMap<TaskId, BlobId>,
    /// Blobs that are on their way: it has links to them already, which go if it leaves before they would be here.
    pub arriving: Vec<BlobId>,
    /// How it behaves in the attempt in hand.
    pub mood: Mood,
    /// Messages that it has said in that attempt.
    pub said: u32,
    session: Session,
}

/// A site of a simulation stands by for its run at any hour, and knows its operator.
#[derive(Clone, Copy, Debug)]
pub struct Always;

impl Gate for Always {
    fn author(&self, _job: &Job) -> Result<Name, String> {
        OPERATOR.parse().map_err(|e: sheaf_common::id::BadName| e.to_string())
    }

    fn hold(&self, _run: &RunId, _job: &Job, _author: &Name) -> Option<String> {
        None
    }
}

/// What a virtual client agrees to: whatever its run asks for. Its examples are nobody's secret.
pub fn policy() -> Policy {
    Policy {
        require_secure_aggregation: false,
        min_updates: 2,
        min_metric_count: 1,
        own_metrics: true,
        ..Policy::default()
    }
}

impl Client {
    /// Wakes a client from its state directory.
    pub fn wake(state: SiteState, credentials: Arc<Credentials>, seed: u64) -> Result<Self, StateError> {
        let (updates, memory) = (state.updates()?, state.memory()?);
        let trust = Trust {
            gate: Box::new(Always),
            policy: policy(),
            entropy: entropy(seed, credentials.identity.name.to_string()),
            federation: credentials.identity.federation.clone(),
            party: Box::new(SiteParty::new(watch::channel(credentials).1)),
        };
        let mut session = Session::new(updates, memory, trust);
        session.handle(Input::Connected);
        let mood = Mood { slowdown: 1.0, silent_after: None };
        Ok(Self { state, globals: BTreeMap::new(), arriving: Vec::new(), mood, said: 0, session })
    }

    /// Goes on in another directory, which holds the same.
    pub fn move_to(&mut self, dir: &Path) -> Result<(), StateError> {
        self.state = SiteState::open_to(Outlive::Program, dir)?;
        Ok(())
    }

    /// The connection is gone, and with it what was on its way.
    pub fn lose(&mut self) -> Result<(), BlobError> {
        self.arriving.drain(..).try_for_each(|blob| self.state.blobs.remove(blob))
    }

    /// Feeds the session, and says what it wants done.
    pub fn handle(&mut self, input: Input) -> Vec<Effect> {
        self.session.handle(input);
        std::iter::from_fn(|| self.session.poll_effect()).collect()
    }

    /// Whether nothing is in hand.
    pub fn is_at_rest(&self) -> bool {
        self.session.is_at_rest()
    }

    /// Whether what it says next is heard.
    pub fn speaks(&mut self) -> bool {
        self.said += 1;
        self.mood.silent_after.is_none_or(|most| self.said <= most)
    }

    /// Lets go of what belongs to a task.
    pub fn forget(&mut self, task: &TaskId) -> Result<(), StateError> {
        let global = self.globals.remove(task).filter(|global| !self.session.needs(*global));
        self.state.forget(task, global)
    }
}

/// The random bytes of a client in a secure sum: others in each, and the same whatever was interrupted in between.
pub fn entropy(seed: u64, name: String) -> Entropy {
    Box::new(move |task| {
        let mut bytes = [0; 32];
        let task = format!("{task} {}", task.attempt);
        seed::stream(seed, &["entropy", &name, &task]).fill_bytes(&mut bytes);
        bytes
    })
}

/// The blobs that a client must fetch for a task, of those that it does not have.
pub fn wanted(state: &SiteState, task: &Task, is_checked: bool) -> Vec<BlobId> {
    let sum = task.record().filter(|_| is_checked);
    let blobs = match sum {
        Some(record) => {
            record.body.sum().map(|sum| sum.blob).into_iter().chain([record.body.model_in]).collect()
        }
        None => vec![task.job().global],
    };
    blobs.into_iter().filter(|blob| state.blobs.length(*blob).is_none()).collect()
}

/// Has the imported model, and blobs of the server's, in a client's directory. A blob never changes, so that a link is as good as
/// a copy.
pub fn fetch(
    from: &BlobDir,
    base: Option<&Arc<Base>>,
    state: &SiteState,
    blobs: &[BlobId],
) -> Result<(), TransferFailure> {
    if let Some(base) = base {
        base.lend(state).map_err(|error| TransferFailure::Refused(error.to_string()))?;
    }
    for blob in blobs {
        match state.blobs.link(from, *blob) {
            Ok(true) => {}
            Ok(false) => return Err(TransferFailure::Refused(BlobError::Missing(*blob).to_string())),
            Err(error) => return Err(TransferFailure::Refused(error.to_string())),
        }
    }
    Ok(())
}

/// Checks the published sum of the round before, and makes the new model of it.
pub fn rebuild(state: &SiteState, task: &Task, witness: &Witness) -> Result<(), TransferFailure> {
    let Some(record) = task.record() else { return Ok(()) };
    verification::rebuild(&state.blobs, task.job(), &record.body, witness)
        .map_err(|error| TransferFailure::Refused(error.for_operator()))
}
