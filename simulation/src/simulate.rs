//! A simulation from its file to its results, in a folder that it can be taken up again from.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheaf_common::blob::BlobId;
use sheaf_common::message::{ExportPlan, Job};
use sheaf_server::core::Coordinator;
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::durable::Outlive;

use crate::base::{Base, BaseError};
use crate::baselines::{self, Baselines};
use crate::config::{Setting, SettingError, Transport};
use crate::data::{DataError, Examples};
use crate::federation::{End, Federation, FederationError, Workshop};
use crate::hub::{Hub, HubError};
use crate::identity::{Identities, IdentityError};
use crate::output::{self, OutputError, Report};
use crate::pool::Pool;
use crate::quic::{Live, Over, QuicError};
use crate::rounds::Row;
use crate::scoring::Scorer;

/// The folder of what is needed only until the simulation is over.
const STATE: &str = "state";

/// The file that says that a simulation is, or was, in a folder.
const LOCK: &str = "lock";

/// The simulation could not be done.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// Its file.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// The model that it starts from.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// Its data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The server's side.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// What happened.
    #[error(transparent)]
    Federation(#[from] FederationError),
    /// The same over QUIC.
    #[error(transparent)]
    Quic(#[from] QuicError),
    /// What is written of it.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Another program is at it.
    #[error("{0} is in use by another sheaf-sim")]
    InUse(PathBuf),
    /// Something is in the way.
    #[error(
        "{0} is not of a simulation, and would be replaced: choose another folder with --out, or move it away"
    )]
    Foreign(PathBuf),
    /// The disk said no.
    #[error("cannot {what} {path}: {source}", path = .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whoever waits for a simulation.
pub trait Audience {
    /// Whether to stop at the next opportunity; the same call goes on from there later.
    fn interrupts(&self) -> bool;

    /// A round is over.
    fn round(&mut self, row: &Row, rounds: u32);

    /// Something else begins that takes a while.
    fn begins(&mut self, what: &str);
}

/// Does the simulation of a setting in the folder `out`, or goes on with it; what came of it, unless it was interrupted.
pub fn simulate(
    setting: &Setting,
    out: &Path,
    audience: &mut dyn Audience,
) -> Result<Option<Report>, SimulateError> {
    check_own(out)?;
    let state = out.join(STATE);
    fs::create_dir_all(&state).map_err(|e| io_error("make", &state, e))?;
    let lock = File::create(out.join(LOCK)).map_err(|e| io_error("make the lock in", out, e))?;
    lock.try_lock().map_err(|_| SimulateError::InUse(out.to_owned()))?;
    let identities = Identities::open(&state.join("pki"), setting.simulation.seed)?;
    let hub = Hub::new(Outlive::Program, &state, identities.server())?;
    let base = Base::import(setting, &hub.blobs, &state)?.map(Arc::new);
    let file = setting.simulation.run.display().to_string();
    let run = hub.submit(&file, &setting.run_text, base.as_ref().map(|base| base.info()))?;
    let job = run.job();
    let examples = Examples::load(setting, &job, base.clone())?;
    let of = fingerprint(setting, job.model, &examples);
    if let Some(report) = output::finished(out, of)? {
        fs::remove_dir_all(&state).map_err(|e| io_error("remove", &state, e))?;
        return Ok(Some(report));
    }
    claim(out, &state, of)?;
    output::write_partition(out, setting, &examples)?;
    let begun = Begun { setting, out, state: &state, of };
    let parts = (hub, run, identities, examples);
    let played = match setting.simulation.transport {
        Transport::Memory => begun.in_memory(parts, audience)?,
        Transport::Quic => begun.over_quic(parts, audience)?,
    };
    let Some(Played { rows, end, plan, blobs, baselines }) = played else { return Ok(None) };
    output::write_model(out, &plan, base.as_deref(), &blobs)?;
    let report = Report::new(setting, of, &rows, &end, baselines);
    output::write_report(out, &report)?;
    fs::remove_dir_all(&state).map_err(|e| io_error("remove", &state, e))?;
    Ok(Some(report))
}

/// A folder of a state is removed in the end, and that of a model is replaced: neither is touched where no simulation was before.
fn check_own(out: &Path) -> Result<(), SimulateError> {
    if out.join(LOCK).exists() || out.join(output::REPORT).exists() {
        return Ok(());
    }
    let others = [STATE, output::MODEL].map(|name| out.join(name));
    match others.into_iter().find(|folder| folder.exists()) {
        Some(other) => Err(SimulateError::Foreign(other)),
        None => Ok(()),
    }
}

