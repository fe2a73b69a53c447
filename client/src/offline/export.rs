//! A model that was trained here, as a folder: whole, or not there at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor};
use std::path::{Path, PathBuf};

use sheaf_common::blob::BlobId;
use sheaf_common::id::RunId;
use sheaf_common::message::ExportPlan;
use sheaf_common::model::{
    CARD_FILE, CONFIG_FILE, ExportError, WEIGHTS_FILE, WeightsPlan, export_config, export_weights,
};
use sheaf_common::params::to_bytes;
use sheaf_common::status::{RunState, RunStatus, RunSummary};
use sheaf_common::time::Timestamp;
use sheaf_transport::durable;

use super::run::LocalRun;

/// The model was not written, and nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum ExportFailed {
    /// Something is where the model should go.
    #[error("{folder} is already there: choose another folder with --out", folder = .0.display())]
    AlreadyThere(PathBuf),
    /// The disk.
    #[error("cannot write the model to {folder}: {reason}", folder = .folder.display())]
    Write {
        /// The folder.
        folder: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// The parts do not fit.
    #[error(transparent)]
    Parts(#[from] ExportError),
}

/// Fails where nothing could be exported to, before any work is done.
pub(super) fn check_free(out: &Path) -> Result<(), ExportFailed> {
    match fs::symlink_metadata(out) {
        Ok(_) => Err(ExportFailed::AlreadyThere(out.to_owned())),
        Err(_) => Ok(()),
    }
}

/// Writes the model of `run` with `params` as the folder `out`, which must not be there.
pub(super) fn export(run: &LocalRun, params: &[f32], site: &str, out: &Path) -> Result<(), ExportFailed> {
    check_free(out)?;
    let plan = export_plan(run, params);
    let config_json = export_config(&plan, run.model.as_ref().map(|model| model.config_json.as_slice()))?;
    let base = run.model.as_ref();
    let weights =
        export_weights(&plan, base.map(|base| &base.config), base.map(|base| &base.weights.tensors))?;
    write(run, &config_json, &weights, params, site, out)
        .map_err(|reason| ExportFailed::Write { folder: out.to_owned(), reason })
}

fn write(
    run: &LocalRun,
    config_json: &[u8],
    weights: &WeightsPlan,
    params: &[f32],
    site: &str,
    out: &Path,
) -> io::Result<()> {
    let parent = durable::parent(out);
    fs::create_dir_all(parent)?;
    let workshop = tempfile::Builder::new().prefix(".sheaf-export.").tempdir_in(parent)?;
    let folder = workshop.path().join("model");
    fs::create_dir(&folder)?;
    if let Some(base) = run.model_dir() {
        copy_others(base, &folder)?;
    }
    fs::write(folder.join(CONFIG_FILE), config_json)?;
    fs::write(folder.join(CARD_FILE), card(run, site))?;
    let base = run.model.as_ref().map(|model| File::open(model.weights.path())).transpose()?;
    write_weights(&folder.join(WEIGHTS_FILE), weights, base, params)?;
    durable::publish(&folder, out)
}

/// What is neither written anew nor hidden: tokenizer and the like.
fn copy_others(base: &Path, folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        let name = entry.file_name();
        let own = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE].iter().any(|own| name == *own);
        if !own && !name.as_encoded_bytes().starts_with(b".") && entry.path().is_file() {
            fs::copy(entry.path(), folder.join(name))?;
        }
    }
    Ok(())
}

fn write_weights(path: &Path, plan: &WeightsPlan, mut base: Option<File>, params: &[f32]) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    let mut params = Cursor::new(to_bytes(params));
    plan.write(&mut out, base.as_mut().map(|base| base as _), &mut params)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// The run as if it had been completed at a server, for the shared description of an exported model.
fn export_plan(run: &LocalRun, params: &[f32]) -> ExportPlan {
    let spec = &run.job.spec;
    let global = BlobId::of(&to_bytes(params));
    let status = RunStatus {
        summary: RunSummary {
            run: RunId(spec.name.clone()),
            state: RunState::Completed,
            completed_rounds: spec.rounds,
            rounds: spec.rounds,
            submitted_by: spec.name.clone(),
            submitted_at: Timestamp::default(),
            detail: String::new(),
        },
        spec: spec.clone(),
        num_params: run.job.params.numel(),
        held: Vec::new(),
        current: None,
        earlier_records: 0,
        history: Vec::new(),
        final_metrics: None,
        test_metrics: None,
        best: None,
        result: spec.rounds,
        global,
    };
    let mut job = run.job.clone();
    job.global = global;
    ExportPlan { status, round: spec.rounds, job }
}

fn card(run: &LocalRun, site: &str) -> String {
    let spec = &run.job.spec;
    format!(
        "# {name}, trained at one site alone\n\n`sheaf-client train` made this model as `{site}` on the data set \
         `{dataset}`: {rounds} rounds of the run `{name}` with seed {seed}, without a server and without any other \
         site. It is a baseline to hold a federated model against.\n",
        name = spec.name,
        dataset = spec.task.dataset,
        rounds = spec.rounds,
        seed = spec.seed,
    )
}
