//! The shell around the coordinators: events in, journal, effects out. The server's only `select!` is here.
//!
//! Every batch of events goes the same way: coordinators take their inputs, everything durable is committed in
//! one transaction, and only then do the effects leave. A crash in between loses nothing: what was not
//! committed did not happen, and what was committed is asked for again by `Input::Restarted`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Identity, Name, RunId};
use sheaf_common::message::{EvaluateTask, Reply, Request, ServerMessage, SiteMessage, TaskId, TrainTask};
use sheaf_common::model::{Manifest, ModelInfo};
use sheaf_common::status::{Phase, RunState};
use sheaf_common::time::Timestamp;
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::endpoint::{EndpointError, listen};
use sheaf_transport::tls::{CredentialError, Credentials};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::aggregation::aggregate;
use crate::config::ServerConfig;
use crate::connection::{self, Context, Event, Joined};
use crate::core::queue::{Waiting, startable};
use crate::core::{Aggregate, Coordinator, Effect, Input, Run};
use crate::registry::{PeerId, Registry};
use crate::store::{SeenSite, Store, StoreError, Write};
use crate::submit::{self, Prepared, SubmitError};

/// Events taken at once; their durable writes share one transaction.
const BATCH: usize = 256;

/// How long connections may take to say good-bye.
const GOODBYE: Duration = Duration::from_secs(3);

/// The server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The certificate is not a server's.
    #[error("the certificate is {0}; `sheaf-server` needs one issued with `sheaf pki issue server`")]
    NotAServer(Identity),
    /// The port cannot be had.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The blobs failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// A file in the data directory cannot be written.
    #[error("cannot write {path}: {source}")]
    Data {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another server uses the data directory.
    #[error("{0} is in use by another sheaf-server")]
    InUse(PathBuf),
}

/// What a background job came to.
#[derive(Debug)]
enum Done {
    Aggregated(TaskId, Result<BlobId, String>),
    Prepared(Name, oneshot::Sender<Reply>, Result<Box<Prepared>, SubmitError>),
    Described(oneshot::Sender<Reply>, Result<ModelInfo, SubmitError>),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    endpoint: quinn::Endpoint,
    context: Arc<Context>,
    events: mpsc::Receiver<Event>,
    done: mpsc::Receiver<Done>,
    done_sender: mpsc::Sender<Done>,
    state: State,
    /// Held for as long as the server lives, so that no second one writes to the same directory.
    _lock: std::fs::File,
}

/// Everything that the loop owns.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) federation: sheaf_common::id::Federation,
    pub(crate) store: Store,
    pub(crate) blobs: BlobDir,
    pub(crate) updates: BlobDir,
    pub(crate) registry: Registry,
    /// All runs, in the order of submission.
    pub(crate) runs: Vec<Coordinator>,
    pub(crate) models: Vec<ModelInfo>,
    /// What members of rounds in progress are doing.
    pub(crate) progress: BTreeMap<(RunId, ClientId), (Phase, u64, u64)>,
    /// Durable writes of the batch in hand.
    writes: Vec<Write>,
    /// Effects of the batch in hand, with the run that each belongs to.
    effects: VecDeque<(usize, Effect)>,
    /// Replies to operators that must wait until the batch is durable.
    replies: Vec<(oneshot::Sender<Reply>, Reply)>,
}

