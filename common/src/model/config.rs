//! `config.json` of a model, checked: everything that the shapes of its tensors follow from.

mod decoder;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::run::{Feature, NumberTarget, Target, Task};

use super::features::{FeatureJson, NumberJson};
use super::tensors;
use super::vision::Image;
use super::weights::{BadWeights, Weights};
use decoder::{Gpt2Json, LlamaJson};

pub use decoder::{Gpt2Config, LlamaConfig};

/// Longest `config.json`, in bytes.
pub const CONFIG_MAX: u64 = 1 << 20;

/// A model that Sheaf can train, as its `config.json` describes it.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// A BERT encoder in Hugging Face's layout.
    Bert(BertConfig),
    /// A GPT-2 decoder in Hugging Face's layout.
    Gpt2(Gpt2Config),
    /// A Llama decoder in Hugging Face's layout.
    Llama(LlamaConfig),
    /// A multi-layer perceptron exported by Sheaf.
    Mlp(MlpConfig),
    /// An image classifier under torchvision's or timm's names.
    Image(Image),
}

/// A BERT encoder: learned absolute positions, exact GELU, layer normalisation after each block.
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
    /// Token that fills up a batch's short texts.
    pub pad_token_id: u64,
    /// Labels of the classifier that the weights may bring, in the order of its outputs; empty when none are
    /// named.
    pub labels: Vec<String>,
}

/// A multi-layer perceptron with ReLU between its layers.
#[derive(Clone, Debug, PartialEq)]
pub struct MlpConfig {
    /// The columns that it was trained on, in the order of its inputs.
    pub features: Vec<Feature>,
    /// Widths of its hidden layers.
    pub hidden: Vec<u64>,
    /// Its labels, in the order of its outputs; none when it gives a number.
    pub labels: Vec<String>,
    /// The number that it gives, if it does.
    pub number: Option<NumberTarget>,
}

/// A `config.json` of no model that Sheaf can train: one sentence, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("config.json: {0}")]
pub struct BadConfig(String);

impl ModelConfig {
    /// Reads `config.json`. Keys that do not matter to Sheaf may hold anything.
    pub fn parse(config_json: &[u8]) -> Result<Self, BadConfig> {
        if config_json.len() as u64 > CONFIG_MAX {
            return bad(format!("has {} bytes; at most {CONFIG_MAX} are allowed", config_json.len()));
        }
        let kind: KindJson = read(config_json)?;
        match kind.model_type.as_deref() {
            Some("bert") => read::<BertJson>(config_json)?.checked().map(Self::Bert),
            Some("gpt2") => read::<Gpt2Json>(config_json)?.checked().map(Self::Gpt2),
            Some("llama") => read::<LlamaJson>(config_json)?.checked().map(Self::Llama),
            Some("mlp") => read::<MlpJson>(config_json)?.checked().map(Self::Mlp),
            Some("torchvision_resnet" | "timm_efficientnet_lite" | "timm_vit") => {
                read::<Image>(config_json)?.checked().map(Self::Image)
            }
            Some(other) => bad(format!(
                "`model_type` is `{}`; Sheaf trains \"bert\", \"gpt2\", \"llama\", its own \"mlp\", and image classifiers \
                 imported with --kind",
                shown(other)
            )),
            None => bad(
                "has no `model_type`; take the config.json of a Hugging Face BERT model or of a model that \
                 Sheaf exported",
            ),
        }
    }

    /// `model_type` in `config.json`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Bert(_) => "bert",
            Self::Gpt2(_) => "gpt2",
            Self::Llama(_) => "llama",
            Self::Mlp(_) => "mlp",
            Self::Image(image) => image.architecture.model_type(),
        }
    }

    /// The labels of the head that the weights may bring, in the order of its outputs.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Bert(bert) => &bert.labels,
            Self::Gpt2(_) | Self::Llama(_) => &[],
            Self::Mlp(mlp) => &mlp.labels,
            Self::Image(image) => &image.labels,
        }
    }

    /// Whether the head that the weights may bring gives what `task` learns.
    pub fn has_head_for(&self, task: &Task) -> bool {
        match (&task.target, self) {
            (Target::Number(number), Self::Mlp(mlp)) => mlp.number.as_ref() == Some(number),
            // A head of another number of Hugging Face's has no name that tells.
            (Target::Number(_) | Target::NextToken { .. } | Target::Nothing, _) => false,
            (Target::Label { labels, .. } | Target::Labels { labels, .. }, _) => self.labels() == labels,
        }
    }

    /// Whether it reads texts, and so comes with a tokenizer.
    pub fn reads_text(&self) -> bool {
        match self {
            Self::Bert(_) | Self::Gpt2(_) | Self::Llama(_) => true,
            Self::Mlp(_) | Self::Image(_) => false,
        }
    }

    /// Whether it foretells the next token.
    pub fn is_decoder(&self) -> bool {
        match self {
            Self::Gpt2(_) | Self::Llama(_) => true,
            Self::Bert(_) | Self::Mlp(_) | Self::Image(_) => false,
        }
    }

    /// The dense layers that PEFT puts adapters on when a run names none.
    pub fn lora_targets(&self) -> &'static [&'static str] {
        match self {
            Self::Bert(_) => &["query", "value"],
            Self::Gpt2(_) => &["c_attn"],
            Self::Llama(_) => &["q_proj", "v_proj"],
            Self::Mlp(_) | Self::Image(_) => &[],
        }
    }

    /// Whether the weights hold what this model is made of, each tensor f32 and of the right shape. The pooler
    /// and head of an encoder or an image classifier may be missing: not every run uses them.
    pub fn check_weights(&self, weights: &Weights) -> Result<(), BadWeights> {
        let blocks = match self {
            Self::Bert(bert) => tensors::bert(bert, false, None),
            Self::Gpt2(gpt2) => tensors::gpt2(gpt2),
            Self::Llama(llama) => tensors::llama(llama),
            Self::Mlp(mlp) => tensors::mlp(mlp.num_inputs(), &mlp.hidden, mlp.num_outputs()),
            Self::Image(image) => image.architecture.tensors(None),
        };
        blocks.all().try_for_each(|tensor| weights.require(&tensor.name, &tensor.shape).map(|_| ()))
    }
}