/// Notes what the state directory is of, so that no other simulation goes on from it.
fn claim(out: &Path, state: &Path, of: BlobId) -> Result<(), SimulateError> {
    let (path, own) = (state.join("of"), of.to_string());
    match fs::read_to_string(&path) {
        Ok(found) if found == own => Ok(()),
        Ok(_) => Err(OutputError::Another(out.to_owned()).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(output::write(&path, own.as_bytes())?),
        Err(error) => Err(io_error("read", &path, error)),
    }
}

/// Server, run, certificates and examples, before anything happens.
type Parts = (Hub, Coordinator, Identities, Examples);

/// A simulation that is understood.
struct Begun<'a> {
    setting: &'a Setting,
    out: &'a Path,
    state: &'a Path,
    of: BlobId,
}

/// What there is when all rounds are over.
struct Played {
    rows: Vec<Row>,
    end: End,
    plan: ExportPlan,
    blobs: BlobDir,
    baselines: Baselines,
}

impl Begun<'_> {
    fn in_memory(
        &self,
        (hub, run, identities, examples): Parts,
        audience: &mut dyn Audience,
    ) -> Result<Option<Played>, SimulateError> {
        let (setting, job) = (self.setting, run.job());
        let state = self.state.to_owned();
        let mut federation = Federation::open(setting, self.of, state, (hub, run), (identities, examples))?;
        let end = {
            let audience = RefCell::new(&mut *audience);
            let mut each = |row: &Row| audience.borrow_mut().round(row, setting.spec.rounds);
            federation.run(&|| audience.borrow().interrupts(), &mut each)?
        };
        output::write_rounds(self.out, federation.rows())?;
        let Some(end) = end else { return Ok(None) };
        let initial = federation.initial()?;
        let baselines = self.baselines(&job, initial, federation.workshop(), audience)?;
        let Some(baselines) = baselines else { return Ok(None) };
        let plan = output::export_plan(&federation, &end);
        let (rows, blobs) = (federation.rows().to_vec(), federation.blobs().clone());
        Ok(Some(Played { rows, end, plan, blobs, baselines }))
    }

    fn over_quic(
        &self,
        (hub, run, identities, examples): Parts,
        audience: &mut dyn Audience,
    ) -> Result<Option<Played>, SimulateError> {
        let (setting, job, examples) = (self.setting, run.job(), Arc::new(examples));
        let mut scorer = Scorer::new(examples.clone(), setting.simulation.device);
        let live = Live {
            setting,
            dir: self.state,
            blobs: &hub.blobs,
            run: &run,
            identities: &identities,
            examples: &examples,
        };
        let over = {
            let audience = RefCell::new(&mut *audience);
            let mut each = |row: &Row| audience.borrow_mut().round(row, setting.spec.rounds);
            live.play(scorer.as_mut(), &|| audience.borrow().interrupts(), &mut each)?
        };
        output::write_rounds(self.out, &live.rows())?;
        let Some(Over { rows, end, plan, blobs }) = over else { return Ok(None) };
        let workers = Pool::start(setting.simulation.num_workers());
        let mut train = workers.map_err(|e| io_error("start a thread for", self.state, e))?;
        let initial = hub.blobs.read(run.run().initial).map_err(HubError::from)?;
        let workshop = Workshop { examples, scorer: scorer.as_mut(), train: &mut train };
        let baselines = self.baselines(&job, initial, workshop, audience)?;
        let Some(baselines) = baselines else { return Ok(None) };
        Ok(Some(Played { rows, end, plan, blobs, baselines }))
    }

    fn baselines(
        &self,
        job: &Job,
        initial: Vec<u8>,
        workshop: Workshop<'_>,
        audience: &mut dyn Audience,
    ) -> Result<Option<Baselines>, SimulateError> {
        Ok(baselines::run(self.setting, job, initial, workshop, audience)?)
    }
}

/// What tells a simulation from every other: its files' meaning, its model and its data, but not what changes no result.
fn fingerprint(setting: &Setting, model: Option<BlobId>, examples: &Examples) -> BlobId {
    let mut simulation = setting.simulation.clone();
    simulation.workers = None;
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{simulation:?}").as_bytes()).update(b"\0").update(setting.run_text.as_bytes());
    hasher.update(format!("{model:?}").as_bytes());
    examples.tell_apart(&mut hasher);
    BlobId::from(hasher.finalize())
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> SimulateError {
    SimulateError::Io { what, path: path.to_owned(), source }
}
