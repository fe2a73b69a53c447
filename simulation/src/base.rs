//! The imported model that a run starts from: on the disk once, among the server's blobs. What a client has of it are links to
//! those, while it is awake.

use std::fs::{self, File};
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use sheaf_client::state::{self, SiteState, StateError};
use sheaf_common::blob::BlobId;
use sheaf_common::model::{
    BadManifest, BadWeights, CARD_FILE, CONFIG_FILE, Manifest, ModelConfig, ModelInfo, PlanError,
    WEIGHTS_FILE, grown, phases,
};
use sheaf_common::params::{ParamSpec, Phases, from_bytes, to_bytes};
use sheaf_common::run::{ModelSource, RunSpec};
use sheaf_server::cli::{PutError, put_model};
use sheaf_server::submit::{self, SubmitError};
use sheaf_transport::base::{BadBase, BaseModel};
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::durable;

use crate::config::Setting;

/// The folder of the model as it is on the disk.
const FOLDER: &str = "model";

/// The model, open.
#[derive(Debug)]
pub struct Base {
    info: ModelInfo,
    manifest: Manifest,
    model: BaseModel,
    /// The server's.
    blobs: BlobDir,
    folder: PathBuf,
}

/// The model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// It cannot be imported.
    #[error("the model of sim.toml cannot be imported: {0}")]
    Put(#[from] PutError),
    /// The server does not take it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It cannot be laid out.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file is gone.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It is not what it was when it was imported.
    #[error("the imported model cannot be used: {0}")]
    Bad(#[from] BadBase),
    /// Nor is its list of files.
    #[error(transparent)]
    Manifest(#[from] BadManifest),
    /// It lacks values that the run comes to train.
    #[error(transparent)]
    Weights(#[from] BadWeights),
    /// The run does not fit it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Its values cannot be read.
    #[error("the imported model cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is a program.
    #[error(
        "{0} is a TorchScript module, which is not simulated: simulate a model whose code Sheaf knows, and try the module at a site with `sheaf-client train`"
    )]
    Script(PathBuf),
}

impl Base {
    /// Imports the model that a setting's run starts from, if it starts from one: into the server's `blobs`, and its folder into
    /// `dir`.
    pub fn import(setting: &Setting, blobs: &BlobDir, dir: &Path) -> Result<Option<Self>, BaseError> {
        let (ModelSource::Imported(name), Some(written)) =
            (&setting.spec.model.source, &setting.simulation.model)
        else {
            return Ok(None);
        };
        let id = put_model(blobs, &written.path, written.kind, name)?;
        let info = submit::describe(blobs, name, id)?;
        let model = BaseModel::open(blobs, id)?;
        if matches!(model.config, ModelConfig::Script(_)) {
            return Err(BaseError::Script(written.path.clone()));
        }
        let folder = dir.join(FOLDER);
        // What was begun before may have been with another.
        remove(&folder)?;
        state::lay_out(blobs, id, &folder)?;
        let manifest = Manifest::parse(&blobs.read(id)?)?;
        Ok(Some(Self { info, manifest, model, blobs: blobs.clone(), folder }))
    }

    /// What the server knows of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Its files, for whoever reads them here.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a client fetches of it once, in that order, and the bytes of each.
    pub fn files(&self) -> impl Iterator<Item = (BlobId, u64)> {
        let list = (self.info.manifest, self.manifest.to_json().len() as u64);
        std::iter::once(list).chain(self.manifest.files.iter().map(|file| (file.blob, file.bytes)))
    }

    /// Has it in a client's directory.
    pub fn lend(&self, to: &SiteState) -> Result<(), BlobError> {
        self.files().try_for_each(|(blob, _)| match to.blobs.link(&self.blobs, blob)? {
            true => Ok(()),
            false => Err(BlobError::Missing(blob)),
        })
    }

    /// Has it no longer in a client's directory: a file system has so many links to a file and no more.
    pub fn take_back(&self, from: &SiteState) -> Result<(), BlobError> {
        self.files().try_for_each(|(blob, _)| from.blobs.remove(blob))?;
        remove(&from.root().join("models").join(self.info.manifest.to_string()))
    }

    /// Its description, as it is written and as it is meant, and where its values are.
    pub fn parts(&self) -> io::Result<(Vec<u8>, &BaseModel, File)> {
        let config = fs::read(self.folder.join(CONFIG_FILE))?;
        Ok((config, &self.model, File::open(self.folder.join(WEIGHTS_FILE))?))
    }

    /// Copies what a trained model takes over as it is, a tokenizer for instance.
    pub fn copy_others(&self, to: &Path) -> io::Result<()> {
        let own = [CONFIG_FILE, WEIGHTS_FILE, CARD_FILE];
        let mut others = self.manifest.files.iter().filter(|file| !own.contains(&file.path.as_str()));
        others.try_for_each(|file| fs::copy(self.folder.join(&file.path), to.join(&file.path)).map(|_| ()))
    }

    /// What a run trains of it in which round.
    pub fn phases(&self, spec: &RunSpec) -> Result<Phases, BaseError> {
        Ok(phases(spec, Some(&self.model.config))?)
    }

    /// The parameters `before`, and with them what is trained `after`: what comes in addition is as the model has it.
    pub fn grow(&self, params: &[f32], before: &ParamSpec, after: &ParamSpec) -> Result<Vec<f32>, BaseError> {
        let plan = grown(before, after, &self.model.weights)?;
        let mut weights = self.blobs.reader(self.model.weights_blob)?;
        let mut bytes = Vec::new();
        plan.write(&mut bytes, Some(&mut weights), &mut Cursor::new(to_bytes(params)))?;
        Ok(from_bytes(&bytes))
    }
}

fn remove(folder: &Path) -> Result<(), BlobError> {
    durable::remove(folder).map_err(|source| BlobError::Io {
        what: "remove",
        path: folder.to_owned(),
        source,
    })
}
