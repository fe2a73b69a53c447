//! The imported model of a run among blobs, as the server and every site read it by themselves, and what it adds to
//! the global parameters when more of it begins to be trained.

use std::fs::File;
use std::io::{self, Read};

use sheaf_common::blob::BlobId;
use sheaf_common::message::Job;
use sheaf_common::model::{
    BadConfig, BadManifest, BadWeights, CONFIG_FILE, Manifest, ModelConfig, PlanError, WEIGHTS_FILE, Weights,
    grown, phases,
};

use crate::blobs::{BlobDir, BlobError, BlobWriter};

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
    /// A blob cannot be found, read or written.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A blob cannot be read to its end, or copied.
    #[error("its weights cannot be read: {0}")]
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
    file.by_ref().take(8).read_to_end(&mut start)?;
    let header = Weights::header_bytes(&start)?;
    file.take(header.saturating_sub(8)).read_to_end(&mut start)?;
    Ok(Weights::parse(&start, length)?)
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
