//! A trained model as a folder again, in a form that Hugging Face `transformers` opens.

use crate::message::ExportPlan;

use super::config::ModelConfig;
use super::weights::Weights;

/// A model cannot be put together, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the model cannot be exported: {0}")]
pub struct ExportError(String);

/// `model.safetensors` to be written: the header, then the pieces one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsPlan {
    /// The file's first bytes.
    pub header: Vec<u8>,
    /// What follows.
    pub pieces: Vec<Piece>,
}

/// Bytes to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// From the imported `model.safetensors`.
    Base {
        /// Where they start.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// From the blob of the global parameters.
    Global {
        /// Where they start.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

/// `config.json` of the exported model. `base` is the imported model's, `None` for a fresh one.
pub fn export_config(_plan: &ExportPlan, _base: Option<&[u8]>) -> Result<Vec<u8>, ExportError> {
    unimplemented!()
}

/// `model.safetensors` of the exported model.
pub fn export_weights(
    _plan: &ExportPlan,
    _config: Option<&ModelConfig>,
    _base: Option<&Weights>,
) -> Result<WeightsPlan, ExportError> {
    unimplemented!()
}
