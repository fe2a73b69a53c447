//! `config.json` of a model, checked.

use crate::run::Feature;

/// A model that Sheaf can train, as its `config.json` describes it.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// A BERT encoder in Hugging Face's layout.
    Bert(BertConfig),
    /// A multi-layer perceptron exported by Sheaf.
    Mlp(MlpConfig),
}

/// A BERT encoder: learned absolute positions, exact GELU, post-norm.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: u64,
    /// Width of a token's vector.
    pub hidden_size: u64,
    /// Encoder layers.
    pub num_hidden_layers: u64,
    /// Attention heads; they divide `hidden_size`.
    pub num_attention_heads: u64,
    /// Width of the feed-forward layer.
    pub intermediate_size: u64,
    /// Longest text in tokens.
    pub max_position_embeddings: u64,
    /// Segments.
    pub type_vocab_size: u64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// Token that fills a batch's short texts.
    pub pad_token_id: u64,
    /// Labels of the classifier that the weights bring, in the order of its outputs; empty when there are none.
    pub labels: Vec<String>,
}

/// A multi-layer perceptron with ReLU between its layers.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpConfig {
    /// The columns that it was trained on, in the order of its inputs.
    pub features: Vec<Feature>,
    /// Widths of its hidden layers.
    pub hidden: Vec<u64>,
    /// Its labels, in the order of its outputs.
    pub labels: Vec<String>,
}

/// A `config.json` that is no model's that Sheaf can train: one sentence with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("config.json: {0}")]
pub struct BadConfig(String);

impl ModelConfig {
    /// Reads `config.json`.
    pub fn parse(_config_json: &[u8]) -> Result<Self, BadConfig> {
        unimplemented!()
    }

    /// `model_type` in `config.json`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Bert(_) => "bert",
            Self::Mlp(_) => "mlp",
        }
    }
}
