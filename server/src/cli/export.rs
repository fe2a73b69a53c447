//! `sheaf model export`: a trained model as a folder, put together from blobs on this machine.

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sheaf_common::blob::BlobId;
use sheaf_common::id::RunId;
use sheaf_common::message::{ExportPlan, Reply, Request};
use sheaf_common::model::manifest::MANIFEST_MAX;
use sheaf_common::model::{
    self, BadManifest, CARD_FILE, CONFIG_FILE, ExportError, Manifest, ModelConfig, WEIGHTS_FILE, Weights,
    WeightsPlan,
};
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::durable;
use sheaf_transport::transfer;

use super::CliError;
use super::folder::{FolderError, read_config, read_weights};
use super::screen::transfer_bar;
use super::session::{Session, SessionError};
use super::settings::Settings;
use super::units::bytes;

/// The model was not put together, and nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum ExportFailed {
    /// Something is where the model should go.
    #[error("{0} is already there: choose another folder with --out")]
    AlreadyThere(PathBuf),
    /// The path names no folder.
    #[error("{0} cannot be a folder's name")]
    NoName(PathBuf),
    /// Our disk.
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
    /// The parts do not fit.
    #[error(transparent)]
    Parts(#[from] ExportError),
    /// The base model's list of files.
    #[error("the base model cannot be used: {0}")]
    Manifest(#[from] BadManifest),
    /// The base model's files.
    #[error("the base model cannot be used: {0}")]
    Base(#[from] FolderError),
    /// The base model lacks a file.
    #[error("the base model has no {0}")]
    Missing(&'static str),
    /// Blobs on our disk.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// A model that was written.
pub(super) struct Exported {
    dir: PathBuf,
    run: RunId,
    round: u32,
    bytes: u64,
}

impl Exported {
    pub(super) fn text(&self) -> String {
        let Self { dir, run, round, .. } = self;
        format!("wrote the model of {run} after round {round} to {} ({})", dir.display(), bytes(self.bytes))
    }

    pub(super) fn json(&self) -> Value {
        json!({ "run": self.run, "round": self.round, "dir": self.dir, "bytes": self.bytes })
    }
}

/// Writes the model of `run` after `round` as the folder `out`, which must not be there.
///
/// Everything is put together in a folder beside it and then renamed, so that `out` is whole or not there.
pub(super) async fn export(
    run: RunId,
    round: Option<u32>,
    adapter: bool,
    out: &Path,
    settings: &Settings,
) -> Result<Exported, CliError> {
    let workshop = workshop(out)?;
    let mut session = Session::open(settings).await?;
    let expect = |reply| {
        if let Reply::Export(plan) = reply { Some(plan) } else { None }
    };
    let plan = session.ask(&Request::Export { run, round }, expect).await?;

    let blobs = BlobDir::open(workshop.path().join("blobs")).map_err(ExportFailed::from)?;
    let manifest = match plan.job.model {
        Some(id) => Some(fetch_base(&session, &blobs, id).await?),
        None => None,
    };
    let global = plan.job.global;
    fetch(&session, &blobs, global, plan.job.params.bytes(), "trained parameters").await?;
    session.close().await;

    let folder = workshop.path().join("model");
    let bytes = if adapter {
        assemble_adapter(&plan, &blobs, manifest.as_ref(), &folder)?
    } else {
        assemble(&plan, &blobs, manifest.as_ref(), &folder)?
    };
    durable::publish(&folder, out).map_err(|e| ExportFailed::Write(out.to_owned(), e))?;
    Ok(Exported { dir: out.to_owned(), run: plan.status.summary.run.clone(), round: plan.round, bytes })
}

/// A folder beside `out` that is gone when it is dropped.
fn workshop(out: &Path) -> Result<tempfile::TempDir, ExportFailed> {
    if fs::symlink_metadata(out).is_ok() {
        return Err(ExportFailed::AlreadyThere(out.to_owned()));
    }
    let name = out.file_name().ok_or_else(|| ExportFailed::NoName(out.to_owned()))?;
    let parent = durable::parent(out);
    let failed = |e| ExportFailed::Write(parent.to_owned(), e);
    fs::create_dir_all(parent).map_err(failed)?;
    let prefix = format!(".{}.", name.to_string_lossy());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).map_err(failed)
}

/// Fetches the imported model's list of files, and all of them that an export needs.
async fn fetch_base(session: &Session, blobs: &BlobDir, id: BlobId) -> Result<Manifest, CliError> {
    fetch(session, blobs, id, MANIFEST_MAX, "manifest").await?;
    let json = blobs.read(id).map_err(ExportFailed::from)?;
    let manifest = Manifest::parse(&json).map_err(ExportFailed::from)?;
    for file in manifest.files.iter().filter(|file| file.path != CARD_FILE) {
        fetch(session, blobs, file.blob, file.bytes, &file.path).await?;
    }
    Ok(manifest)
}

async fn fetch(
    session: &Session,
    blobs: &BlobDir,
    blob: BlobId,
    max: u64,
    name: &str,
) -> Result<(), SessionError> {
    let bar = transfer_bar(name);
    let moved = transfer::fetch(session.connection(), blobs, blob, max, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    moved?;
    Ok(())
}

/// The imported model, as far as an export needs it.
struct Base {
    config_json: Vec<u8>,
    config: ModelConfig,
    weights: Weights,
    weights_path: PathBuf,
}

impl Base {
    fn open(manifest: &Manifest, blobs: &BlobDir) -> Result<Self, ExportFailed> {
        let path = |name| {
            let file = manifest.file(name).ok_or(ExportFailed::Missing(name))?;
            Ok::<_, ExportFailed>(blobs.path(file.blob))
        };
        let (config_json, config) = read_config(&path(CONFIG_FILE)?)?;
        let weights_path = path(WEIGHTS_FILE)?;
        let weights = read_weights(&weights_path)?;
        Ok(Self { config_json, config, weights, weights_path })
    }
}

/// Writes the adapters alone into `folder`; returns their bytes.
fn assemble_adapter(
    plan: &ExportPlan,
    blobs: &BlobDir,
    manifest: Option<&Manifest>,
    folder: &Path,
) -> Result<u64, ExportFailed> {
    let failed = |path: &Path, e| ExportFailed::Write(path.to_owned(), e);
    let base = manifest.map(|manifest| Base::open(manifest, blobs)).transpose()?;
    let (config, weights) = model::export_adapter(plan, base.as_ref().map(|base| &base.config))?;
    fs::create_dir(folder).map_err(|e| failed(folder, e))?;
    let path = folder.join("adapter_config.json");
    fs::write(&path, &config).map_err(|e| failed(&path, e))?;
    let path = folder.join("adapter_model.safetensors");
    let written = write_weights(&path, &weights, None, blobs.reader(plan.job.global)?);
    Ok(config.len() as u64 + written.map_err(|e| failed(&path, e))?)
}

/// Writes all files of the model into `folder`; returns their bytes.
fn assemble(
    plan: &ExportPlan,
    blobs: &BlobDir,
    manifest: Option<&Manifest>,
    folder: &Path,
) -> Result<u64, ExportFailed> {
    let failed = |path: &Path, e| ExportFailed::Write(path.to_owned(), e);
    fs::create_dir(folder).map_err(|e| failed(folder, e))?;
    let base = manifest.map(|manifest| Base::open(manifest, blobs)).transpose()?;
    let mut total = 0;

    let own = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE];
    for file in
        manifest.iter().flat_map(|manifest| &manifest.files).filter(|file| !own.contains(&file.path.as_str()))
    {
        let path = folder.join(&file.path);
        total += fs::copy(blobs.path(file.blob), &path).map_err(|e| failed(&path, e))?;
    }
    let (config, weights) = (base.as_ref().map(|base| &base.config), base.as_ref().map(|base| &base.weights));
    let json = model::export_config(plan, base.as_ref().map(|base| base.config_json.as_slice()))?;
    for (name, content) in [(CONFIG_FILE, json), (CARD_FILE, model::card(plan, config).into_bytes())] {
        let path = folder.join(name);
        fs::write(&path, &content).map_err(|e| failed(&path, e))?;
        total += content.len() as u64;
    }
    let pieces = model::export_weights(plan, config, weights)?;
    let global = blobs.reader(plan.job.global)?;
    let path = folder.join(WEIGHTS_FILE);
    let written =
        write_weights(&path, &pieces, base.as_ref().map(|base| base.weights_path.as_path()), global);
    Ok(total + written.map_err(|e| failed(&path, e))?)
}

/// Writes `model.safetensors` piece by piece, so that its size does not matter.
fn write_weights(path: &Path, plan: &WeightsPlan, base: Option<&Path>, mut global: File) -> io::Result<u64> {
    let mut base = base.map(File::open).transpose()?;
    let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    let total = plan.write(&mut out, base.as_mut().map(|base| base as _), &mut global)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(total)
}