impl Server {
    /// Opens the port, brings back every run, and is ready to [`run`](Self::run).
    pub async fn start(config: &ServerConfig) -> Result<Self, ServerError> {
        let credentials = Credentials::load(&config.identity)?;
        if credentials.identity.role != sheaf_common::id::Role::Server {
            return Err(ServerError::NotAServer(credentials.identity));
        }
        let endpoint = listen(config.listen, &credentials)?;
        let data = |path: PathBuf| move |source| ServerError::Data { path, source };
        std::fs::create_dir_all(&config.data_dir).map_err(data(config.data_dir.clone()))?;
        let lock = lock(config)?;
        let blobs = BlobDir::open(config.data_dir.join("blobs"))?;
        let updates = BlobDir::open(config.data_dir.join("updates"))?;
        blobs.remove_unnamed()?;
        let store = Store::open(&config.data_dir.join("sheaf.db"))?;
        let (runs, models) = (store.runs()?, store.models()?);
        let (sender, events) = mpsc::channel(1024);
        let (done_sender, done) = mpsc::channel(64);
        let federation = credentials.identity.federation.clone();
        let context = Arc::new(Context {
            federation: federation.clone(),
            blobs: blobs.clone(),
            updates: updates.clone(),
            events: sender,
        });
        let state = State {
            federation,
            store,
            blobs,
            updates,
            registry: Registry::default(),
            runs,
            models,
            progress: BTreeMap::new(),
            writes: Vec::new(),
            effects: VecDeque::new(),
            replies: Vec::new(),
        };
        let mut server = Self { endpoint, context, events, done, done_sender, state, _lock: lock };
        let address = server.address();
        let path = config.data_dir.join("address");
        std::fs::write(&path, format!("{address}\n")).map_err(data(path.clone()))?;
        server.resume()?;
        info!(%address, federation = %server.state.federation, "listening");
        Ok(server)
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        // A bound socket has an address; the unspecified one only keeps this total.
        self.endpoint.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Runs that were under way go on.
    fn resume(&mut self) -> Result<(), ServerError> {
        for index in 0..self.state.runs.len() {
            if !self.state.runs[index].state().0.is_final() {
                info!(run = %self.state.runs[index].run().id, "resuming");
                self.state.feed(index, Input::Restarted, now());
            }
        }
        self.settle()
    }

    /// Serves until `shutdown` is ready, then says good-bye to everybody. What was under way goes on at the next
    /// start.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        tokio::pin!(shutdown);
        let acceptor = tokio::spawn(accept(self.endpoint.clone(), self.context.clone()));
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let timeout = self.state.next_timeout();
            tokio::select! {
                _ = self.events.recv_many(&mut batch, BATCH) => {
                    for event in batch.drain(..) {
                        self.on_event(event);
                    }
                }
                Some(done) = self.done.recv() => self.state.on_done(done),
                () = sleep_until(timeout) => self.state.on_timeout(),
                () = &mut shutdown => break,
            }
            self.settle()?;
        }
        info!("stopping");
        acceptor.abort();
        self.endpoint.close(3u32.into(), b"the server is shutting down");
        // Whoever does not answer in time notices by itself.
        let _ = tokio::time::timeout(GOODBYE, self.endpoint.wait_idle()).await;
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Request(peer, identity, request, reply) => {
                self.on_request(peer, &identity, request, reply)
            }
            Event::Opened(..)
            | Event::Joined(_)
            | Event::Message(..)
            | Event::Access(..)
            | Event::Moved(..)
            | Event::Closed(_) => self.state.on_event(event),
        }
    }

    /// Makes the batch durable, then lets its effects out; repeats while effects give rise to inputs.
    fn settle(&mut self) -> Result<(), ServerError> {
        let state = &mut self.state;
        state.start_runs();
        let writes = std::mem::take(&mut state.writes);
        if let Err(error) = state.store.commit(&writes) {
            error!(%error, "nothing can be remembered any more: stopping");
            return Err(error.into());
        }
        while let Some((index, effect)) = state.effects.pop_front() {
            if let Effect::Aggregate(round) = effect {
                spawn_aggregation(state, index, round, self.done_sender.clone());
            } else {
                state.perform(index, effect);
            }
        }
        for (sender, reply) in state.replies.drain(..) {
            // An operator who went away needs no reply.
            let _ = sender.send(reply);
        }
        Ok(())
    }

    fn on_request(
        &mut self,
        peer: PeerId,
        identity: &Identity,
        request: Request,
        reply: oneshot::Sender<Reply>,
    ) {
        let (blobs, done) = (self.state.blobs.clone(), self.done_sender.clone());
        match request {
            Request::Submit { file, text } => {
                let (models, by) = (self.state.models.clone(), identity.name.clone());
                tokio::task::spawn_blocking(move || {
                    let result = submit::prepare(&blobs, &models, &file, &text).map(Box::new);
                    done.blocking_send(Done::Prepared(by, reply, result))
                });
            }
            Request::ImportModel { name, manifest } => {
                tokio::task::spawn_blocking(move || {
                    let result = submit::describe(&blobs, &name, manifest);
                    done.blocking_send(Done::Described(reply, result))
                });
            }
            Request::Stop(run) => {
                let answer = self.state.stop(&run, &identity.name);
                self.state.replies.push((reply, answer));
            }
            Request::Runs | Request::Run(_) | Request::Sites | Request::Models | Request::Export { .. } => {
                let answer = self.state.answer(peer, request, now());
                self.state.replies.push((reply, answer));
            }
        }
    }
}

