//! The shell around the coordinators: events in, journal, effects out. The server's only `select!` is here.
//!
//! Every batch of events goes the same way: coordinators take their inputs, everything durable is committed in
//! one transaction, and only then do the effects leave. A crash in between loses nothing: what was not
//! committed did not happen, and what was committed is asked for again by `Input::Restarted`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sheaf_common::id::Identity;
use sheaf_common::message::{Reply, Request};
use sheaf_common::run::RunSpec;
use sheaf_common::time::Timestamp;
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::endpoint::EndpointError;
use sheaf_transport::listener::Listener;
use sheaf_transport::tls::{CredentialError, Credentials};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use crate::aggregation::aggregate;
use crate::config::ServerConfig;
use crate::connection::{self, Context, Event};
use crate::core::{Aggregate, Effect, Input, Open};
use crate::opening;
use crate::registry::PeerId;
use crate::state::{Done, State};
use crate::store::{Store, StoreError};
use crate::submit;

/// Events taken at once; their durable writes share one transaction.
const BATCH: usize = 256;

/// It is noticed so often whether a site is silent.
const LOOK: Duration = Duration::from_secs(1);

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

/// A running server.
#[derive(Debug)]
pub struct Server {
    listener: Arc<Listener>,
    credentials: Arc<Credentials>,
    context: Arc<Context>,
    events: mpsc::Receiver<Event>,
    done: mpsc::Receiver<Done>,
    done_sender: mpsc::Sender<Done>,
    state: State,
    /// Held for as long as the server lives, so that no second one writes to the same directory.
    _lock: std::fs::File,
}

impl Server {
    /// Opens the port, brings back every run, and is ready to [`run`](Self::run).
    pub async fn start(config: &ServerConfig) -> Result<Self, ServerError> {
        let credentials = Credentials::load(&config.identity)?;
        if credentials.identity.role != sheaf_common::id::Role::Server {
            return Err(ServerError::NotAServer(credentials.identity));
        }
        let listener =
            Arc::new(Listener::open(config.listen, config.listen_tcp, config.limits, &credentials).await?);
        let data = |path: PathBuf| move |source| ServerError::Data { path, source };
        std::fs::create_dir_all(&config.data_dir).map_err(data(config.data_dir.clone()))?;
        let lock = lock(config)?;
        let blobs = BlobDir::open(config.data_dir.join("blobs"))?;
        blobs.remove_unnamed()?;
        let updates = BlobDir::open(config.data_dir.join("updates"))?;
        let store = Store::open(&config.data_dir.join("sheaf.db"))?;
        let federation = credentials.identity.federation.clone();
        let state = State::open(federation.clone(), store, blobs.clone(), updates.clone())?;
        let (sender, events) = mpsc::channel(1024);
        let (done_sender, done) = mpsc::channel(64);
        let authority = credentials.authority()?;
        let context =
            Arc::new(Context { federation: federation.clone(), authority, blobs, updates, events: sender });
        let credentials = Arc::new(credentials);
        let mut server =
            Self { listener, credentials, context, events, done, done_sender, state, _lock: lock };
        let address = server.address();
        let path = config.data_dir.join("address");
        std::fs::write(&path, format!("{address}\n")).map_err(data(path.clone()))?;
        server.resume()?;
        let tcp = server.listener.tcp_address().map(tracing::field::display);
        info!(%address, tcp, %federation, "listening");
        Ok(server)
    }

    /// Where the server listens on UDP.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
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
        let acceptor = tokio::spawn(accept(self.listener.clone(), self.context.clone()));
        let mut batch = Vec::with_capacity(BATCH);
        let mut look = tokio::time::interval(LOOK);
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
                _ = look.tick() => self.state.registry.look(now()),
                () = &mut shutdown => break,
            }
            self.settle()?;
        }
        info!("stopping");
        acceptor.abort();
        self.listener.close(3, "the server is shutting down");
        // Whoever does not answer in time notices by itself.
        let _ = tokio::time::timeout(GOODBYE, self.listener.wait_idle()).await;
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Request(peer, identity, request, reply) => {
                self.on_request(peer, &identity, request, reply)
            }
            Event::Opened(..)
            | Event::Knock(..)
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
            // The two kinds of long work; everything else is done at once.
            if let Effect::Aggregate(round) = effect {
                spawn_aggregation(state, index, round, self.done_sender.clone());
            } else if let Effect::Open(sum) = effect {
                spawn_opening(state, index, *sum, self.credentials.clone(), self.done_sender.clone());
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
            Request::Submit { file, text } => self.prepare(RunSpec::parse, file, text, identity, reply),
            Request::Survey { file, text } => {
                self.prepare(RunSpec::parse_survey, file, text, identity, reply)
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
            Request::Stand { site, standing, keep_updates } => {
                let answer = self.state.stand(site, standing, keep_updates, &identity.name);
                self.state.replies.push((reply, answer));
            }
            Request::Runs | Request::Run(_) | Request::Sites | Request::Models | Request::Export { .. } => {
                let answer = self.state.answer(peer, request, now());
                self.state.replies.push((reply, answer));
            }
        }
    }

    fn prepare(
        &self,
        parse: submit::Parse,
        file: String,
        text: String,
        by: &Identity,
        reply: oneshot::Sender<Reply>,
    ) {
        let (blobs, done) = (self.state.blobs.clone(), self.done_sender.clone());
        let (models, by) = (self.state.models.clone(), by.name.clone());
        tokio::task::spawn_blocking(move || {
            let result = submit::prepare(&blobs, &models, parse, &file, &text).map(Box::new);
            done.blocking_send(Done::Prepared(by, reply, result))
        });
    }
}

fn spawn_aggregation(state: &State, index: usize, round: Aggregate, done: mpsc::Sender<Done>) {
    let (blobs, updates, job) = (state.blobs.clone(), state.updates.clone(), state.runs[index].job());
    tokio::task::spawn_blocking(move || {
        let result = aggregate(&blobs, &updates, &job, &round);
        let result = result.map(|global| (global, None)).map_err(|e| e.to_string());
        done.blocking_send(Done::Aggregated(round.task, result))
    });
}

fn spawn_opening(
    state: &State,
    index: usize,
    sum: Open,
    credentials: Arc<Credentials>,
    done: mpsc::Sender<Done>,
) {
    let (blobs, updates, job) = (state.blobs.clone(), state.updates.clone(), state.runs[index].job());
    tokio::task::spawn_blocking(move || {
        let result = opening::open(&blobs, &updates, &job, &sum, &credentials);
        let result =
            result.map(|(global, summed)| (global, Some(Box::new(summed)))).map_err(|e| e.to_string());
        done.blocking_send(Done::Aggregated(sum.task, result))
    });
}

async fn accept(listener: Arc<Listener>, context: Arc<Context>) {
    for number in 0.. {
        let Some(incoming) = listener.accept().await else {
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
