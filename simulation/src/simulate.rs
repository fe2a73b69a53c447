//! A simulation from its file to its results, in a folder that it can be taken up again from.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sheaf_common::blob::BlobId;
use sheaf_common::message::Job;
use sheaf_transport::durable::Outlive;

use crate::base::{Base, BaseError};
use crate::baselines::{self, BaselineError, Baselines};
use crate::config::{Setting, SettingError};
use crate::data::{DataError, Examples};
use crate::federation::{End, Federation, FederationError};
use crate::hub::{Hub, HubError};
use crate::identity::{Identities, IdentityError};
use crate::output::{self, OutputError, Report};
use crate::rounds::Row;

/// The folder of what is needed only until the simulation is over.
const STATE: &str = "state";

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
    /// What it is compared with.
    #[error(transparent)]
    Baseline(#[from] BaselineError),
    /// What is written of it.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Another program is at it.
    #[error("{0} is in use by another sheaf-sim")]
    InUse(PathBuf),
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
    let state = out.join(STATE);
    fs::create_dir_all(&state).map_err(|e| io_error("make", &state, e))?;
    let lock = File::create(out.join("lock")).map_err(|e| io_error("make the lock in", out, e))?;
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
    output::write_partition(out, setting, &examples)?;
    let mut federation = Federation::open(setting, of, state.clone(), (hub, run), (identities, examples))?;
    let rounds = setting.spec.rounds;
    let interrupted = {
        let audience = std::cell::RefCell::new(&mut *audience);
        federation
            .run(&|| audience.borrow().interrupts(), &mut |row| audience.borrow_mut().round(row, rounds))?
    };
    output::write_rounds(out, federation.rows())?;
    let Some(end) = interrupted else { return Ok(None) };
    let baselines = compare(setting, &job, &mut federation, audience)?;
    let report = finish(setting, out, of, &federation, end, baselines)?;
    drop(federation);
    fs::remove_dir_all(&state).map_err(|e| io_error("remove", &state, e))?;
    Ok(Some(report))
}

fn compare(
    setting: &Setting,
    job: &Job,
    federation: &mut Federation,
    audience: &mut dyn Audience,
) -> Result<Baselines, SimulateError> {
    if setting.simulation.baselines.is_empty() {
        return Ok(Baselines::default());
    }
    audience.begins("the baselines");
    let initial = federation.initial()?;
    Ok(baselines::run(setting, job, &initial, federation.workshop())?)
}

fn finish(
    setting: &Setting,
    out: &Path,
    of: BlobId,
    federation: &Federation,
    end: End,
    baselines: Baselines,
) -> Result<Report, SimulateError> {
    output::write_model(out, federation, &end)?;
    let report = Report::new(setting, of, federation.rows(), &end, baselines);
    output::write_report(out, &report)?;
    Ok(report)
}

/// What tells a simulation from every other: its files' meaning, its model and its data, but not what changes no result.
fn fingerprint(setting: &Setting, model: Option<BlobId>, examples: &Examples) -> BlobId {
    let mut simulation = setting.simulation.clone();
    simulation.workers = None;
    simulation.baselines.clear();
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{simulation:?}").as_bytes()).update(b"\0").update(setting.run_text.as_bytes());
    hasher.update(format!("{model:?}").as_bytes());
    examples.tell_apart(&mut hasher);
    BlobId::from(hasher.finalize())
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> SimulateError {
    SimulateError::Io { what, path: path.to_owned(), source }
}
