//! The shell around the session: messages and results in, effects out. The client's only `select!` over them
//! is here.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use sheaf_common::blob::BlobId;
use sheaf_common::id::{ClientId, Identity, Role};
use sheaf_common::message::{Job, ServerMessage, SiteMessage, TaskId, Update};
use sheaf_common::record::SignedRecord;
use sheaf_common::secagg::client::{self as secagg, Witness};
use sheaf_common::status::Phase;
use sheaf_common::wire;
use sheaf_transport::audit::{AuditError, brief};
use sheaf_transport::connection::Connection;
use sheaf_transport::dial::Dialer;
use sheaf_transport::files::WriteError;
use sheaf_transport::reload::{self, Current};
use sheaf_transport::tls::{CredentialError, Credentials};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::approval::Approvals;
use crate::audit::{Audit, Event as Audited};
use crate::config::SiteConfig;
use crate::departure::Uplink;
use crate::gate::{self, SiteGate};
use crate::identity::keeper::Keeper;
use crate::identity::renewal;
use crate::link::{self, Event};
use crate::masking;
use crate::moving::Moving;
use crate::pace::Pace;
use crate::party::SiteParty;
use crate::session::{Effect, Entropy, Input, Memory, Session, Task, Then, TransferFailure, Trust};
use crate::state::{SiteState, StateError};
use crate::transfers::{DISK_FAILED, Transfers, broken_down};
use crate::worker::{Perform, Report, Site, Worker};

/// The operator is told of progress at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(300);

/// How often the hour and the answers of the site's people are looked at.
const RECONSIDER: Duration = Duration::from_secs(1);

