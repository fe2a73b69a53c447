//! The shell around the coordinators: events in, journal, effects out. The server's only `select!` is here.
//!
//! Every batch of events goes the same way: coordinators take their inputs, everything durable is committed in
//! one transaction, and only then do the effects and the answers leave. A crash in between loses nothing: what was not
//! committed did not happen, and what was committed is asked for again by `Input::Restarted`.

use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sheaf_common::author::Author;
use sheaf_common::id::{ClientId, Federation, Identity, Role};
use sheaf_common::message::{Reply, Request, TaskId};
use sheaf_common::run::RunSpec;
use sheaf_common::time::Timestamp;
use sheaf_transport::audit::{AuditError, AuditLog};
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::durable;
use sheaf_transport::endpoint::EndpointError;
use sheaf_transport::listener::Listener;
use sheaf_transport::reload::{self, Current};
use sheaf_transport::tls::{self, CredentialError, Credentials};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::aggregation::aggregate;
use crate::audit;
use crate::config::{DataDir, ServerConfig};
use crate::connection::{self, Context, Event};
use crate::core::{Aggregate, Effect, Input, Open};
use crate::enrolment::state::Registrar;
use crate::opening;
use crate::pki::{Authority, PkiError};
use crate::publication::Made;
use crate::registry::PeerId;
use crate::retention::{Needed, Retention};
use crate::state::{DiskFailed, Done, State};
use crate::store::{Store, StoreError, Write};
use crate::submit::{self, Submission};

/// Events taken at once; their durable writes share one transaction.
const BATCH: usize = 256;

/// It is noticed so often whether a site is silent.
const LOOK: Duration = Duration::from_secs(1);
/// Whoever runs the server is warned that a certificate ends, so often and so long before.
const DAY: Duration = Duration::from_secs(86_400);
const WARN_DAYS: i64 = 30;

/// How often blobs that nothing needs are let go of.
const COLLECT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long connections may take to say good-bye.
const GOODBYE: Duration = Duration::from_secs(3);

