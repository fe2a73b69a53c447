//! Models as folders, and which of their parameters travel.

use serde::{Deserialize, Serialize};

use crate::blob::BlobId;

/// A model that the server knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its name for `run.toml`.
    pub name: String,
    /// Its manifest, which is its identity.
    pub manifest: BlobId,
    /// `model_type` of its `config.json`.
    pub model_type: String,
    /// Number of values in its weights.
    pub num_params: u64,
    /// Bytes of all its files.
    pub bytes: u64,
}