impl State {
    /// Gives an input to a run: the journal first, then what the coordinator makes of it.
    fn feed(&mut self, index: usize, input: Input, at: Timestamp) {
        let coordinator = &mut self.runs[index];
        let run = coordinator.run().id.clone();
        self.writes.push(Write::Input { run: run.clone(), at, input: Box::new(input.clone()) });
        coordinator.handle(input, at);
        let mut round_over = false;
        while let Some(effect) = coordinator.poll_effect() {
            match effect {
                Effect::Record(record) => {
                    round_over = true;
                    crate::report::round(&run, &record);
                    self.writes.push(Write::Round { run: run.clone(), record });
                }
                Effect::FinalMetrics(report) => {
                    self.writes.push(Write::FinalMetrics { run: run.clone(), report });
                }
                Effect::Ended(ref state) => {
                    round_over = true;
                    self.progress.retain(|(of, _), _| *of != run);
                    crate::report::ended(&run, state, &coordinator.state().1);
                }
                Effect::Train { .. }
                | Effect::Evaluate { .. }
                | Effect::Reject { .. }
                | Effect::Over { .. }
                | Effect::Aggregate(_)
                | Effect::Forget(_) => self.effects.push_back((index, effect)),
            }
        }
        if round_over && coordinator.is_between_rounds() {
            self.writes.push(Write::Snapshot(Box::new(coordinator.clone())));
        }
    }

    /// Gives the same input to every unfinished run that admits `site`.
    fn feed_admitting(&mut self, site: &ClientId, input: &Input) {
        let at = now();
        for index in 0..self.runs.len() {
            let run = &self.runs[index];
            if run.admits(site) && !run.state().0.is_final() {
                self.feed(index, input.clone(), at);
            }
        }
    }