/// The server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The authority that signs for sites cannot be used.
    #[error("[enrolment] authority: {0}")]
    Authority(#[from] PkiError),
    /// It belongs to somebody else.
    #[error("[enrolment] authority in {0} is of federation {1}, but the server is of {2}")]
    ForeignAuthority(PathBuf, Federation, Federation),
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
    /// Nothing can be written down for the auditor.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A file in the data directory cannot be written.
    #[error("cannot write {path}: {source}; choose another data_dir, or see that it can be written")]
    Data {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A round's result could not be written.
    #[error(transparent)]
    Disk(#[from] DiskFailed),
    /// Another server uses the data directory.
    #[error("{0} is in use by another sheaf-server")]
    InUse(PathBuf),
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    listener: Arc<Listener>,
    credentials: Current,
    context: Arc<Context>,
    events: mpsc::Receiver<Event>,
    done: mpsc::Receiver<Done>,
    done_sender: mpsc::Sender<Done>,
    state: State,
    /// What operators asked in the batch in hand.
    questions: Vec<(PeerId, Request, oneshot::Sender<Reply>)>,
    audit: AuditLog,
    retention: Retention,
    /// Held for as long as the server lives, so that no second one writes to the same directory.
    _lock: std::fs::File,
}

impl Server {
    /// Opens the port, brings back every run, and is ready to [`run`](Self::run).
    pub async fn start(config: &ServerConfig) -> Result<Self, ServerError> {
        let credentials = Credentials::load(&config.identity)?;
        if credentials.identity.role != Role::Server {
            return Err(ServerError::NotAServer(credentials.identity));
        }
        let registrar = registrar(config, &credentials)?;
        let (udp, tcp) = (config.listen, config.listen_tcp);
        let listener = Arc::new(
            Listener::open(udp, tcp, config.limits, config.congestion, &credentials, registrar.open).await?,
        );
        let data = |path: PathBuf| move |source| ServerError::Data { path, source };
        durable::make(&config.data_dir).map_err(data(config.data_dir.clone()))?;
        let lock = lock(config)?;
        let layout = DataDir(&config.data_dir);
        let blobs = BlobDir::open(layout.blobs())?;
        blobs.remove_unnamed()?;
        let updates = BlobDir::open(layout.updates())?;
        updates.remove_unnamed()?;
        let store = Store::open(&layout.database())?;
        let federation = credentials.identity.federation.clone();
        let state = State::open(federation.clone(), store, blobs.clone(), updates.clone(), registrar)?;
        let (sender, events) = mpsc::channel(1024);
        let (done_sender, done) = mpsc::channel(64);
        let credentials = reload::follow(config.identity.clone(), credentials);
        let software = concat!("sheaf-server ", env!("CARGO_PKG_VERSION"));
        let audit = AuditLog::open(&DataDir(&config.data_dir).audit_log(), credentials.clone(), software)?;
        let context = Arc::new(Context {
            federation: federation.clone(),
            credentials: credentials.clone(),
            blobs,
            updates,
            events: sender,
            limiter: Mutex::default(),
        });
        let mut server = Self {
            listener,
            credentials,
            context,
            events,
            done,
            done_sender,
            state,
            questions: Vec::new(),
            audit,
            retention: config.retention,
            _lock: lock,
        };
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
                self.state.check_blobs(index)?;
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
        let mut collect = tokio::time::interval(COLLECT);
        let mut daily = tokio::time::interval(DAY);
        loop {
            let timeout = self.state.next_timeout();
            tokio::select! {
                _ = self.events.recv_many(&mut batch, BATCH) => {
                    for event in batch.drain(..) {
                        self.on_event(event);
                    }
                }
                Some(done) = self.done.recv() => self.state.on_done(done)?,
                _ = collect.tick() => self.collect(),
                () = sleep_until(timeout) => self.state.on_timeout(),
                _ = look.tick() => self.state.registry.look(now()),
                Ok(()) = self.credentials.changed() => self.exchange_credentials(),
                _ = daily.tick() => warn_of_end(&self.credentials.borrow(), self.state.registrar.authority.as_ref()),
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

    /// Who connects from now on meets the certificate that is now in the file.
    fn exchange_credentials(&mut self) {
        let credentials = self.credentials.borrow_and_update().clone();
        if let Err(error) = self.listener.exchange(&credentials, self.state.registrar.open) {
            error!(%error, "the changed certificate cannot be used; going on with the former");
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Request(peer, identity, request, reply) => {
                self.on_request(peer, &identity, request, reply)
            }
            Event::Opened(..)
            | Event::Knock(..)
            | Event::Joined(_)
            | Event::Offered(..)
            | Event::Message(..)
            | Event::Access(..)
            | Event::Moved(..)
            | Event::Enroll(..)
            | Event::Closed(_) => self.state.on_event(event),
        }
    }

    /// Makes the batch durable, then answers and lets its effects out.
    fn settle(&mut self) -> Result<(), ServerError> {
        let state = &mut self.state;
        state.start_runs();
        let writes = std::mem::take(&mut state.writes);
        if let Err(error) = remember(&mut self.audit, &mut state.store, &writes) {
            error!(%error, "nothing can be remembered any more: stopping");
            return Err(error);
        }
        // Only now does the database say what the coordinators say.
        for (peer, request, reply) in self.questions.drain(..) {
            // An operator who went away needs no answer.
            let _ = reply.send(state.answer(peer, request, now()));
        }
        while let Some((index, effect)) = state.effects.pop_front() {
            // The two kinds of long work; everything else is done at once.
            let credentials = self.credentials.borrow().clone();
            if let Effect::Aggregate(round) = effect {
                spawn_aggregation(state, index, round, credentials, self.done_sender.clone());
            } else if let Effect::Open(sum) = effect {
                spawn_opening(state, index, *sum, credentials, self.done_sender.clone());
            } else {
                state.perform(index, effect);
            }
        }
        for (sender, reply) in state.replies.drain(..) {
            // An operator who went away needs no reply.
            let _ = sender.send(reply);
        }
        for (sender, reply) in state.registrar.replies.drain(..) {
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
            Request::Submit { file, text, author } => {
                self.prepare(RunSpec::parse, file, text, author, identity, reply);
            }
            Request::Survey { file, text, author } => {
                self.prepare(RunSpec::parse_survey, file, text, author, identity, reply);
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
            Request::Invite { site, valid_ms, pin } => {
                let answer =
                    self.state.invite(site, valid_ms, pin, &identity.name, &self.context.credentials());
                self.state.replies.push((reply, answer));
            }
            Request::Approve { site, chain } => {
                let vouched = self.vouched(&chain);
                let answer = self.state.approve(site, chain, vouched, &identity.name);
                self.state.replies.push((reply, answer));
            }
            Request::Runs
            | Request::Run(_)
            | Request::Sites
            | Request::Models
            | Request::Waiting
            | Request::Export { .. } => {
                self.questions.push((peer, request, reply));
            }
        }
    }

    /// Lets go of the blobs that nothing needs any more, off the loop.
    fn collect(&self) {
        let State { runs, store, blobs, updates, .. } = &self.state;
        let needed = match Needed::of(runs, store, blobs, self.retention, now()) {
            Ok(needed) => needed,
            Err(error) => return warn!(%error, "no blob is let go of: what is needed cannot be told"),
        };
        let (blobs, updates) = (blobs.clone(), updates.clone());
        tokio::task::spawn_blocking(move || match needed.keep_only(&blobs, &updates, now()) {
            Ok((0, _)) => {}
            Ok((count, bytes)) => info!(count, bytes, "let go of blobs that nothing needs any more"),
            Err(error) => warn!(%error, "a blob that nothing needs any more stays on disk"),
        });
    }

    /// The site that a chain is of, and its key, if our authorities vouch for it.
    fn vouched(&self, chain: &[Vec<u8>]) -> Result<(ClientId, [u8; 32]), String> {
        let credentials = self.context.credentials();
        let judged = credentials.authority().verify(&chain.concat(), SystemTime::now());
        let (identity, key) =
            judged.map_err(|e| format!("the server's authorities do not vouch for the certificate: {e}"))?;
        if identity.role == Role::Site {
            Ok((ClientId(identity.name), key))
        } else {
            Err(format!("the certificate is of {identity}, not of a site"))
        }
    }

    fn prepare(
        &self,
        parse: submit::Parse,
        file: String,
        text: String,
        author: Author,
        by: &Identity,
        reply: oneshot::Sender<Reply>,
    ) {
        let judged = self.context.credentials().authority().verify(&author.certificate, SystemTime::now());
        let key = match judged {
            Ok((identity, key)) if identity == *by => key,
            Ok(_) | Err(_) => {
                let why = "the run is not signed with the certificate of this connection";
                // An operator who went away needs no reply.
                let _ = reply.send(Reply::Refused(why.into()));
                return;
            }
        };
        let submission = Submission { parse, file, text, author, key };
        let (blobs, done) = (self.state.blobs.clone(), self.done_sender.clone());
        let (models, by) = (self.state.models.clone(), by.name.clone());
        tokio::task::spawn_blocking(move || {
            let result = submit::prepare(&blobs, &models, submission).map(Box::new);
            done.blocking_send(Done::Prepared(by, reply, result))
        });
    }
}

/// Writes down for the auditor, then for ourselves.
fn remember(audit: &mut AuditLog, store: &mut Store, writes: &[Write]) -> Result<(), ServerError> {
    for event in writes.iter().flat_map(audit::Event::of) {
        audit.append(&event)?;
    }
    audit.sync()?;
    Ok(store.commit(writes)?)
}

fn spawn_aggregation(
    state: &State,
    index: usize,
    round: Aggregate,
    credentials: Arc<Credentials>,
    done: mpsc::Sender<Done>,
) {
    let (blobs, updates, job) = (state.blobs.clone(), state.updates.clone(), state.runs[index].job());
    spawn_making(round.task.clone(), done, move || {
        let made = aggregate(&blobs, &updates, &job, &round, &credentials);
        made.map_err(|error| (error.is_of_disk(), error.to_string()))
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
    spawn_making(sum.task.clone(), done, move || {
        let made = opening::open(&blobs, &updates, &job, &sum, &credentials);
        made.map_err(|error| (error.is_of_disk(), error.to_string()))
    });
}

/// Makes the next global parameters off the loop. What fails is of the disk or not, and said in a sentence.
fn spawn_making(
    task: TaskId,
    done: mpsc::Sender<Done>,
    make: impl FnOnce() -> Result<Made, (bool, String)> + Send + 'static,
) {
    tokio::task::spawn_blocking(move || {
        // A defect of ours costs the attempt: nobody hears of a thread that is gone, and the round would wait for ever.
        let made = panic::catch_unwind(AssertUnwindSafe(make))
            .unwrap_or_else(|_| Err((false, "the server broke down over it; its log says where".into())));
        done.blocking_send(match made {
            Err((true, why)) => Done::Failed(DiskFailed(why)),
            made => Done::Aggregated(task, made.map_err(|(_, why)| why)),
        })
    });
}

/// Whoever runs the server is to have time for a new certificate.
fn warn_of_end(credentials: &Credentials, issuing: Option<&Authority>) {
    let now = i64::try_from(now().0 / 1000).unwrap_or(i64::MAX);
    let left = |end: i64| (end.saturating_sub(now)).div_euclid(86_400);
    let days = left(credentials.not_after);
    if days < WARN_DAYS {
        warn!(
            days,
            "the server's certificate ends soon: put a new one, with its key, in the files' place; no restart is needed"
        );
    }
    let left_of_issuing = issuing.map(|issuing| issuing.left(time::OffsetDateTime::now_utc()).whole_days());
    if let Some(days) = left_of_issuing.filter(|days| *days < WARN_DAYS) {
        warn!(days, "the authority that signs for sites ends soon: make another with `sheaf pki issuing`");
    }
    for authority in credentials.authorities() {
        let days = tls::ends(&authority).map_or(0, left);
        if days < WARN_DAYS {
            warn!(
                days,
                "an authority that the server trusts ends soon: docs/operations.md says how to change over"
            );
        }
    }
}

/// What the configuration says of handing out certificates.
fn registrar(config: &ServerConfig, credentials: &Credentials) -> Result<Registrar, ServerError> {
    let Some(enrolment) = &config.enrolment else { return Ok(Registrar::default()) };
    let authority = match &enrolment.authority {
        None => None,
        Some(dir) => {
            let (authority, ours) = (Authority::open(dir)?, &credentials.identity.federation);
            if authority.federation() != ours {
                let theirs = authority.federation().clone();
                return Err(ServerError::ForeignAuthority(dir.clone(), theirs, ours.clone()));
            }
            Some(authority)
        }
    };
    Ok(Registrar { open: true, authority, lifetime: Some(enrolment.lifetime), ..Registrar::default() })
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
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_breaks_down_costs_its_attempt_and_is_not_waited_for() {
        let task = TaskId { run: "toy".parse().unwrap(), round: 1, attempt: 1 };
        let (sender, mut done) = mpsc::channel(1);
        spawn_making(task.clone(), sender, || panic!("a defect"));
        let Some(Done::Aggregated(of, Err(why))) = done.recv().await else { panic!("it is not said") };
        assert_eq!((of, why.as_str()), (task, "the server broke down over it; its log says where"));
    }
}
