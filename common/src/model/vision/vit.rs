//! Vision transformers, under timm's names or Hugging Face's. What tells the two apart is here, so that everything else is
//! written once.

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
    /// Whose names its tensors have. `model_type` says it: `config.json` of Hugging Face's has other keys altogether.
    #[serde(skip)]
    pub names: VitNames,
}

/// Whose names a vision transformer's tensors have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VitNames {
    /// timm's.
    #[default]
    Timm,
    /// Those of Hugging Face's `ViTForImageClassification`.
    HuggingFace,
}

/// The names of a vision transformer's tensors, without their prefix.
#[derive(Debug, PartialEq, Eq)]
pub struct VitLayout {
    /// What a model with a head puts before the names of what is below it.
    pub prefix: &'static str,
    /// The class token.
    pub class: &'static str,
    /// The learned positions.
    pub positions: &'static str,
    /// The convolution that makes patches.
    pub patches: &'static str,
    /// What the names of a layer's tensors begin with, before its number.
    pub layers: &'static str,
    /// Part of a layer: the normalisation before attention.
    pub attention_norm: &'static str,
    /// The dense layers of queries, keys and values, in this order: one for all, or one for each.
    pub qkv: &'static [&'static str],
    /// The dense layer of what attention gives.
    pub attended: &'static str,
    /// The normalisation before the feed-forward part.
    pub norm: &'static str,
    /// The first dense layer of the feed-forward part.
    pub up: &'static str,
    /// The second one.
    pub down: &'static str,
    /// The normalisation behind the last layer.
    pub last_norm: &'static str,
    /// The head.
    pub head: &'static str,
    /// The dense layers that get adapters when a run names none: those of queries and values, by their last names.
    pub lora_targets: &'static [&'static str],
}

const TIMM: VitLayout = VitLayout {
    prefix: "",
    class: "cls_token",
    positions: "pos_embed",
    patches: "patch_embed.proj",
    layers: "blocks",
    attention_norm: "norm1",
    qkv: &["attn.qkv"],
    attended: "attn.proj",
    norm: "norm2",
    up: "mlp.fc1",
    down: "mlp.fc2",
    last_norm: "norm",
    head: "head",
    lora_targets: &["qkv"],
};

const HUGGING_FACE: VitLayout = VitLayout {
    prefix: "vit.",
    class: "embeddings.cls_token",
    positions: "embeddings.position_embeddings",
    patches: "embeddings.patch_embeddings.projection",
    layers: "encoder.layer",
    attention_norm: "layernorm_before",
    qkv: &["attention.attention.query", "attention.attention.key", "attention.attention.value"],
    attended: "attention.output.dense",
    norm: "layernorm_after",
    up: "intermediate.dense",
    down: "output.dense",
    last_norm: "layernorm",
    head: "classifier",
    lora_targets: &["query", "value"],
};

impl VitNames {
    /// The names.
    pub fn layout(self) -> &'static VitLayout {
        match self {
            Self::Timm => &TIMM,
            Self::HuggingFace => &HUGGING_FACE,
        }
    }
}

impl Vit {
    /// Outputs of each of the dense layers that give queries, keys and values.
    pub fn qkv_width(&self) -> u64 {
        3 * self.hidden_size / self.names.layout().qkv.len() as u64
    }

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
        let (hidden, layout) = (self.hidden_size, self.names.layout());
        let patch = [hidden, CHANNELS, self.patch_size, self.patch_size];
        Blocks {
            inputs_first: false,
            embeddings: vec![
                tensor(layout.class, &[1, 1, hidden]),
                tensor(layout.positions, &[1, self.num_tokens, hidden]),
                tensor(&format!("{}.weight", layout.patches), &patch),
                tensor(&format!("{}.bias", layout.patches), &[hidden]),
            ],
            layers: (0..self.num_hidden_layers).map(|layer| self.layer(layer)).collect(),
            pooler: linear(layout.last_norm, hidden, None).into(),
            head: num_labels.map_or_else(Vec::new, |labels| linear(layout.head, labels, Some(hidden)).into()),
        }
    }

    fn layer(&self, layer: u64) -> Vec<ParamTensor> {
        let (hidden, wide, layout) = (self.hidden_size, self.intermediate_size, self.names.layout());
        let name = |part: &str| format!("{}.{layer}.{part}", layout.layers);
        let mut tensors: Vec<ParamTensor> = linear(&name(layout.attention_norm), hidden, None).into();
        let width = self.qkv_width();
        tensors.extend(layout.qkv.iter().flat_map(|part| linear(&name(part), width, Some(hidden))));
        tensors.extend(linear(&name(layout.attended), hidden, Some(hidden)));
        tensors.extend(linear(&name(layout.norm), hidden, None));
        tensors.extend(linear(&name(layout.up), wide, Some(hidden)));
        tensors.extend(linear(&name(layout.down), hidden, Some(wide)));
        tensors
    }
}
