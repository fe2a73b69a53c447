//! `config.json` of a text encoder, checked.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{BadConfig, bad, only, within};
use crate::model::encoder::Family;

/// A text encoder in Hugging Face's layout: learned absolute positions, exact GELU, layer normalisation after each block.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Whose names it has.
    pub family: Family,
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
    /// Rows of the table of positions.
    pub max_position_embeddings: u64,
    /// Segments; 0 where the family has none.
    pub type_vocab_size: u64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
    /// Token that fills up a batch's short texts.
    pub pad_token_id: u64,
    /// Labels of the classifier that the weights may bring, in the order of its outputs; empty when none are
    /// named.
    pub labels: Vec<String>,
}

impl EncoderConfig {
    /// The row of the table of positions that a text's first token has.
    pub fn first_position(&self) -> u64 {
        match self.family {
            Family::Bert | Family::DistilBert => 0,
            Family::Roberta | Family::XlmRoberta => self.pad_token_id + 1,
        }
    }

    /// Longest text in tokens.
    pub fn max_length(&self) -> u64 {
        self.max_position_embeddings.saturating_sub(self.first_position())
    }

    /// The same, if it can be trained. `keys` are the family's words for the hidden size, the layers, the heads and the
    /// width of the feed-forward layer.
    fn checked(self, keys: [&str; 4]) -> Result<Self, BadConfig> {
        let [hidden, layers, heads, inner] = keys;
        within("vocab_size", self.vocab_size, 1, 1 << 24)?;
        within(hidden, self.hidden_size, 1, 1 << 16)?;
        // With more layers the list of tensors would not fit a control message.
        within(layers, self.num_hidden_layers, 1, 256)?;
        within(heads, self.num_attention_heads, 1, 1 << 10)?;
        within(inner, self.intermediate_size, 1, 1 << 20)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return bad(format!(
                "`{hidden}` {} is not a multiple of `{heads}` {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            return bad(format!("`layer_norm_eps` {} is not between 0 and 1", self.layer_norm_eps));
        }
        within("pad_token_id", self.pad_token_id, 0, self.vocab_size - 1)?;
        // Room for one token between two special ones.
        within("max_position_embeddings", self.max_position_embeddings, self.first_position() + 3, 1 << 20)?;
        Ok(self)
    }
}

/// What BERT and RoBERTa say.
#[derive(Deserialize)]
pub(super) struct BertJson {
    vocab_size: u64,
    hidden_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    intermediate_size: u64,
    max_position_embeddings: u64,
    #[serde(default = "two_segments")]
    type_vocab_size: u64,
    layer_norm_eps: Option<f64>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    pad_token_id: Option<u64>,
    id2label: Option<BTreeMap<String, String>>,
}

fn two_segments() -> u64 {
    2
}

impl BertJson {
    pub(super) fn checked(self, family: Family) -> Result<EncoderConfig, BadConfig> {
        within("type_vocab_size", self.type_vocab_size, 1, 1 << 10)?;
        only("hidden_act", self.hidden_act.as_deref(), "gelu")?;
        only("position_embedding_type", self.position_embedding_type.as_deref(), "absolute")?;
        if self.is_decoder {
            return bad("`is_decoder` is true; Sheaf trains such a model as an encoder only");
        }
        let default_padding = match family {
            Family::Bert | Family::DistilBert => 0,
            Family::Roberta | Family::XlmRoberta => 1,
        };
        let config = EncoderConfig {
            family,
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: self.type_vocab_size,
            layer_norm_eps: self.layer_norm_eps.unwrap_or(1e-12),
            pad_token_id: self.pad_token_id.unwrap_or(default_padding),
            labels: labels_in_order(self.id2label.unwrap_or_default()),
        };
        config.checked(["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"])
    }
}

/// What DistilBERT says.
#[derive(Deserialize)]
pub(super) struct DistilBertJson {
    vocab_size: u64,
    dim: u64,
    n_layers: u64,
    n_heads: u64,
    hidden_dim: u64,
    max_position_embeddings: u64,
    activation: Option<String>,
    pad_token_id: Option<u64>,
    id2label: Option<BTreeMap<String, String>>,
}

impl DistilBertJson {
    pub(super) fn checked(self) -> Result<EncoderConfig, BadConfig> {
        only("activation", self.activation.as_deref(), "gelu")?;
        let config = EncoderConfig {
            family: Family::DistilBert,
            vocab_size: self.vocab_size,
            hidden_size: self.dim,
            num_hidden_layers: self.n_layers,
            num_attention_heads: self.n_heads,
            intermediate_size: self.hidden_dim,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: 0,
            layer_norm_eps: 1e-12,
            pad_token_id: self.pad_token_id.unwrap_or(0),
            labels: labels_in_order(self.id2label.unwrap_or_default()),
        };
        config.checked(["dim", "n_layers", "n_heads", "hidden_dim"])
    }
}

/// The labels by number, or none when the numbers are not 0, 1, 2 …
pub(super) fn labels_in_order(mut id2label: BTreeMap<String, String>) -> Vec<String> {
    (0..id2label.len()).map_while(|index| id2label.remove(&index.to_string())).collect()
}