/// The daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
    /// The certificate is not a site's.
    #[error("the certificate is {0}; `sheaf-client` needs one issued with `sheaf pki issue site`")]
    NotASite(Identity),
    /// A new certificate is half in place.
    #[error(transparent)]
    Renewal(#[from] WriteError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Nothing can be written down for the auditor.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The trainer's thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The daemon.
#[derive(Debug)]
pub struct Client {
    session: Session,
    state: SiteState,
    worker: Worker,
    /// The connection, while there is one.
    connection: Option<Connection>,
    outbox: mpsc::Sender<SiteMessage>,
    results: mpsc::UnboundedSender<Input>,
    audit: Audit,
    credentials: Current,
    transfer: Transfers,
    /// The transfer under way.
    moving: Moving,
    /// The global parameters of each task, which go with it.
    globals: BTreeMap<TaskId, BlobId>,
    pace: Pace,
    /// How far the server was told that the site is.
    told: Option<(Phase, u64)>,
    /// Sees to it that the certificate is renewed.
    keeper: Keeper,
}

/// Runs the daemon until `shutdown` is ready. What was under way goes on at the next start.
pub async fn run(config: SiteConfig, shutdown: impl Future<Output = ()>) -> Result<(), ClientError> {
    run_by(config, None, Box::new(|_| rand::random()), shutdown).await
}

/// The same in a program of many daemons: tasks are done in another way than the daemon's own, if one is given, and random bytes
/// are these, which for a site of real people nobody may foresee.
pub async fn run_by(
    config: SiteConfig,
    by: Option<Perform>,
    entropy: Entropy,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ClientError> {
    renewal::recover(&config.identity)?;
    let credentials = Credentials::load(&config.identity)?;
    if credentials.identity.role != Role::Site {
        return Err(ClientError::NotASite(credentials.identity));
    }
    let identity = credentials.identity.clone();
    let current = reload::follow(config.identity.clone(), credentials);
    let state = SiteState::open(&config.state_dir)?;
    let _lock = state.lock()?;
    let audit = Audit::open(&config.state_dir, current.clone())?;
    let (updates, memory) = (state.updates()?, state.memory()?);
    state.tidy(&updates, &memory)?;
    let (reports, mut work) = mpsc::unbounded_channel();
    let (results, mut inputs) = mpsc::unbounded_channel();
    let (outbox, outbox_end) = mpsc::channel(64);
    let (link_events, mut events) = mpsc::channel(64);
    let uplink = Uplink::default();
    let site = Site {
        name: ClientId(identity.name.clone()),
        datasets: config.datasets.clone(),
        device: config.device,
        policy: config.policy.clone(),
        state: state.clone(),
        uplink: uplink.clone(),
    };
    // Without either nothing but the server's word changes what the site stands by for.
    let changes = config.policy.hours.is_some() || config.policy.ask;
    let trust = Trust {
        party: Box::new(SiteParty::new(current.clone())),
        federation: identity.federation.clone(),
        gate: Box::new(SiteGate {
            credentials: current.clone(),
            policy: config.policy.clone(),
            approvals: Approvals::of(&config.state_dir),
        }),
        policy: config.policy.clone(),
        entropy,
    };
    let policy = config.policy;
    info!(%identity, server = config.server, "starting");
    let dialer = Dialer::new(config.server.clone(), config.network.clone());
    let mut client = Client {
        globals: BTreeMap::new(),
        session: Session::new(updates, memory, trust),
        worker: Worker::start(site, by, reports.clone())?,
        moving: Moving::default(),
        transfer: Transfers { state: state.clone(), audit: audit.clone(), policy, reports, uplink },
        audit,
        credentials: current.clone(),
        state,
        connection: None,
        outbox,
        results,
        pace: Pace::new(PROGRESS_EVERY),
        told: None,
        keeper: Keeper::new(config.identity, current.clone()),
    };
    let link = tokio::spawn(link::keep(dialer, current, link_events, outbox_end));
    tokio::pin!(shutdown);
    let mut reconsider = tokio::time::interval(RECONSIDER);
    loop {
        tokio::select! {
            Some(event) = events.recv() => client.on_link(event),
            Some(report) = work.recv() => client.on_report(report),
            Some(input) = inputs.recv() => client.step(input),
            input = client.moving.end() => client.step(input),
            _ = reconsider.tick(), if changes => client.step(Input::Reconsider),
            request = client.keeper.request(client.connection.is_some()) => client.say(SiteMessage::Renew(request)),
            () = &mut shutdown => break,
        }
    }
    info!("stopping");
    client.worker.cancel();
    client.moving.halt();
    drop(client);
    // The link says good-bye when its outbox is closed; a server that is gone must not hold us up.
    let _ = tokio::time::timeout(Duration::from_secs(3), link).await;
    Ok(())
}

impl Client {
    /// Feeds the session and does what it wants done.
    fn step(&mut self, input: Input) {
        self.session.handle(input);
        while let Some(effect) = self.session.poll_effect() {
            self.perform(effect);
        }
    }

    fn on_link(&mut self, event: Event) {
        match event {
            Event::Up(connection) => {
                let _ = self.audit.record(&Audited::Connected);
                self.connection = Some(connection);
                self.step(Input::Connected);
            }
            Event::Down => {
                let _ = self.audit.record(&Audited::Disconnected);
                self.connection = None;
                self.moving.halt();
                self.step(Input::Disconnected);
            }
            Event::Message(message) => {
                log(&message);
                self.note(&message);
                if let ServerMessage::Certificate(reply) = message {
                    return self.keeper.answered(reply);
                }
                self.step(Input::Message(message));
            }
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Progress(task, progress) => {
                let Some(progress) = self.pace.follow(progress, Instant::now()) else { return };
                let progress = self.session.told(&task, progress);
                // How often it is said tells no more than what is said.
                if self.told.replace((progress.phase, progress.done)) != Some((progress.phase, progress.done))
                {
                    self.say(SiteMessage::Progress { task, progress });
                }
            }
            Report::Done(task, result) => self.step(Input::Worked(task, result)),
        }
    }

    /// Writes down what the server wants.
    fn note(&self, message: &ServerMessage) {
        let asked = |task: &TaskId, work, job: &Job, record: Option<&SignedRecord>| {
            let author = gate::author(self.credentials.borrow().authority(), job).ok();
            let (origin, model, global) = (job.origin(), job.model, job.global);
            let record = record.map(|record| record.body.digest().to_string());
            self.audit.record(&Audited::Asked {
                task: task.into(),
                work,
                author,
                origin,
                model,
                global,
                record,
            })
        };
        // What cannot be written down is not done: nothing leaves without an entry of its own.
        let _ = match message {
            ServerMessage::Train(task) => asked(&task.id, "train", &task.job, task.record.as_deref()),
            ServerMessage::Evaluate(task) => asked(&task.id, "evaluate", &task.job, task.record.as_deref()),
            ServerMessage::Rejected { task, reason } => {
                self.audit.record(&Audited::Rejected { task: task.into(), reason: brief(reason) })
            }
            ServerMessage::Over(task) => self.audit.record(&Audited::Over { task: task.into() }),
            ServerMessage::Welcome { .. }
            | ServerMessage::Refused(_)
            | ServerMessage::Secure { .. }
            | ServerMessage::Certificate(_)
            | ServerMessage::Announce { .. } => true,
        };
    }

    fn say(&self, message: SiteMessage) {
        let bytes = wire::encode(&message).map_or(0, |bytes| bytes.len() as u64);
        if Audited::saying(&message, bytes).is_some_and(|event| !self.audit.record(&event)) {
            return;
        }
        if let SiteMessage::Declined { task, reason } = &message {
            warn!(%task, %reason, "declined");
        }
        if self.outbox.try_send(message).is_err() {
            warn!("a message to the server was dropped: the connection is too slow or gone");
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Fetch { task, witness } => self.fetch(task, witness),
            Effect::Work(task) => self.worker.order(task),
            Effect::Cancel => {
                self.worker.cancel();
                self.moving.halt();
            }
            Effect::Mask { client, update } => self.mask(*client, *update),
            Effect::Upload { task, blob } => self.upload(task, blob),
            Effect::Remember { memory, then } => self.remember(&memory, then),
            Effect::Rename { from, finished } => {
                self.globals.remove(&from);
                if let Err(error) = self.state.rename(&from, &finished) {
                    warn!(%error, "the update may have to be trained again after a restart");
                }
            }
            Effect::Discard(blob) => {
                if let Err(error) = self.state.masked.remove(blob) {
                    warn!(%error, "a masked vector that is no longer needed stays on disk");
                }
            }
            Effect::Release(global) => {
                if let Err(error) = self.state.blobs.remove(global) {
                    warn!(%error, "global parameters that are no longer needed stay on disk");
                }
            }
            Effect::Say(message) => self.say(message),
            Effect::Forget(task) => {
                let global = self.globals.remove(&task).filter(|global| !self.session.needs(*global));
                if let Err(error) = self.state.forget(&task, global) {
                    warn!(%error, "what is no longer needed stays on disk");
                }
            }
        }
    }

    fn fetch(&mut self, task: Task, witness: Option<Box<Witness>>) {
        if let Err(error) = self.state.tidy_models(|blob| task.takes(blob) || self.session.needs(blob)) {
            warn!(%error, "what was fetched for another round stays on disk");
        }
        self.globals.insert(task.id().clone(), task.job().global);
        let (transfer, connection) = (self.transfer.clone(), self.connection.clone());
        self.moving.begin(Input::Fetched(task.id().clone(), broken_down()), async move {
            let result = match connection {
                Some(connection) => transfer.fetch(&connection, &task, witness).await,
                None => Err(TransferFailure::Lost),
            };
            Input::Fetched(task.id().clone(), result)
        });
    }

    /// Nothing leaves before it is remembered; what cannot be remembered does not leave.
    fn remember(&mut self, memory: &Memory, then: Option<Then>) {
        match (self.state.remember(memory), then) {
            (Ok(()), Some(Then::Say(message))) => self.say(message),
            (Ok(()), Some(Then::Upload { task, blob })) => self.upload(task, blob),
            (Ok(()), None) => {}
            (Err(error), then) => {
                warn!(%error, "a secure sum cannot be remembered");
                match then {
                    Some(Then::Say(
                        SiteMessage::Secure { task, .. } | SiteMessage::Declined { task, .. },
                    )) => {
                        self.say(SiteMessage::Declined { task, reason: DISK_FAILED.into() });
                    }
                    Some(Then::Upload { task, .. }) => {
                        let failed = Err(TransferFailure::Refused(DISK_FAILED.into()));
                        // The loop that receives this is the one that runs us.
                        let _ = self.results.send(Input::Uploaded(task, failed));
                    }
                    Some(Then::Say(_)) | None => {}
                }
            }
        }
    }

    fn mask(&self, client: secagg::Client, update: Update) {
        let (state, results) = (self.state.clone(), self.results.clone());
        tokio::task::spawn_blocking(move || {
            let mask = AssertUnwindSafe(|| masking::mask(&state, &client, &update));
            let result = match panic::catch_unwind(mask) {
                Ok(masked) => masked.map_err(|error| {
                    warn!(task = %update.task, %error, "the update cannot be masked");
                    error.for_operator()
                }),
                // Nobody hears of a thread that is gone.
                Err(_) => Err("the masking broke down; the site's log says where".into()),
            };
            // The loop that receives this may be gone, which is fine.
            let _ = results.send(Input::Masked(update.task, result));
        });
    }

    fn upload(&mut self, task: TaskId, blob: BlobId) {
        let (transfer, connection) = (self.transfer.clone(), self.connection.clone());
        self.moving.begin(Input::Uploaded(task.clone(), broken_down()), async move {
            let result = match connection {
                Some(connection) => transfer.upload(&connection, &task, blob).await,
                None => Err(TransferFailure::Lost),
            };
            Input::Uploaded(task, result)
        });
    }
}

/// What the site's log says of the server's words.
fn log(message: &ServerMessage) {
    match message {
        ServerMessage::Train(task) => {
            let secure = &task.job.spec.secure_aggregation;
            info!(task = %task.id, rounds = task.job.spec.rounds, secure_aggregation = %secure, "asked to train");
            for tensor in &task.job.params.tensors {
                info!(task = %task.id, tensor = tensor.name, shape = ?tensor.shape, bytes = tensor.numel().saturating_mul(4), "the update will hold");
            }
        }
        ServerMessage::Evaluate(task) if task.job.spec.is_survey() => {
            let columns = task.job.spec.task.input_columns();
            info!(task = %task.id, dataset = task.job.spec.task.dataset, ?columns, "asked to count what it holds");
        }
        ServerMessage::Evaluate(task) => info!(task = %task.id, "asked to evaluate the final model"),
        ServerMessage::Rejected { task, reason } => warn!(%task, %reason, "the update was refused"),
        ServerMessage::Over(task) => info!(%task, "over"),
        ServerMessage::Secure { task, ask } => debug!(%task, stage = ask.name(), "secure aggregation"),
        ServerMessage::Announce { run, .. } => debug!(%run, "announced"),
        ServerMessage::Welcome { .. } | ServerMessage::Refused(_) | ServerMessage::Certificate(_) => {}
    }
}
