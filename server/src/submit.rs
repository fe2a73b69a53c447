//! From the text of `run.toml` to a run that can be queued: checked whole against the model, its initial
//! parameters written as a blob. Blocks, and holds only pieces of the model in memory.

use sheaf_common::author::Author;
use sheaf_common::blob::BlobId;
use sheaf_common::config::{ConfigError, Invalid};
use sheaf_common::model::{BadManifest, Manifest, ModelInfo, phases};
use sheaf_common::params::{ParamSpec, Phases};
use sheaf_common::run::{ModelSource, RunSpec};
use sheaf_common::wire::{self, FRAME_MAX};
use sheaf_transport::base::{BadBase, BaseModel, store_initial};
use sheaf_transport::blobs::{BlobDir, BlobError};

/// A run ready to be queued, but for its name.
#[derive(Debug)]
pub struct Prepared {
    /// What was asked for.
    pub spec: RunSpec,
    /// The operator's word for it.
    pub author: Author,
    /// Manifest of the imported model, if there is one.
    pub model: Option<BlobId>,
    /// The parameters that travel in which round.
    pub phases: Phases,
    /// Their values before round 1.
    pub initial: BlobId,
}

/// The run or the model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// `run.toml` is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operator's word is not for this.
    #[error(
        "the signature is not for this run: the model was imported anew meanwhile, or `sheaf` and `sheaf-server` are of different versions; submit it again"
    )]
    Unsigned,
    /// The model is not what it says.
    #[error("model {name}: {why}")]
    Model {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The disk said no.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// A run as an operator submits it.
#[derive(Debug)]
pub struct Submission {
    /// How the text becomes a run.
    pub parse: Parse,
    /// File name.
    pub file: String,
    /// Content.
    pub text: String,
    /// The operator's word for it.
    pub author: Author,
    /// The key that the word must be signed with.
    pub key: [u8; 32],
}

/// How the text of a file becomes a run: [`RunSpec::parse`], or [`RunSpec::parse_survey`].
pub type Parse = fn(&str, &str) -> Result<RunSpec, ConfigError>;

/// Checks what was submitted and makes the run's initial parameters. `models` are the imported ones.
pub fn prepare(
    blobs: &BlobDir,
    models: &[ModelInfo],
    submission: Submission,
) -> Result<Prepared, SubmitError> {
    let Submission { parse, file, text, author, key } = submission;
    let (file, text) = (file.as_str(), text.as_str());
    let spec = parse(file, text)?;
    let invalid = |invalid: Invalid| ConfigError::locate(file, text, &invalid);
    let imported = match &spec.model.source {
        ModelSource::Fresh(_) => None,
        ModelSource::Imported(name) => {
            let info = models.iter().find(|model| model.name == *name).ok_or_else(|| {
                let known: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let problem =
                    format!("there is no model `{name}`; imported are: {known} (see `sheaf model import`)");
                invalid(Invalid::new("model.name", problem))
            })?;
            refresh(blobs, info)?;
            Some((info.manifest, base(blobs, info)?))
        }
    };
    let (model, base) = imported.unzip();
    if !author.signed(&key, &spec, model) {
        return Err(SubmitError::Unsigned);
    }
    let phases = phases(&spec, base.as_ref().map(|base| &base.config)).map_err(|e| invalid(e.invalid()))?;
    check_size(&spec, phases.after(spec.rounds)).map_err(invalid)?;
    let initial = store_initial(blobs, &spec, base.as_ref(), phases.after(0)).map_err(|bad| {
        let name = match &spec.model.source {
            ModelSource::Imported(name) => name.as_str(),
            ModelSource::Fresh(_) => "from the seed",
        };
        SubmitError::Model { name: name.to_owned(), why: bad.to_string() }
    })?;
    Ok(Prepared { spec, author, model, phases, initial })
}

/// Every task holds the run and its parameters' names in one control message, and a survey's report says of every
/// column and word several times what the run does.
fn check_size(spec: &RunSpec, params: &ParamSpec) -> Result<(), Invalid> {
    let most = if spec.is_survey() { FRAME_MAX / 16 } else { FRAME_MAX / 2 };
    match wire::encode(&(spec, params)) {
        Ok(bytes) if bytes.len() <= most => Ok(()),
        Ok(_) | Err(_) => Err(Invalid::new(
            "task",
            format!("labels, features and trained tensors together are described by more than {most} bytes"),
        )),
    }
}

/// Checks that what an operator sent is a model, and describes it.
pub fn describe(blobs: &BlobDir, name: &str, manifest: BlobId) -> Result<ModelInfo, SubmitError> {
    let wrong = |why: String| SubmitError::Model { name: name.to_owned(), why };
    let parsed = Manifest::parse(&blobs.read(manifest)?).map_err(|e| wrong(e.to_string()))?;
    for file in &parsed.files {
        match blobs.length(file.blob) {
            Some(bytes) if bytes == file.bytes => {}
            Some(_) => {
                return Err(wrong(format!("{} has another length than its manifest says", file.path)));
            }
            None => return Err(wrong(format!("{} was not sent", file.path))),
        }
    }
    let mut info = ModelInfo {
        name: name.to_owned(),
        manifest,
        model_type: String::new(),
        num_params: 0,
        bytes: parsed.bytes(),
    };
    let model = base(blobs, &info)?;
    info.model_type = model.config.model_type().to_owned();
    info.num_params = model.weights.num_params();
    Ok(info)
}

/// Should another model take its name now, its files are not let go of before the run is there.
fn refresh(blobs: &BlobDir, info: &ModelInfo) -> Result<(), SubmitError> {
    let wrong = |bad: BadManifest| SubmitError::Model { name: info.name.clone(), why: bad.to_string() };
    let manifest = Manifest::parse(&blobs.read(info.manifest)?).map_err(wrong)?;
    blobs.refresh(info.manifest)?;
    for file in &manifest.files {
        blobs.refresh(file.blob)?;
    }
    Ok(())
}

fn base(blobs: &BlobDir, info: &ModelInfo) -> Result<BaseModel, SubmitError> {
    let wrong = |bad: BadBase| SubmitError::Model { name: info.name.clone(), why: bad.to_string() };
    BaseModel::open(blobs, info.manifest).map_err(wrong)
}
