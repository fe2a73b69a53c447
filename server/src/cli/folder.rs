//! A model's folder on this machine: its description and where its values lie.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sheaf_common::model::config::CONFIG_MAX;
use sheaf_common::model::{BadConfig, BadWeights, ModelConfig, Weights};

/// The file is no part of a model.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It is not there, or cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// It is far too long.
    #[error("{0} has {1} bytes: that is no model's description")]
    TooLong(PathBuf, u64),
    /// It describes no model that Sheaf can train.
    #[error("{1} ({0})")]
    Config(PathBuf, BadConfig),
    /// It holds no values that Sheaf can read.
    #[error("{1} ({0})")]
    Weights(PathBuf, BadWeights),
}

/// Reads `config.json`: its bytes and what they mean.
pub(super) fn read_config(path: &Path) -> Result<(Vec<u8>, ModelConfig), FolderError> {
    let bytes = read_short(path)?;
    let config = ModelConfig::parse(&bytes).map_err(|e| FolderError::Config(path.to_owned(), e))?;
    Ok((bytes, config))
}

/// Reads a file that describes a model.
pub(super) fn read_short(path: &Path) -> Result<Vec<u8>, FolderError> {
    let unreadable = |e| FolderError::Read(path.to_owned(), e);
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > CONFIG_MAX {
        return Err(FolderError::TooLong(path.to_owned(), length));
    }
    fs::read(path).map_err(unreadable)
}

/// Reads the header of `model.safetensors`, and no value.
pub(super) fn read_weights(path: &Path) -> Result<Weights, FolderError> {
    let unreadable = |e| FolderError::Read(path.to_owned(), e);
    let wrong = |e| FolderError::Weights(path.to_owned(), e);
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut start = Vec::new();
    (&file).take(8).read_to_end(&mut start).map_err(unreadable)?;
    let header = Weights::header_bytes(&start).map_err(wrong)?;
    (&file).take(header.saturating_sub(start.len() as u64)).read_to_end(&mut start).map_err(unreadable)?;
    Weights::parse(&start, length).map_err(wrong)
}
