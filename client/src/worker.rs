//! The thread that trains: it owns the trainer of the run in hand and does one task after the other.
//!
//! Training blocks for minutes to hours, so it has a thread of its own, and the trainer stays there from a run's
//! first task to its last with what it has computed once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use sheaf_common::blob::BlobId;
use sheaf_common::id::ClientId;
use sheaf_common::message::{EvaluateTask, Job, TaskId, TrainTask, Update};
use sheaf_common::metrics::{Counts, Kind};
use sheaf_common::params::from_bytes;
use sheaf_common::run::{BatchNorm, SecureAggregation};
use sheaf_common::status::{Phase, Progress};
use sheaf_transport::blobs::{BlobDir, BlobError};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::config::{DatasetConfig, Policy};
use crate::departure::{self, Uplink};
use crate::device::DeviceChoice;
use crate::memory;
use crate::session::{Finished, Outcome, Task, WorkFailure};
use crate::state::{SiteState, StateError};
use crate::trainer::open::{OpenError, open, open_test, survey};
use crate::trainer::{Round, TrainError, Trainer, Watch};
use crate::verification::{self, Unverified};

/// How long what a task took of memory is kept for the next one: short rounds spend much of their time on touching it anew.
const KEPT: Duration = Duration::from_secs(10);

/// What the thread tells the daemon.
#[derive(Debug)]
pub enum Report {
    /// How far a task is.
    Progress(TaskId, Progress),
    /// A task came to an end.
    Done(TaskId, Result<Outcome, WorkFailure>),
}

/// What the thread needs to know of the site.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its name, which seeds the order of its data.
    pub name: ClientId,
    /// Its data sets.
    pub datasets: BTreeMap<String, DatasetConfig>,
    /// Its device.
    pub device: DeviceChoice,
    /// What may leave it.
    pub policy: Policy,
    /// Its state directory.
    pub state: SiteState,
    /// How fast its uploads go.
    pub uplink: Uplink,
}

impl Site {
    /// A task's counts as far as they may leave the site: all or none, for they are over the same examples.
    fn sendable<const N: usize>(
        &self,
        task: &TaskId,
        job: &Job,
        counts: [Option<Counts>; N],
    ) -> [Option<Counts>; N] {
        let kind = Kind::of(&job.spec);
        let withheld = |counts: &Counts| {
            let too_few = self.policy.withholds(counts.num_examples());
            // Counts beyond what their slots hold would spoil a secure sum for everybody.
            too_few.or_else(|| counts.is_sound(&kind, 1).err().map(|reason| reason.to_string()))
        };
        let Some(reason) = counts.iter().flatten().find_map(withheld) else { return counts };
        info!(%task, "no metrics are sent: {reason}");
        counts.map(|_| None)
    }
}

/// The way to the thread.
#[derive(Debug)]
pub struct Worker {
    orders: std_mpsc::Sender<Order>,
    cancel: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Order {
    task: Task,
    cancel: Arc<AtomicBool>,
}

impl Worker {
    /// Starts the thread, which does tasks by itself unless it is said how. It ends when the worker is dropped and the task in
    /// hand is over.
    pub fn start(
        site: Site,
        by: Option<Perform>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = std_mpsc::channel::<Order>();
        let thread = Thread { site, by, reports, open: None };
        thread::Builder::new().name("trainer".into()).spawn(move || thread.run(&inbox))?;
        Ok(Self { orders, cancel: Arc::default() })
    }

    /// Hands a task over.
    pub fn order(&mut self, task: Task) {
        self.cancel = Arc::default();
        let order = Order { task, cancel: self.cancel.clone() };
        // The thread catches panics and outlives every task; were it gone, nothing would be done and the
        // round's deadline would tell.
        let _ = self.orders.send(order);
    }