impl MlpConfig {
    /// Number of inputs.
    pub fn num_inputs(&self) -> u64 {
        self.features.iter().map(|feature| feature.kind.width()).sum()
    }

    /// Number of outputs.
    pub fn num_outputs(&self) -> u64 {
        if self.number.is_some() { 1 } else { self.labels.len() as u64 }
    }
}

#[derive(Deserialize)]
struct KindJson {
    model_type: Option<String>,
}

#[derive(Deserialize)]
struct BertJson {
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
    fn checked(self) -> Result<BertConfig, BadConfig> {
        within("vocab_size", self.vocab_size, 1, 1 << 24)?;
        within("hidden_size", self.hidden_size, 1, 1 << 16)?;
        // With more layers the list of tensors would not fit a control message.
        within("num_hidden_layers", self.num_hidden_layers, 1, 256)?;
        within("num_attention_heads", self.num_attention_heads, 1, 1 << 10)?;
        within("intermediate_size", self.intermediate_size, 1, 1 << 20)?;
        within("max_position_embeddings", self.max_position_embeddings, 3, 1 << 20)?;
        within("type_vocab_size", self.type_vocab_size, 1, 1 << 10)?;
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return bad(format!(
                "`hidden_size` {} is not a multiple of `num_attention_heads` {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        let layer_norm_eps = self.layer_norm_eps.unwrap_or(1e-12);
        if !(layer_norm_eps > 0.0 && layer_norm_eps < 1.0) {
            return bad(format!("`layer_norm_eps` {layer_norm_eps} is not between 0 and 1"));
        }
        only("hidden_act", self.hidden_act.as_deref(), "gelu")?;
        only("position_embedding_type", self.position_embedding_type.as_deref(), "absolute")?;
        if self.is_decoder {
            return bad("`is_decoder` is true; Sheaf trains encoders only");
        }
        let pad_token_id = self.pad_token_id.unwrap_or(0);
        within("pad_token_id", pad_token_id, 0, self.vocab_size - 1)?;
        Ok(BertConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: self.type_vocab_size,
            layer_norm_eps,
            pad_token_id,
            labels: labels_in_order(self.id2label.unwrap_or_default()),
        })
    }
}

/// The labels by number, or none when the numbers are not 0, 1, 2 …
fn labels_in_order(mut id2label: BTreeMap<String, String>) -> Vec<String> {
    (0..id2label.len()).map_while(|index| id2label.remove(&index.to_string())).collect()
}

#[derive(Deserialize)]
struct MlpJson {
    hidden: Vec<u64>,
    #[serde(default)]
    labels: Vec<String>,
    number: Option<NumberJson>,
    inputs: u64,
    features: Vec<FeatureJson>,
}

impl MlpJson {
    fn checked(self) -> Result<MlpConfig, BadConfig> {
        if self.hidden.len() > 16 {
            return bad(format!("`hidden` has {} layers; at most 16 are allowed", self.hidden.len()));
        }
        self.hidden.iter().try_for_each(|width| within("hidden", *width, 1, 1 << 16))?;
        let number = self.number.map(NumberTarget::try_from).transpose().or_else(bad)?;
        match number {
            Some(_) => within("labels", self.labels.len() as u64, 0, 0)?,
            None => within("labels", self.labels.len() as u64, 1, 64)?,
        }
        if self.features.is_empty() {
            return bad("`features` is empty; list the columns that the model was trained on");
        }
        let features = self.features.into_iter().map(Feature::try_from).collect::<Result<Vec<_>, _>>();
        let features = features.or_else(bad)?;
        let config = MlpConfig { features, hidden: self.hidden, labels: self.labels, number };
        // A category is at least two bytes of JSON, so that this sum is bounded by the file's length.
        if config.num_inputs() != self.inputs {
            return bad(format!("`inputs` is {}, but `features` make {}", self.inputs, config.num_inputs()));
        }
        Ok(config)
    }
}

fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, BadConfig> {
    serde_json::from_slice(json).or_else(|error| bad(error.to_string()))
}

pub(super) fn bad<T>(problem: impl Into<String>) -> Result<T, BadConfig> {
    Err(BadConfig(problem.into()))
}

pub(super) fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), BadConfig> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        bad(format!("`{key}` {value} is not between {least} and {most}"))
    }
}

fn only(key: &str, value: Option<&str>, supported: &str) -> Result<(), BadConfig> {
    match value {
        Some(other) if other != supported => bad(format!(
            "`{key}` is \"{}\"; Sheaf computes \"{supported}\" only, so import another model",
            shown(other)
        )),
        Some(_) | None => Ok(()),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