    fn find(&self, run: &RunId) -> Option<usize> {
        self.runs.iter().position(|coordinator| coordinator.run().id == *run)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened(peer, identity) => self.registry.add(peer, identity),
            Event::Joined(joined) => self.on_joined(joined),
            Event::Message(peer, site, message, inspection) if self.registry.is_current(&site, peer) => {
                self.on_message(&site, message, inspection);
            }
            Event::Access(peer, access, reply) => _ = reply.send(self.registry.permits(peer, access)),
            Event::Moved(peer, down, up) => self.registry.count(peer, down, up),
            Event::Closed(peer) => {
                if let Some(site) = self.registry.remove(peer) {
                    info!(%site, "site disconnected");
                    self.feed_admitting(&site, &Input::Disconnected(site.clone()));
                }
            }
            Event::Message(..) | Event::Request(..) => {}
        }
    }

    fn on_joined(&mut self, joined: Joined) {
        let Joined { peer, site, software, outbox, connection } = joined;
        let (address, at) = (connection.remote_address().to_string(), now());
        info!(%site, %address, %software, "site connected");
        self.writes.push(Write::Site(SeenSite {
            site: site.clone(),
            address: address.clone(),
            software: software.clone(),
            seen: at,
        }));
        self.registry.join(site.clone(), peer, (address, software), at, outbox, connection);
        self.feed_admitting(&site, &Input::Connected(site.clone()));
    }

    fn on_message(
        &mut self,
        site: &ClientId,
        message: SiteMessage,
        inspection: Option<crate::core::Inspection>,
    ) {
        let from = site.clone();
        let (task, input) = match message {
            SiteMessage::Progress { task, phase, done, total } => {
                if self.find(&task.run).is_some() {
                    self.progress.insert((task.run, from), (phase, done, total));
                }
                return;
            }
            SiteMessage::Update(update) => (update.task.clone(), Input::Update { from, update, inspection }),
            SiteMessage::Evaluated { task, metrics } => {
                (task.clone(), Input::Evaluated { from, task, metrics })
            }
            SiteMessage::Declined { task, reason } => {
                warn!(%site, %task, %reason, "site declined");
                (task.clone(), Input::Declined { from, task, reason })
            }
        };
        match self.find(&task.run) {
            Some(index) => self.feed(index, input, now()),
            None => {
                let reason = format!("there is no run {}", task.run);
                self.registry.send(site, ServerMessage::Rejected { task, reason });
            }
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Aggregated(task, result) => {
                let Some(index) = self.find(&task.run) else { return };
                let input = match result {
                    Ok(global) => Input::Aggregated { task, global },
                    Err(why) => Input::AggregationFailed { task, why },
                };
                self.feed(index, input, now());
            }
            Done::Prepared(by, reply, result) => {
                let answer = match result {
                    Ok(prepared) => Reply::Submitted(self.queue(*prepared, by)),
                    Err(error) => Reply::Refused(error.to_string()),
                };
                self.replies.push((reply, answer));
            }
            Done::Described(reply, result) => {
                let answer = match result {
                    Ok(info) => {
                        info!(name = info.name, manifest = %info.manifest.short(), "model imported");
                        self.models.retain(|model| model.name != info.name);
                        self.models.push(info.clone());
                        self.models.sort_by(|a, b| a.name.cmp(&b.name));
                        self.writes.push(Write::Model(info.clone()));
                        Reply::Imported(info)
                    }
                    Err(error) => Reply::Refused(error.to_string()),
                };
                self.replies.push((reply, answer));
            }
        }
    }

    /// Queues a run under a name that is free.
    fn queue(&mut self, prepared: Prepared, by: Name) -> RunId {
        let Prepared { spec, model, params, initial } = prepared;
        let id = self.free_name(&spec.name);
        info!(run = %id, %by, "run submitted");
        let run = Run { id: id.clone(), spec, submitted_by: by, submitted_at: now(), model, params, initial };
        let coordinator = Coordinator::new(run);
        self.writes.push(Write::Run(Box::new(coordinator.clone())));
        self.runs.push(coordinator);
        let index = self.runs.len() - 1;
        let sites: Vec<ClientId> = self.registry.sites().keys().cloned().collect();
        for site in sites.into_iter().filter(|site| self.runs[index].admits(site)).collect::<Vec<_>>() {
            self.feed(index, Input::Connected(site), now());
        }
        id
    }

    /// `name`, or `name-2`, `name-3` … when it is taken.
    fn free_name(&self, name: &Name) -> RunId {
        let taken: BTreeSet<&str> = self.runs.iter().map(|run| run.run().id.as_str()).collect();
        if !taken.contains(name.as_str()) {
            return RunId(name.clone());
        }
        let numbered = |number: u64| {
            let suffix = format!("-{number}");
            let stem = &name.as_str()[..name.as_str().len().min(sheaf_common::id::NAME_MAX - suffix.len())];
            format!("{}{suffix}", stem.trim_end_matches('-'))
        };
        (2..)
            .map(numbered)
            .filter(|candidate| !taken.contains(candidate.as_str()))
            .find_map(|candidate| candidate.parse().ok())
            .unwrap_or_else(|| RunId(name.clone()))
    }

    fn stop(&mut self, run: &RunId, by: &Name) -> Reply {
        match self.find(run) {
            None => Reply::Refused(format!("there is no run {run}")),
            Some(index) if self.runs[index].state().0.is_final() => {
                Reply::Refused(format!("run {run} is over already: {}", self.runs[index].state().0))
            }
            Some(index) => {
                self.feed(index, Input::Stop(by.clone()), now());
                Reply::Stopping(run.clone())
            }
        }
    }

    /// Lets queued runs go whose sites are free.
    fn start_runs(&mut self) {
        let (indices, waiting): (Vec<usize>, Vec<Waiting<'_>>) = self
            .runs
            .iter()
            .enumerate()
            .filter(|(_, run)| !run.state().0.is_final())
            .map(|(index, run)| {
                let sites = run.run().spec.cohort.sites.as_deref();
                (index, Waiting { sites, started: run.state().0 != RunState::Queued })
            })
            .unzip();
        for index in startable(&waiting).into_iter().map(|at| indices[at]).collect::<Vec<_>>() {
            info!(run = %self.runs[index].run().id, "run starts");
            self.feed(index, Input::Start, now());
        }
    }

    fn next_timeout(&self) -> Option<Timestamp> {
        self.runs.iter().filter_map(Coordinator::poll_timeout).min()
    }

    fn on_timeout(&mut self) {
        let at = now();
        for index in 0..self.runs.len() {
            if self.runs[index].poll_timeout().is_some_and(|due| due <= at) {
                self.feed(index, Input::Tick, at);
            }
        }
    }

    /// Does what a coordinator wants done outside.
    fn perform(&mut self, index: usize, effect: Effect) {
        match effect {
            Effect::Train { to, task, deadline } => {
                let job = self.runs[index].job();
                let get = self.blobs_of(job.model, job.global);
                self.progress.remove(&(task.run.clone(), to.clone()));
                self.registry.grant_site(&to, &get, Some(job.params.bytes()));
                let time_left_ms = deadline.0.saturating_sub(now().0);
                self.registry
                    .send(&to, ServerMessage::Train(Box::new(TrainTask { id: task, job, time_left_ms })));
            }
            Effect::Evaluate { to, task } => {
                let job = self.runs[index].job();
                let get = self.blobs_of(job.model, job.global);
                self.progress.remove(&(task.run.clone(), to.clone()));
                self.registry.grant_site(&to, &get, None);
                self.registry.send(&to, ServerMessage::Evaluate(Box::new(EvaluateTask { id: task, job })));
            }
            Effect::Reject { to, task, reason } => {
                warn!(site = %to, %task, %reason, "update refused");
                self.registry.send(&to, ServerMessage::Rejected { task, reason });
            }
            Effect::Over { to, task } => self.registry.send(&to, ServerMessage::Over(task)),
            Effect::Forget(blobs) => {
                for blob in blobs.into_iter().filter(|blob| !self.runs.iter().any(|run| run.holds(*blob))) {
                    if let Err(error) = self.updates.remove(blob) {
                        warn!(%error, "an update that is no longer needed stays on disk");
                    }
                }
            }
            // These were dealt with when they were made: they are writes, or jobs.
            Effect::Aggregate(_) | Effect::Record(_) | Effect::FinalMetrics(_) | Effect::Ended(_) => {}
        }
    }

    /// Every blob that a task names.
    pub(crate) fn blobs_of(&self, model: Option<BlobId>, global: BlobId) -> Vec<BlobId> {
        let manifest =
            model.and_then(|id| self.blobs.read(id).ok()).and_then(|json| Manifest::parse(&json).ok());
        let files = manifest.into_iter().flat_map(|manifest| manifest.files).map(|file| file.blob);
        files.chain(model).chain([global]).collect()
    }
}

