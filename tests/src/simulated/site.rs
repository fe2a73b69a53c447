//! A site without its network: session, state directory, trainer, masks and checks are the daemon's own.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use sheaf_client::config::{DatasetConfig, Policy};
use sheaf_client::departure::Uplink;
use sheaf_client::device::DeviceChoice;
use sheaf_client::party::SiteParty;
use sheaf_client::session::{
    Effect, Entropy, Input, Outcome, Session, Task, Then, TransferFailure, Trust, WorkFailure,
};
use sheaf_client::state::SiteState;
use sheaf_client::worker::{self, Report, Worker};
use sheaf_client::{masking, verification};
use sheaf_common::blob::BlobId;
use sheaf_common::id::ClientId;
use sheaf_common::message::{ServerMessage, SiteMessage, TaskId, Update};
use sheaf_common::params::from_bytes;
use sheaf_common::secagg::client::{Client, Witness};
use sheaf_sim::client::Always;
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::tls::Credentials;
use tokio::sync::{mpsc, watch};

use super::fuse::Fuse;

/// A site, whether its daemon runs or not.
pub struct Site {
    /// Its name.
    pub name: ClientId,
    /// Its connection, while there is one.
    pub link: Option<Link>,
    /// Whether the server takes it for connected.
    pub online: bool,
    /// How often it finished training for each task.
    pub trained: BTreeMap<TaskId, u32>,
    /// What training gave in each round from each global model: the update and its weight.
    pub deltas: BTreeMap<(u32, BlobId), (Vec<f32>, u64)>,
    /// When its daemon dies.
    pub fuse: Fuse,
    /// The next transfer is damaged on the way.
    pub damaged: bool,
    credentials: Arc<Credentials>,
    dataset: DatasetConfig,
    dir: PathBuf,
    daemon: Option<Daemon>,
    links: u64,
}

/// A connection: what was said and has not arrived.
#[derive(Default)]
pub struct Link {
    /// To the server.
    pub up: VecDeque<SiteMessage>,
    /// To the site.
    pub down: VecDeque<ServerMessage>,
    number: u64,
}

struct Daemon {
    session: Session,
    state: SiteState,
    worker: Worker,
    reports: mpsc::UnboundedReceiver<Report>,
    globals: BTreeMap<TaskId, BlobId>,
    jobs: VecDeque<Job>,
}

/// Something that goes on beside the daemon's loop.
enum Job {
    Fetch {
        task: Task,
        witness: Option<Box<Witness>>,
        link: u64,
    },
    Work(Task),
    Mask {
        client: Box<Client>,
        update: Box<Update>,
    },
    Upload {
        task: TaskId,
        blob: BlobId,
        link: u64,
    },
    /// It is done, and the daemon has not been told.
    Tell(Input),
}

impl Site {
    /// A site whose daemon does not run yet.
    pub fn new(credentials: Arc<Credentials>, dataset: DatasetConfig, dir: PathBuf) -> Self {
        Self {
            name: ClientId(credentials.identity.name.clone()),
            link: None,
            online: false,
            trained: BTreeMap::new(),
            deltas: BTreeMap::new(),
            fuse: Fuse::default(),
            damaged: false,
            credentials,
            dataset,
            dir,
            daemon: None,
            links: 0,
        }
    }

    /// Starts the daemon, from its state directory alone, unless it runs.
    pub fn start(&mut self) -> Result<()> {
        if self.daemon.is_some() {
            return Ok(());
        }
        let state = SiteState::open(&self.dir)?;
        let (updates, memory) = (state.updates()?, state.memory()?);
        // The run is in the open or secure: the site takes part in both.
        let policy = Policy { require_secure_aggregation: false, ..Policy::default() };
        let trust = Trust {
            party: Box::new(SiteParty::new(watch::channel(self.credentials.clone()).1)),
            gate: Box::new(Always),
            federation: self.credentials.identity.federation.clone(),
            policy: policy.clone(),
            entropy: entropy(&self.name),
        };
        let (sender, reports) = mpsc::unbounded_channel();
        let site = worker::Site {
            name: self.name.clone(),
            datasets: BTreeMap::from([("data".to_owned(), self.dataset.clone())]),
            device: DeviceChoice::Cpu,
            policy,
            state: state.clone(),
            uplink: Uplink::default(),
        };
        self.daemon = Some(Daemon {
            session: Session::new(updates, memory, trust),
            worker: Worker::start(site, None, sender)?,
            state,
            reports,
            globals: BTreeMap::new(),
            jobs: VecDeque::new(),
        });
        Ok(())
    }

