//! Vision transformers under timm's names.

use serde::{Deserialize, Serialize};

use super::{CHANNELS, LAYERS_MAX, epsilon, linear, tensor};
use crate::model::config::{BadConfig, bad, within};
use crate::model::tensors::Blocks;
use crate::params::ParamTensor;

/// A vision transformer: patches and a class token with learned positions, pre-norm layers with exact GELU, and a last
/// normalisation, of which the head reads the class token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vit {
    /// Side of a patch in pixels.
    pub patch_size: u64,
    /// Width of a token's vector.
    pub hidden_size: u64,
    /// Layers.
    pub num_hidden_layers: u64,
    /// Attention heads; they divide `hidden_size`.
    pub num_attention_heads: u64,
    /// Width of the feed-forward layer.
    pub intermediate_size: u64,
    /// Patches and the class token.
    pub num_tokens: u64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_eps: f64,
}

impl Vit {
    pub(super) fn check(&self, image_size: u64) -> Result<(), BadConfig> {
        within("patch_size", self.patch_size, 1, 1 << 10)?;
        within("hidden_size", self.hidden_size, 1, 1 << 14)?;
        within("num_hidden_layers", self.num_hidden_layers, 1, LAYERS_MAX)?;
        within("num_attention_heads", self.num_attention_heads, 1, 1 << 10)?;
        within("intermediate_size", self.intermediate_size, 1, 1 << 16)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return bad(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        let side = image_size / self.patch_size;
        if self.num_tokens != side * side + 1 {
            return bad(format!(
                "`num_tokens` is {}, but an image of {image_size} pixels has {side} x {side} patches and a class token",
                self.num_tokens
            ));
        }
        epsilon("layer_norm_eps", self.layer_norm_eps)
    }

    pub(super) fn tensors(&self, num_labels: Option<u64>) -> Blocks {
        let hidden = self.hidden_size;
        let patch = [hidden, CHANNELS, self.patch_size, self.patch_size];
        Blocks {
            inputs_first: false,
            embeddings: vec![
                tensor("cls_token", &[1, 1, hidden]),
                tensor("pos_embed", &[1, self.num_tokens, hidden]),
                tensor("patch_embed.proj.weight", &patch),
                tensor("patch_embed.proj.bias", &[hidden]),
            ],
            layers: (0..self.num_hidden_layers).map(|layer| self.layer(layer)).collect(),
            pooler: linear("norm", hidden, None).into(),
            head: num_labels.map_or_else(Vec::new, |labels| linear("head", labels, Some(hidden)).into()),
        }
    }

    fn layer(&self, layer: u64) -> Vec<ParamTensor> {
        let (hidden, wide) = (self.hidden_size, self.intermediate_size);
        let name = |part: &str| format!("blocks.{layer}.{part}");
        [
            linear(&name("norm1"), hidden, None),
            linear(&name("attn.qkv"), 3 * hidden, Some(hidden)),
            linear(&name("attn.proj"), hidden, Some(hidden)),
            linear(&name("norm2"), hidden, None),
            linear(&name("mlp.fc1"), wide, Some(hidden)),
            linear(&name("mlp.fc2"), hidden, Some(wide)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
