//! A simulation from its file to its results, in a folder that it can be taken up again from.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheaf_common::blob::BlobId;
use sheaf_common::message::ExportPlan;
use sheaf_server::core::Coordinator;
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::durable::Outlive;

use crate::base::{Base, BaseError};
use crate::baselines::{self, Baselines};
use crate::config::{Setting, SettingError, Simulation, Transport};
use crate::data::{DataError, Examples};
use crate::federation::{End, Federation, FederationError, Workshop};
use crate::folder::{Folder, FolderError};
use crate::hub::{Hub, HubError};
use crate::identity::{Identities, IdentityError};
use crate::output::{self, OutputError, Report};
use crate::pool::Pool;
use crate::quic::{Live, Over, QuicError};
use crate::rounds::Row;
use crate::scoring::Scorer;

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
    /// Where it is to be.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The system has no thread left.
    #[error("cannot start a thread: {0}")]
    Threads(io::Error),
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
    let folder = Folder::open(out)?;
    let prepared = match Prepared::new(setting, &folder) {
        Ok(prepared) => prepared,
        Err(error) => {
            folder.leave();
            return Err(error);
        }
    };
    let report = match prepared.done {
        Some(_) => prepared.done,
        None => prepared.play(setting, &folder, audience)?,
    };
    if report.is_some() {
        folder.finish()?;
    }
    Ok(report)
}

/// Server, run, certificates and examples of a simulation that is understood, before anything happens.
struct Prepared {
    /// What tells it from every other.
    of: BlobId,
    base: Option<Arc<Base>>,
    hub: Hub,
    run: Coordinator,
    identities: Identities,
    examples: Examples,
    /// What came of it before.
    done: Option<Report>,
}

/// What there is when all rounds are over.
struct Played {
    rows: Vec<Row>,
    end: End,
    plan: ExportPlan,
    blobs: BlobDir,
    baselines: Baselines,
}

impl Prepared {
    fn new(setting: &Setting, folder: &Folder<'_>) -> Result<Self, SimulateError> {
        let state = folder.state();
        let identities = Identities::open(&state.join("pki"), setting.simulation.seed)?;
        let hub = Hub::new(Outlive::Program, state, identities.server())?;
        let base = Base::import(setting, &hub.blobs, state)?.map(Arc::new);
        let file = setting.simulation.run.display().to_string();
        let run = hub.submit(&file, &setting.run_text, base.as_ref().map(|base| base.info()))?;
        let examples = Examples::load(setting, &run.job(), base.clone())?;
        let of = fingerprint(setting, run.job().model, &examples)?;
        let done = output::finished(folder.out(), of)?;
        if done.is_none() {
            folder.claim(of)?;
        }
        Ok(Self { of, base, hub, run, identities, examples, done })
    }

    fn play(
        self,
        setting: &Setting,
        folder: &Folder<'_>,
        audience: &mut dyn Audience,
    ) -> Result<Option<Report>, SimulateError> {
        let (of, base, out) = (self.of, self.base.clone(), folder.out());
        output::write_partition(out, setting, &self.examples)?;
        let played = match setting.simulation.transport {
            Transport::Memory => self.in_memory(setting, folder, audience)?,
            Transport::Quic => self.over_quic(setting, folder, audience)?,
        };
        let Some(Played { rows, end, plan, blobs, baselines }) = played else { return Ok(None) };
        output::write_model(out, &plan, base.as_deref(), &blobs)?;
        let report = Report::new(setting, of, &rows, &end, baselines);
        output::write_report(out, &report)?;
        Ok(Some(report))
    }

    fn in_memory(
        self,
        setting: &Setting,
        folder: &Folder<'_>,
        audience: &mut dyn Audience,
    ) -> Result<Option<Played>, SimulateError> {
        let job = self.run.job();
        let Self { hub, run, identities, examples, .. } = self;
        let dir = folder.state().to_owned();
        let mut federation = Federation::open(setting, dir, (hub, run), (identities, examples))?;
        let end = {
            let audience = RefCell::new(&mut *audience);
            let mut each = |row: &Row| audience.borrow_mut().round(row, setting.spec.rounds);
            federation.run(&|| audience.borrow().interrupts(), &mut each)
        };
        // However it ended, and that comes first.
        let written = output::write_rounds(folder.out(), federation.rows());
        let (Some(end), ()) = (end?, written?) else { return Ok(None) };
        let initial = federation.initial()?;
        let (rows, blobs) = (federation.rows().to_vec(), federation.blobs().clone());
        let baselines = baselines::run(setting, &job, initial, &rows, federation.workshop(), audience)?;
        let Some(baselines) = baselines else { return Ok(None) };
        let plan = output::export_plan(&federation, &end);
        Ok(Some(Played { rows, end, plan, blobs, baselines }))
    }

    fn over_quic(
        self,
        setting: &Setting,
        folder: &Folder<'_>,
        audience: &mut dyn Audience,
    ) -> Result<Option<Played>, SimulateError> {
        let Self { hub, run, identities, examples, .. } = self;
        let examples = Arc::new(examples);
        let mut scorer = Scorer::new(examples.clone(), setting.simulation.device);
        let live = Live {
            setting,
            dir: folder.state(),
            blobs: &hub.blobs,
            run: &run,
            identities: &identities,
            examples: &examples,
        };
        let over = {
            let audience = RefCell::new(&mut *audience);
            let mut each = |row: &Row| audience.borrow_mut().round(row, setting.spec.rounds);
            live.play(scorer.as_mut(), &|| audience.borrow().interrupts(), &mut each)
        };
        let written = live.rows().map(|rows| output::write_rounds(folder.out(), &rows));
        let (Some(Over { rows, end, plan, blobs }), ()) = (over?, written??) else { return Ok(None) };
        let mut train = Pool::start(setting.simulation.num_workers()).map_err(SimulateError::Threads)?;
        let initial = hub.blobs.read(run.run().initial).map_err(HubError::from)?;
        let workshop = Workshop { examples, scorer: scorer.as_mut(), train: &mut train };
        let baselines = baselines::run(setting, &run.job(), initial, &rows, workshop, audience)?;
        let Some(baselines) = baselines else { return Ok(None) };
        Ok(Some(Played { rows, end, plan, blobs, baselines }))
    }
}

/// What tells a simulation from every other: its files' meaning, its model and its data, but neither where these are nor what
/// changes no result.
fn fingerprint(setting: &Setting, model: Option<BlobId>, examples: &Examples) -> Result<BlobId, DataError> {
    let written = setting.simulation.clone();
    let simulation = Simulation { run: PathBuf::new(), model: None, workers: None, data: None, ..written };
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{simulation:?}").as_bytes()).update(b"\0").update(setting.run_text.as_bytes());
    hasher.update(format!("{model:?}").as_bytes());
    examples.tell_apart(&mut hasher)?;
    Ok(BlobId::from(hasher.finalize()))
}
