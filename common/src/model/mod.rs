//! Models as folders, and which of their parameters travel. Pure over bytes: whoever calls reads and writes.
//!
//! A model is a folder of plain files, as Hugging Face publishes it. Its life in Sheaf, file by file:
//!
//! 1. [`manifest`]: the folder as a list of blobs; the list is a blob too, and its hash is the model's identity.
//! 2. [`config`]: `config.json`, checked; [`weights`]: where in `model.safetensors` each tensor lies. What comes in
//!    another form is read by [`foreign`] first.
//! 3. [`tensors`]: which tensors a model has ([`encoder`]: how the families of text encoders name theirs); [`mod@plan`]: which of them a run trains in which round, and so which
//!    travel.
//! 4. [`mod@initial`]: their values before the first round.
//! 5. [`export`]: a trained model as a folder again; [`mod@card`]: its `README.md`.
//!
//! A tensor has one name inside Sheaf: Hugging Face's without the prefix of the family (`bert.`, `distilbert.`, `roberta.`).

pub mod card;
pub mod config;
pub mod encoder;
pub mod export;
mod features;
pub mod foreign;
pub mod initial;
pub mod lora;
pub mod manifest;
pub mod plan;
pub mod tensors;
#[cfg(test)]
mod tests;
pub mod vision;
pub mod weights;

use serde::{Deserialize, Serialize};

use crate::blob::BlobId;

pub use card::card;
pub use config::{
    BadConfig, EncoderConfig, Gpt2Config, LlamaConfig, MlpConfig, ModelConfig, ScriptConfig, ScriptInput,
};
pub use encoder::Family;
pub use export::{ExportError, Piece, WeightsPlan, export_adapter, export_config, export_weights, grown};
pub use initial::{Distribution, Initial, InitialError, initial};
pub use manifest::{BadManifest, MANIFEST_MAX, Manifest, ManifestFile};
pub use plan::{PlanError, blocks, local, phases, plan};
pub use tensors::Blocks;
pub use weights::{BadWeights, StoredTensor, Weights};

/// The model's description in its folder.
pub const CONFIG_FILE: &str = "config.json";
/// The model's values in its folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// A TorchScript module in its folder: code and buffers; the values of its parameters are those of [`WEIGHTS_FILE`].
pub const MODULE_FILE: &str = "model.pt";
/// A text model's tokenizer in its folder.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// What an image model of Hugging Face's reads of pixels, in its folder.
pub const PREPROCESSOR_FILE: &str = "preprocessor_config.json";
/// The model's card in its folder.
pub const CARD_FILE: &str = "README.md";

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