    /// Calls the task in hand off.
    pub fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}

/// Makes the trainer of a task of a site; the folder is that of the job's imported model.
pub type Opener<'a> = dyn Fn(&Site, &Task, Option<&Path>) -> Result<Box<dyn Trainer>, OpenError> + 'a;

/// How a site's tasks are done in the place of the daemon's own way, on its thread: for a program of many daemons, which calls
/// [`once`] when it is a site's turn.
pub type Perform = Arc<dyn Fn(&Site, &Task, &dyn Watch) -> Result<Outcome, WorkFailure> + Send + Sync>;

/// Does one task with a trainer of its own, on the thread of whoever calls: for a program that has many sites and
/// decides by itself how many of them train at a time.
pub fn once(
    site: &Site,
    task: &Task,
    opener: &Opener<'_>,
    watch: &dyn Watch,
) -> Result<Outcome, WorkFailure> {
    perform(site, &mut None, task, opener, watch)
}

/// What a site trains with by itself: on its own files.
fn from_files(site: &Site, task: &Task, model_dir: Option<&Path>) -> Result<Box<dyn Trainer>, OpenError> {
    let open = if task.id().is_test() { open_test } else { open };
    open(task.job(), model_dir, &site.datasets, site.name.as_str(), site.device, &site.policy)
}

struct Thread {
    site: Site,
    by: Option<Perform>,
    reports: mpsc::UnboundedSender<Report>,
    /// The trainer in hand and what it was opened for.
    open: Open,
}

/// A trainer and what it was opened for.
type Open = Option<(Key, Box<dyn Trainer>)>;

/// What must be equal for a trainer to be used again: everything in the job but the global parameters, and whether it is
/// a test.
#[derive(PartialEq)]
struct Key(sheaf_common::id::RunId, Job, bool);

impl Key {
    fn of(task: &Task) -> Self {
        let mut job = task.job().clone();
        job.global = BlobId::of(&[]);
        Self(task.id().run.clone(), job, task.id().is_test())
    }
}

/// A task did not work out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Unverified(#[from] Unverified),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error("the trainer broke down; the site's log says where")]
    Panicked,
}

impl Failure {
    fn for_operator(&self) -> String {
        match self {
            Self::Open(error) => error.for_operator(),
            Self::Train(error) => error.for_operator(),
            Self::Unverified(error) => error.for_operator(),
            Self::Panicked => self.to_string(),
            Self::State(_) | Self::Blob(_) => "the site's disk failed; its log says how".into(),
        }
    }
}

impl Thread {
    fn run(mut self, inbox: &std_mpsc::Receiver<Order>) {
        while let Some(Order { task, cancel }) = next(inbox) {
            let watch = Watcher { task: task.id(), reports: &self.reports, cancel: &cancel };
            let result = match &self.by {
                None => perform(&self.site, &mut self.open, &task, &from_files, &watch),
                Some(by) => by(&self.site, &task, &watch),
            };
            if self.reports.send(Report::Done(task.id().clone(), result)).is_err() {
                return;
            }
        }
    }
}

/// Waits for something to do; after a while others may need the memory.
fn next(inbox: &std_mpsc::Receiver<Order>) -> Option<Order> {
    match inbox.recv_timeout(KEPT) {
        Err(RecvTimeoutError::Timeout) => {
            memory::release();
            inbox.recv().ok()
        }
        order => order.ok(),
    }
}

fn perform(
    site: &Site,
    open: &mut Open,
    task: &Task,
    opener: &Opener<'_>,
    watch: &dyn Watch,
) -> Result<Outcome, WorkFailure> {
    // libtorch reports some failures by panicking in the binding; such a task is declined like any other.
    let work = std::panic::AssertUnwindSafe(|| work(site, open, task, opener, watch));
    let result = std::panic::catch_unwind(work).unwrap_or(Err(Failure::Panicked));
    result.map_err(|failure| {
        if matches!(failure, Failure::Train(TrainError::Cancelled)) {
            return WorkFailure::Cancelled;
        }
        warn!(task = %task.id(), error = %failure, "task failed");
        *open = None;
        WorkFailure::Declined(failure.for_operator())
    })
}

fn work(
    site: &Site,
    open: &mut Open,
    task: &Task,
    opener: &Opener<'_>,
    watch: &dyn Watch,
) -> Result<Outcome, Failure> {
    let job = task.job();
    if let Task::Evaluate(task) = task
        && job.spec.is_survey()
    {
        watch.progress(Progress::new(Phase::Preparing, 0, 1));
        return finish(site, task, survey(job, &site.datasets)?);
    }
    let trainer = trainer(open, site, task, opener, watch)?;
    let global = read_params(&site.state.blobs, job.global)?;
    if job.spec.model.batch_norm == BatchNorm::Local {
        let id = task.id();
        trainer.set_local(&site.state.local(&id.run, job, id.completed())?)?;
    }
    match task {
        Task::Evaluate(task) => finish(site, task, trainer.evaluate(&global, watch)?),
        Task::Train(task) => train(trainer, site, task, global, watch),
    }
}

