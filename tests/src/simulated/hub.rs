//! The server without its network: a run's coordinator, its journal, its blobs and its long jobs.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result};
use sheaf_common::author::{self, Author};
use sheaf_common::id::{ClientId, Role};
use sheaf_common::message::{Job, SiteMessage};
use sheaf_common::run::RunSpec;
use sheaf_common::secagg::message::Answer;
use sheaf_common::secagg::server::Evidence;
use sheaf_common::time::Timestamp;
use sheaf_server::aggregation::{aggregate, inspect};
use sheaf_server::core::{Aggregate, Coordinator, Effect, Input, Open, Run};
use sheaf_server::journal::{Step, step};
use sheaf_server::opening;
use sheaf_server::publication::Made;
use sheaf_server::store::{Store, Write};
use sheaf_server::submit::{self, Submission};
use sheaf_transport::authority::Authority;
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::tls::Credentials;

use super::fuse::Fuse;

/// The server of a run.
pub struct Hub {
    /// Models and global parameters.
    pub blobs: BlobDir,
    /// Sites' updates.
    pub updates: BlobDir,
    /// The run as it stands.
    pub run: Coordinator,
    /// When it dies.
    pub fuse: Fuse,
    store: Store,
    /// Its database, unless that is in memory and outlives crashes there.
    file: Option<PathBuf>,
    jobs: VecDeque<(Job, Work)>,
    credentials: Arc<Credentials>,
    authority: Authority,
}

/// What a server does beside everything else.
pub enum Work {
    /// The mean of updates.
    Aggregate(Aggregate),
    /// The mean that a secure sum comes to.
    Open(Box<Open>),
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
        let blobs = BlobDir::open(dir.join("blobs"))?;
        let updates = BlobDir::open(dir.join("updates"))?;
        let file = (!in_memory).then(|| dir.join("sheaf.db"));
        let mut store = match &file {
            Some(path) => Store::open(path)?,
            None => Store::in_memory()?,
        };
        let statement = author::statement(&RunSpec::parse("run.toml", run)?, None);
        let (certificate, signature) = (credentials.certificate(), credentials.sign(&statement)?.into());
        let (_, key) = credentials.authority().verify_server(&certificate, SystemTime::now())?;
        let submission = Submission {
            parse: RunSpec::parse,
            file: "run.toml".into(),
            text: run.into(),
            author: Author { certificate, signature },
            key,
        };
        let prepared = submit::prepare(&blobs, &[], submission)?;
        let run = Coordinator::new(Run {
            id: prepared.spec.name.to_string().parse()?,
            federation: credentials.identity.federation.clone(),
            spec: prepared.spec,
            submitted_by: "op".parse()?,
            author: Some(prepared.author),
            submitted_at: Timestamp(0),
            model: prepared.model,
            phases: prepared.phases,
            initial: prepared.initial,
        });
        store.commit(&[Write::Run(Box::new(run.clone()))])?;
        let authority = credentials.authority().clone();
        let (fuse, jobs) = (Fuse::default(), VecDeque::new());
        Ok(Self { blobs, updates, run, fuse, store, file, jobs, credentials, authority })
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
        let (task, result) = match &work {
            Work::Aggregate(round) => {
                let made = aggregate(&self.blobs, &self.updates, &job, round, &self.credentials);
                (&round.task, made.map_err(|e| e.to_string()))
            }
            Work::Open(sum) => {
                let made = opening::open(&self.blobs, &self.updates, &job, sum, &self.credentials);
                (&sum.task, made.map_err(|e| e.to_string()))
            }
        };
        let task = task.clone();
        Some(match result {
            Ok(Made { global, record, summed }) => Input::Aggregated { task, global, record, summed },
            Err(why) => Input::AggregationFailed { task, why },
        })
    }

    /// What a site's message is to the run.
    pub fn understand(&self, site: &ClientId, message: SiteMessage) -> Result<Option<Input>> {
        let from = site.clone();
        Ok(Some(match message {
            SiteMessage::Progress { .. } | SiteMessage::Standby { .. } | SiteMessage::Renew(_) => {
                return Ok(None);
            }
            SiteMessage::Update(update) => {
                let inspection = inspect(&self.updates, update.delta)?;
                Input::Update { from, update, inspection }
            }
            SiteMessage::Ready(task) => Input::Ready { from, task },
            SiteMessage::Secure { task, answer } => {
                let evidence = self.evidence(site, &answer);
                Input::Secure { from, task, answer: Box::new(answer), evidence }
            }
            SiteMessage::Evaluated { task, metrics } => Input::Evaluated { from, task, metrics },
            SiteMessage::Declined { task, reason } => Input::Declined { from, task, reason },
        }))
    }

    fn evidence(&self, site: &ClientId, answer: &Answer) -> Evidence {
        match answer {
            Answer::Advertisement(entry) => {
                match self.authority.verify(&entry.body.certificate, SystemTime::now()) {
                    Ok((identity, key)) if identity.role == Role::Site && identity.name == site.0 => {
                        Evidence::Key(key)
                    }
                    Ok(_) | Err(_) => Evidence::Nothing,
                }
            }
            Answer::Masked(blob) => self.updates.length(*blob).map_or(Evidence::Nothing, Evidence::Length),
            Answer::Shares(_) | Answer::Confirmed(_) | Answer::Unmasking(_) => Evidence::Nothing,
        }
    }
}
