//! The server without its network, as a simulation has it, with its journal and its long jobs.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use sheaf_common::message::Job;
use sheaf_common::time::Timestamp;
use sheaf_server::core::{Coordinator, Effect, Input};
use sheaf_server::journal::{Step, step};
use sheaf_server::store::{Store, Write};
use sheaf_sim::hub::{self, Work};
use sheaf_transport::durable::Outlive;
use sheaf_transport::tls::Credentials;

use super::fuse::Fuse;

/// The server of a run.
pub struct Hub {
    /// Its blobs and what it makes of them.
    pub server: hub::Hub,
    /// The run as it stands.
    pub run: Coordinator,
    /// When it dies.
    pub fuse: Fuse,
    store: Store,
    /// Its database, unless that is in memory and outlives crashes there.
    file: Option<PathBuf>,
    jobs: VecDeque<(Job, Work)>,
}

/// What came of an input.
pub struct Fed {
    /// What was committed; nothing when the server died before that.
    pub writes: Vec<Write>,
    /// What is to be done; nothing when it died before that.
    pub effects: Option<Vec<Effect>>,
}

impl Hub {
    /// A server in `dir` with a run that was just submitted.
    pub fn new(dir: &Path, run: &str, credentials: Arc<Credentials>, in_memory: bool) -> Result<Self> {
        let server = hub::Hub::new(Outlive::Power, dir, credentials)?;
        let file = (!in_memory).then(|| dir.join("sheaf.db"));
        let mut store = match &file {
            Some(path) => Store::open(path)?,
            None => Store::in_memory()?,
        };
        let run = server.submit("run.toml", run, None)?;
        store.commit(&[Write::Run(Box::new(run.clone()))])?;
        let (fuse, jobs) = (Fuse::default(), VecDeque::new());
        Ok(Self { server, run, fuse, store, file, jobs })
    }

    /// The journal first, then what is to be done.
    pub fn feed(&mut self, input: Input, now: Timestamp) -> Result<Fed> {
        let Step { writes, effects } = step(&mut self.run, input, now);
        if self.fuse.burns() {
            return Ok(Fed { writes: Vec::new(), effects: None });
        }
        self.store.commit(&writes)?;
        Ok(Fed { writes, effects: Some(effects) })
    }

    /// Comes back after a crash, from the journal alone.
    pub fn reopen(&mut self) -> Result<()> {
        self.jobs.clear();
        if let Some(path) = &self.file {
            self.store = Store::open(path)?;
        }
        self.run = self.replayed()?;
        Ok(())
    }

    /// The run as the journal tells it.
    pub fn replayed(&self) -> Result<Coordinator> {
        self.store.runs()?.into_iter().next().context("the run is gone")
    }

    /// Where the database lies, unless it is in memory.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The server's database.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Takes on long work.
    pub fn order(&mut self, work: Work) {
        self.jobs.push_back((self.run.job(), work));
    }

    /// Whether there is long work.
    pub fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Does a piece of long work.
    pub fn work(&mut self) -> Option<Input> {
        let (job, work) = self.jobs.pop_front()?;
        Some(self.server.work(&job, &work))
    }
}
