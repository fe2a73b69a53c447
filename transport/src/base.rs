//! The imported model of a run among blobs, as the server and every site read it by themselves, and what it adds to
//! the global parameters when more of it begins to be trained.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use sheaf_common::blob::BlobId;
use sheaf_common::message::Job;
use sheaf_common::model::{
    BadConfig, BadManifest, BadWeights, CONFIG_FILE, Initial, InitialError, Manifest, ModelConfig, PlanError,
    WEIGHTS_FILE, Weights, grown, initial, phases,
};
use sheaf_common::params::ParamSpec;
use sheaf_common::run::RunSpec;

use crate::blobs::{BlobDir, BlobError, BlobWriter, CHUNK};

/// An imported model's configuration and where its tensors lie.
#[derive(Debug)]
pub struct BaseModel {
    /// Its configuration.
    pub config: ModelConfig,
    /// Its tensors.
    pub weights: Weights,
    /// The file that holds them.
    pub weights_blob: BlobId,
}

/// An imported model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadBase {
    /// Its list of files.
    #[error(transparent)]
    Manifest(#[from] BadManifest),
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] BadConfig),
    /// Its weights.
    #[error(transparent)]
    Weights(#[from] BadWeights),
    /// It lacks a file.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// The run does not fit it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// What the run trains has no values to begin with.
    #[error(transparent)]
    Initial(#[from] InitialError),
    /// A blob cannot be found, read or written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A blob cannot be read to its end, or copied.
    #[error("its weights cannot be read or copied: {0}")]
    Read(#[from] io::Error),
}

impl BaseModel {
    /// The model of this manifest; all its files are in `blobs`.
    pub fn open(blobs: &BlobDir, manifest: BlobId) -> Result<Self, BadBase> {
        let manifest = Manifest::parse(&blobs.read(manifest)?)?;
        let file = |path| Ok::<_, BadBase>(manifest.file(path).ok_or(BadBase::Missing(path))?.blob);
        let config = ModelConfig::parse(&blobs.read(file(CONFIG_FILE)?)?)?;
        let weights_blob = file(WEIGHTS_FILE)?;
        let weights = read_header(blobs.reader(weights_blob)?, blobs.length(weights_blob).unwrap_or(0))?;
        Ok(Self { config, weights, weights_blob })
    }
}

fn read_header(mut file: File, length: u64) -> Result<Weights, BadBase> {
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(8).read_to_end(&mut start)?;
    let header = Weights::header_bytes(&start)?;
    file.take(header.saturating_sub(8)).read_to_end(&mut start)?;
    Ok(Weights::parse(&start, length)?)
}

/// Makes the parameters that a run trains, as they are before round 1, durable in `blobs`. Blocks.
pub fn store_initial(
    blobs: &BlobDir,
    spec: &RunSpec,
    model: Option<&BaseModel>,
    params: &ParamSpec,
) -> Result<BlobId, BadBase> {
    let mut writer = blobs.writer()?;
    write_initial(blobs, spec, model, params, &mut writer)?;
    Ok(writer.finish()?)
}

/// The same without storing them: every site knows by itself what a run starts from. Blocks.
pub fn initial_id(
    blobs: &BlobDir,
    spec: &RunSpec,
    model: Option<&BaseModel>,
    params: &ParamSpec,
) -> Result<BlobId, BadBase> {
    let mut hasher = blake3::Hasher::new();
    write_initial(blobs, spec, model, params, &mut hasher)?;
    Ok(hasher.finalize().into())
}

fn write_initial(
    blobs: &BlobDir,
    spec: &RunSpec,
    model: Option<&BaseModel>,
    params: &ParamSpec,
    out: &mut dyn Write,
) -> Result<(), BadBase> {
    let sources = initial(spec, model.map(|m| &m.config), model.map(|m| &m.weights), params)?;
    let mut weights = model.map(|model| blobs.reader(model.weights_blob)).transpose()?;
    let mut out = BufWriter::with_capacity(CHUNK, out);
    for (tensor, source) in params.tensors.iter().zip(sources) {
        match source {
            Initial::FromWeights { offset, bytes } => {
                let file = weights.as_mut().ok_or(BadBase::Missing(WEIGHTS_FILE))?;
                file.seek(SeekFrom::Start(offset))?;
                if io::copy(&mut file.take(bytes), &mut out)? < bytes {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
            Initial::Fresh(distribution) => {
                for (value, _) in distribution.values(spec.seed, &tensor.name).zip(0..tensor.numel()) {
                    out.write_all(&value.to_le_bytes())?;
                }
            }
        }
    }
    Ok(out.flush()?)
}

/// Makes `moved`, the global parameters of `job` as round `round` has moved them, durable in `blobs`, in the form in
/// which the next round takes them: what that round begins to train comes from the imported model. Blocks.
///
/// The server makes them so, and so does every site that checks it.
pub fn finish_round(moved: BlobWriter, blobs: &BlobDir, job: &Job, round: u32) -> Result<BlobId, BadBase> {
    let grows = job.spec.model.unfreeze.contains_key(&round.saturating_add(1));
    let Some(model) = job.model.filter(|_| grows) else { return Ok(moved.finish()?) };
    let base = BaseModel::open(blobs, model)?;
    let phases = phases(&job.spec, Some(&base.config))?;
    let plan = grown(phases.after(round.saturating_sub(1)), phases.after(round), &base.weights)?;
    let mut next = blobs.writer()?;
    let mut weights = blobs.reader(base.weights_blob)?;
    plan.write(&mut next, Some(&mut weights), &mut moved.written()?)?;
    Ok(next.finish()?)
}