    /// `kill -9`.
    pub fn crash(&mut self) {
        (self.daemon, self.link) = (None, None);
    }

    /// A new connection, and the server's welcome.
    pub fn connect(&mut self) -> Result<()> {
        self.links += 1;
        self.link = Some(Link { number: self.links, ..Link::default() });
        self.input(Input::Connected)
    }

    /// The connection is gone, with everything on its way.
    pub fn disconnect(&mut self) -> Result<()> {
        if self.link.take().is_some() { self.input(Input::Disconnected) } else { Ok(()) }
    }

    /// Whether something goes on beside the daemon's loop.
    pub fn is_busy(&self) -> bool {
        self.daemon.as_ref().is_some_and(|daemon| !daemon.jobs.is_empty())
    }

    /// Feeds the session and does what it wants done.
    pub fn input(&mut self, input: Input) -> Result<()> {
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        daemon.session.handle(input);
        while let Some(effect) = self.daemon.as_mut().and_then(|daemon| daemon.session.poll_effect()) {
            if self.fuse.burns() {
                self.crash();
                return Ok(());
            }
            self.perform(effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<()> {
        let number = self.link.as_ref().map(|link| link.number);
        let Some(daemon) = &mut self.daemon else { return Ok(()) };
        match effect {
            Effect::Fetch { task, witness } => {
                if let Some(link) = number {
                    daemon.globals.insert(task.id().clone(), task.job().global);
                    daemon.jobs.push_back(Job::Fetch { task, witness, link });
                } else {
                    let lost = Input::Fetched(task.id().clone(), Err(TransferFailure::Lost));
                    daemon.jobs.push_back(Job::Tell(lost));
                }
            }
            Effect::Work(task) => daemon.jobs.push_back(Job::Work(task)),
            Effect::Cancel => daemon.jobs.iter_mut().for_each(|job| {
                if let Job::Work(task) = job {
                    let cancelled = Err(WorkFailure::Cancelled);
                    *job = Job::Tell(Input::Worked(task.id().clone(), cancelled));
                }
            }),
            Effect::Mask { client, update } => daemon.jobs.push_back(Job::Mask { client, update }),
            Effect::Upload { task, blob } => daemon.jobs.push_back(match number {
                Some(link) => Job::Upload { task, blob, link },
                None => Job::Tell(Input::Uploaded(task, Err(TransferFailure::Lost))),
            }),
            Effect::Remember { memory, then } => {
                daemon.state.remember(&memory)?;
                match then {
                    Some(Then::Say(message)) => self.say(message),
                    Some(Then::Upload { task, blob }) => self.perform(Effect::Upload { task, blob })?,
                    None => {}
                }
            }
            Effect::Rename { from, finished } => {
                daemon.globals.remove(&from);
                daemon.state.rename(&from, &finished)?;
            }
            Effect::Discard(blob) => daemon.state.masked.remove(blob)?,
            Effect::Release(global) => daemon.state.blobs.remove(global)?,
            Effect::Say(message) => self.say(message),
            Effect::Forget(task) => {
                let global = daemon.globals.remove(&task).filter(|global| !daemon.session.needs(*global));
                daemon.state.forget(&task, global)?;
            }
        }
        Ok(())
    }

    fn say(&mut self, message: SiteMessage) {
        if let Some(link) = &mut self.link {
            link.up.push_back(message);
        }
    }

    /// Gets on with a job, and tells the daemon of one that is done.
    pub fn work(&mut self, served: &BlobDir, updates: &BlobDir) -> Result<()> {
        let job = self.daemon.as_mut().and_then(|daemon| daemon.jobs.pop_front());
        let done = match job {
            None => return Ok(()),
            Some(Job::Tell(input)) => return self.input(input),
            Some(Job::Fetch { task, witness, link }) => {
                let result = self.fetch(served, &task, witness, link);
                Input::Fetched(task.id().clone(), result)
            }
            Some(Job::Upload { task, blob, link }) => {
                let arrived = self.upload(updates, blob, link);
                Input::Uploaded(task, arrived.then_some(()).ok_or(TransferFailure::Lost))
            }
            Some(Job::Work(task)) => self.train(task)?,
            Some(Job::Mask { client, update }) => {
                let state = &self.daemon.as_ref().context("a job without a daemon")?.state;
                let result = masking::mask(state, &client, &update).map_err(|error| error.for_operator());
                Input::Masked(update.task, result)
            }
        };
        if let Some(daemon) = &mut self.daemon {
            daemon.jobs.push_back(Job::Tell(done));
        }
        Ok(())
    }

    fn train(&mut self, task: Task) -> Result<Input> {
        let daemon = self.daemon.as_mut().context("a job without a daemon")?;
        daemon.worker.order(task.clone());
        let result = loop {
            match daemon.reports.blocking_recv().context("the trainer is gone")? {
                Report::Progress(..) => {}
                Report::Done(_, result) => break result,
            }
        };
        if let (Task::Train(task), Ok(Outcome::Trained(update))) = (&task, &result) {
            *self.trained.entry(task.id.clone()).or_default() += 1;
            let delta = from_bytes(&daemon.state.deltas.read(update.delta)?);
            self.deltas.insert((task.id.round, task.job.global), (delta, update.num_examples));
        }
        Ok(Input::Worked(task.id().clone(), result))
    }

    fn fetch(
        &mut self,
        served: &BlobDir,
        task: &Task,
        witness: Option<Box<Witness>>,
        link: u64,
    ) -> Result<(), TransferFailure> {
        let refused = |why: String| TransferFailure::Refused(why);
        let Some(daemon) = &self.daemon else { return Err(TransferFailure::Lost) };
        let blobs = daemon.state.blobs.clone();
        let check = witness.zip(task.record());
        let wanted = match &check {
            Some((_, record)) => {
                record.body.sum().map(|sum| sum.blob).into_iter().chain([record.body.model_in]).collect()
            }
            None => vec![task.job().global],
        };
        for blob in wanted {
            if !self.carry(served, &blobs, blob, "fetch", link).map_err(refused)? {
                return Err(TransferFailure::Lost);
            }
        }
        let Some((witness, record)) = check else { return Ok(()) };
        verification::rebuild(&blobs, task.job(), &record.body, &witness)
            .map_err(|error| refused(error.for_operator()))
    }

    fn upload(&mut self, updates: &BlobDir, blob: BlobId, link: u64) -> bool {
        let Some(daemon) = &self.daemon else { return false };
        let state = daemon.state.clone();
        let dir = if state.masked.length(blob).is_some() { &state.masked } else { &state.deltas };
        let sender = format!("site.{}", self.name);
        self.carry(dir, updates, blob, &sender, link).unwrap_or(false)
    }

    /// Moves a blob; false when the connection broke half-way, and an error when the receiver does not take it.
    fn carry(
        &mut self,
        from: &BlobDir,
        to: &BlobDir,
        blob: BlobId,
        sender: &str,
        link: u64,
    ) -> Result<bool, String> {
        let text = |error: sheaf_transport::blobs::BlobError| error.to_string();
        if to.length(blob).is_some() {
            return Ok(self.holds(link));
        }
        let mut bytes = from.read(blob).map_err(text)?;
        if let Some(byte) = bytes.first_mut().filter(|_| std::mem::take(&mut self.damaged)) {
            *byte ^= 1;
        }
        let mut writer = to.resume(blob, sender).map_err(text)?;
        let begun = usize::try_from(writer.length()).unwrap_or(usize::MAX).min(bytes.len());
        if !self.holds(link) {
            writer.write(&bytes[begun..begun.max(bytes.len() / 2)]).map_err(text)?;
            return Ok(false);
        }
        writer.write(&bytes[begun..]).map_err(text)?;
        writer.finish_as(blob).map_err(text)?;
        Ok(true)
    }

    fn holds(&self, link: u64) -> bool {
        self.link.as_ref().is_some_and(|now| now.number == link)
    }
}

/// The same bytes for every attempt, so that what is rounded at random is rounded alike whatever was killed in between.
fn entropy(site: &ClientId) -> Entropy {
    let bytes = *blake3::hash(site.as_str().as_bytes()).as_bytes();
    Box::new(move |_| bytes)
}
