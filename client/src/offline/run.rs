//! `run.toml` and a model folder as a job: what the server makes of them for its sites, made here.

use std::fs::{self, File};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use sheaf_common::blob::BlobId;
use sheaf_common::config::ConfigError;
use sheaf_common::message::Job;
use sheaf_common::model::{Initial, InitialError, grown, initial, phases};
use sheaf_common::params::{Phases, from_bytes, to_bytes};
use sheaf_common::run::{BatchNorm, ModelSource, RunSpec};
use sheaf_common::time::Timestamp;

use super::folder::{FolderError, ModelFolder};

/// The run cannot be done here.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// `run.toml` cannot be read.
    #[error("the run's file {path} cannot be read: {reason}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// `run.toml` is wrong, or does not fit its model.
    #[error(transparent)]
    Invalid(#[from] ConfigError),
    /// The model's folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The model lacks something that the run needs.
    #[error(transparent)]
    Initial(#[from] InitialError),
    /// The run starts from a model that was not given.
    #[error(
        "the run starts from the imported model `{0}`: name the folder that it was imported from with --model"
    )]
    ModelNeeded(String),
    /// The run has no use for the model that was given.
    #[error("the run's model starts from its seed: leave out --model")]
    NoModelNeeded,
}

/// A run that is done on this machine alone.
#[derive(Debug)]
pub(super) struct LocalRun {
    pub(super) job: Job,
    /// What is trained in which round; the job's parameters are those of one of its phases.
    phases: Phases,
    pub(super) model: Option<ModelFolder>,
}

impl LocalRun {
    /// Reads `run.toml` and the folder of the model that it starts from, if it starts from one.
    pub(super) fn read(run: &Path, model: Option<&Path>) -> Result<Self, RunError> {
        let (text, spec) = read_spec(run)?;
        Self::of(run, &text, spec, model)
    }

    fn of(run: &Path, text: &str, mut spec: RunSpec, model: Option<&Path>) -> Result<Self, RunError> {
        if spec.model.batch_norm == BatchNorm::Local {
            // Where there is one site, what stays there and what is averaged are the same, and go into its model.
            spec.model.batch_norm = BatchNorm::Averaged;
        }
        let model = match (&spec.model.source, model) {
            (ModelSource::Imported(_), Some(folder)) => Some(ModelFolder::open(folder)?),
            (ModelSource::Imported(name), None) => return Err(RunError::ModelNeeded(name.clone())),
            (ModelSource::Fresh(_), None) => None,
            (ModelSource::Fresh(_), Some(_)) => return Err(RunError::NoModelNeeded),
        };
        let phases = phases(&spec, model.as_ref().map(|model| &model.config))
            .map_err(|error| ConfigError::locate(&run.display().to_string(), text, &error.invalid()))?;
        let params = phases.after(0).clone();
        // Neither the manifest nor the global parameters are blobs here; both names are only the protocol's.
        Ok(Self {
            job: Job {
                spec,
                model: None,
                params,
                global: BlobId::of(&[]),
                submitted_at: Timestamp(0),
                author: None,
            },
            phases,
            model,
        })
    }

    /// Reads `run.toml` and, if it starts from an imported model, one of its trained forms in the place of that.
    pub(super) fn read_trained(run: &Path, trained: &Path) -> Result<Self, RunError> {
        let (text, mut spec) = read_spec(run)?;
        // A trained model has its adapters merged: what they adapt is its own.
        spec.model.lora = None;
        let is_imported = matches!(spec.model.source, ModelSource::Imported(_));
        let mut trained = Self::of(run, &text, spec, is_imported.then_some(trained))?;
        trained.job.params = trained.phases.after(trained.job.spec.rounds).clone();
        Ok(trained)
    }

    /// Goes on to what is trained once `completed` rounds are over, with `params` as they left them, and says whether
    /// that is more than before.
    pub(super) fn go_on(&mut self, completed: u32, params: &mut Vec<f32>) -> Result<bool, RunError> {
        let next = self.phases.after(completed);
        let Some(model) = self.model.as_ref().filter(|_| *next != self.job.params) else { return Ok(false) };
        let plan = grown(&self.job.params, next, &model.weights.tensors).map_err(InitialError::from)?;
        let path = model.weights.path();
        let unreadable = |reason| FolderError::Unreadable { path: path.clone(), reason };
        let mut base = File::open(&path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        plan.write(&mut bytes, Some(&mut base), &mut Cursor::new(to_bytes(params))).map_err(unreadable)?;
        *params = from_bytes(&bytes);
        self.job.params = next.clone();
        Ok(true)
    }

    /// Where the model that the run starts from lies.
    pub(super) fn model_dir(&self) -> Option<&Path> {
        self.model.as_ref().map(|model| model.weights.folder.as_path())
    }

    /// The parameters before the first round, the same as the server's.
    pub(super) fn initial_params(&self) -> Result<Vec<f32>, RunError> {
        let Job { spec, params, .. } = &self.job;
        let config = self.model.as_ref().map(|model| &model.config);
        let weights = self.model.as_ref().map(|model| &model.weights);
        let sources = initial(spec, config, weights.map(|weights| &weights.tensors), params)?;
        let mut values = Vec::new();
        for (tensor, source) in params.tensors.iter().zip(sources) {
            match (source, weights) {
                (Initial::FromWeights { offset, bytes }, Some(weights)) => {
                    values.extend(weights.values(offset, bytes)?)
                }
                (Initial::FromWeights { .. }, None) => {
                    return Err(RunError::ModelNeeded(tensor.name.clone()));
                }
                (Initial::Fresh(distribution), _) => {
                    values.extend(distribution.values(spec.seed, &tensor.name).take(tensor.numel() as usize));
                }
            }
        }
        Ok(values)
    }
}

fn read_spec(run: &Path) -> Result<(String, RunSpec), RunError> {
    let text =
        fs::read_to_string(run).map_err(|reason| RunError::Unreadable { path: run.to_owned(), reason })?;
    let spec = RunSpec::parse(&run.display().to_string(), &text)?;
    Ok((text, spec))
}
