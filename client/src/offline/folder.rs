//! A model's folder on this machine.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sheaf_common::model::{BadConfig, BadWeights, CONFIG_FILE, ModelConfig, WEIGHTS_FILE, Weights};
use sheaf_common::params::{ParamSpec, from_bytes};

/// A folder holds no model that can be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file cannot be read.
    #[error("the model's {path} cannot be read: {reason}", path = .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// It describes no model that Sheaf can train.
    #[error("{folder}: {reason}", folder = .folder.display())]
    Config {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: BadConfig,
    },
    /// It lacks values.
    #[error("{folder}: {reason}", folder = .folder.display())]
    Weights {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: BadWeights,
    },
}

/// A model with a description: an imported one, or one that was exported and can be imported.
#[derive(Debug)]
pub(super) struct ModelFolder {
    pub(super) config_json: Vec<u8>,
    pub(super) config: ModelConfig,
    pub(super) weights: WeightsFile,
}

/// `model.safetensors` of a folder.
#[derive(Debug)]
pub(super) struct WeightsFile {
    pub(super) folder: PathBuf,
    pub(super) tensors: Weights,
}

impl ModelFolder {
    pub(super) fn open(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(CONFIG_FILE);
        let config_json = fs::read(&path).map_err(|reason| FolderError::Unreadable { path, reason })?;
        let config = ModelConfig::parse(&config_json)
            .map_err(|reason| FolderError::Config { folder: folder.to_owned(), reason })?;
        Ok(Self { config_json, config, weights: WeightsFile::open(folder)? })
    }
}

impl WeightsFile {
    pub(super) fn open(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(WEIGHTS_FILE);
        let unreadable = |reason| FolderError::Unreadable { path: path.clone(), reason };
        let bad = |reason| FolderError::Weights { folder: folder.to_owned(), reason };
        let bytes = fs::metadata(&path).map_err(unreadable)?.len();
        let first = read(&path, 0, bytes.min(8)).map_err(unreadable)?;
        let header = Weights::header_bytes(&first).map_err(bad)?;
        let start = read(&path, 0, bytes.min(header)).map_err(unreadable)?;
        let tensors = Weights::parse(&start, bytes).map_err(bad)?;
        Ok(Self { folder: folder.to_owned(), tensors })
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(WEIGHTS_FILE)
    }

    /// The parameters of `spec`, by their names.
    pub(super) fn params(&self, spec: &ParamSpec) -> Result<Vec<f32>, FolderError> {
        let mut params = Vec::new();
        for tensor in &spec.tensors {
            params.extend(self.tensor(&tensor.name, &tensor.shape)?);
        }
        Ok(params)
    }

    /// The values of one tensor.
    pub(super) fn tensor(&self, name: &str, shape: &[u64]) -> Result<Vec<f32>, FolderError> {
        let stored = self
            .tensors
            .require(name, shape)
            .map_err(|reason| FolderError::Weights { folder: self.folder.clone(), reason })?;
        self.values(stored.offset, stored.bytes)
    }

    /// The values at this place of the file.
    pub(super) fn values(&self, offset: u64, bytes: u64) -> Result<Vec<f32>, FolderError> {
        let path = self.path();
        let bytes = read(&path, offset, bytes).map_err(|reason| FolderError::Unreadable { path, reason })?;
        Ok(from_bytes(&bytes))
    }
}

/// So many bytes from `offset` on. What they need is only allocated when the file has it.
fn read(path: &Path, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut content = Vec::new();
    if file.take(bytes).read_to_end(&mut content)? as u64 == bytes {
        Ok(content)
    } else {
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was cut short"))
    }
}