fn spawn_aggregation(state: &State, index: usize, round: Aggregate, done: mpsc::Sender<Done>) {
    let (blobs, updates) = (state.blobs.clone(), state.updates.clone());
    let spec = state.runs[index].run().spec.clone();
    tokio::task::spawn_blocking(move || {
        let result = aggregate(&blobs, &updates, &spec, &round).map_err(|e| e.to_string());
        done.blocking_send(Done::Aggregated(round.task, result))
    });
}

async fn accept(endpoint: quinn::Endpoint, context: Arc<Context>) {
    for number in 0.. {
        let Some(incoming) = endpoint.accept().await else {
            return;
        };
        tokio::spawn(connection::serve(context.clone(), incoming, PeerId(number)));
    }
}

async fn sleep_until(due: Option<Timestamp>) {
    match due {
        Some(due) => tokio::time::sleep(due.since(now())).await,
        None => std::future::pending().await,
    }
}

/// One server per data directory.
fn lock(config: &ServerConfig) -> Result<std::fs::File, ServerError> {
    let path = config.data_dir.join("lock");
    let file =
        std::fs::File::create(&path).map_err(|source| ServerError::Data { path: path.clone(), source })?;
    file.try_lock().map_err(|_| ServerError::InUse(config.data_dir.clone()))?;
    Ok(file)
}

/// The wall clock, which the core is told and never reads.
pub(crate) fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