/// The trainer for a task: the one in hand if it fits, else a new one.
fn trainer<'a>(
    open: &'a mut Open,
    site: &Site,
    task: &Task,
    opener: &Opener<'_>,
    watch: &dyn Watch,
) -> Result<&'a mut dyn Trainer, Failure> {
    let key = Key::of(task);
    if !matches!(open, Some((open_for, _)) if *open_for == key) {
        // The old one's memory goes before the new one's comes.
        *open = None;
        watch.progress(Progress::new(Phase::Preparing, 0, 1));
        verification::check_plan(&site.state.blobs, task, &site.policy)?;
        let model_dir = site.state.model_dir(task.job())?;
        *open = Some((key, opener(site, task, model_dir.as_deref())?));
    }
    match open {
        Some((_, trainer)) => Ok(&mut **trainer),
        None => Err(Failure::Panicked),
    }
}

/// Counts that are summed securely are kept like an update, one without a delta.
fn finish(site: &Site, task: &EvaluateTask, counts: Option<Counts>) -> Result<Outcome, Failure> {
    let [metrics] = site.sendable(&task.id, &task.job, [counts]);
    let spec = &task.job.spec;
    // What is measured at one site alone is in no sum.
    if spec.secure_aggregation == SecureAggregation::Off || spec.validation.leaves_out(site.name.as_str()) {
        return Ok(Outcome::Evaluated(metrics));
    }
    let update = Update {
        task: task.id.clone(),
        delta: site.state.deltas.insert(&[])?,
        num_examples: 0,
        train_loss: 0.0,
        global_metrics: metrics,
        local_metrics: None,
    };
    keep(site, &task.job, update)
}

fn train(
    trainer: &mut dyn Trainer,
    site: &Site,
    task: &TrainTask,
    global: Vec<f32>,
    watch: &dyn Watch,
) -> Result<Outcome, Failure> {
    let round = Round { number: task.id.round, of: task.job.spec.rounds };
    let due = task.job.spec.validation.is_due(task.id.round);
    let global_metrics = if due { trainer.evaluate(&global, watch)? } else { None };
    let trained = trainer.train(global, round, watch)?;
    let local_metrics = if due { trainer.evaluate(&trained.params, watch)? } else { None };
    let [global_metrics, local_metrics] = site.sendable(&task.id, &task.job, [global_metrics, local_metrics]);
    let delta = departure::store(site, task, trained.params)?;
    let update = Update {
        task: task.id.clone(),
        delta,
        num_examples: trainer.num_examples(),
        train_loss: trained.train_loss,
        global_metrics,
        local_metrics,
    };
    if task.job.spec.model.batch_norm == BatchNorm::Local {
        site.state.keep_local(&task.id, &task.job, &trainer.local()?)?;
    }
    info!(task = %task.id, loss = trained.train_loss, examples = update.num_examples, "trained");
    keep(site, &task.job, update)
}

fn keep(site: &Site, job: &Job, update: Update) -> Result<Outcome, Failure> {
    let finished = Finished { origin: job.origin(), update };
    site.state.keep(&finished)?;
    Ok(Outcome::Trained(Box::new(finished.update)))
}

fn read_params(blobs: &BlobDir, blob: BlobId) -> Result<Vec<f32>, Failure> {
    let length = usize::try_from(blobs.length(blob).unwrap_or(0) / 4).unwrap_or(0);
    let mut values = Vec::with_capacity(length);
    blobs.each_chunk(blob, |bytes| {
        values.extend(from_bytes(bytes));
        Ok(())
    })?;
    Ok(values)
}

struct Watcher<'a> {
    task: &'a TaskId,
    reports: &'a mpsc::UnboundedSender<Report>,
    cancel: &'a AtomicBool,
}

impl Watch for Watcher<'_> {
    fn progress(&self, progress: Progress) {
        // A daemon that is stopping no longer listens.
        let _ = self.reports.send(Report::Progress(self.task.clone(), progress));
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }
}
