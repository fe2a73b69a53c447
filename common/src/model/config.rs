//! `config.json` of a model, checked: everything that the shapes of its tensors follow from.

mod decoder;
mod encoder;
mod script;
mod vit;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::run::{Feature, NumberTarget, Pooling, Target, Task};

use super::encoder::Family;
use super::features::{FeatureJson, NumberJson};
use super::tensors;
use super::vision::Image;
use super::weights::{BadWeights, Weights};
use decoder::{Gpt2Json, LlamaJson};
use encoder::{BertJson, DistilBertJson};
use script::ScriptJson;
use vit::VitJson;

pub use decoder::{Gpt2Config, LlamaConfig};
pub use encoder::EncoderConfig;
pub use script::{ScriptConfig, ScriptInput};
pub use vit::{is_vit, with_pixels};

/// Longest `config.json`, in bytes.
pub const CONFIG_MAX: u64 = 1 << 20;

/// A model that Sheaf can train, as its `config.json` describes it.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// A text encoder in Hugging Face's layout.
    Encoder(EncoderConfig),
    /// A GPT-2 decoder in Hugging Face's layout.
    Gpt2(Gpt2Config),
    /// A Llama decoder in Hugging Face's layout.
    Llama(LlamaConfig),
    /// A multi-layer perceptron exported by Sheaf.
    Mlp(MlpConfig),
    /// An image classifier under torchvision's, timm's or Hugging Face's names.
    Image(Image),
    /// A TorchScript module.
    Script(ScriptConfig),
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
        if let Some(family) = kind.model_type.as_deref().and_then(Family::of) {
            let encoder = match family {
                Family::DistilBert => read::<DistilBertJson>(config_json)?.checked(),
                Family::Bert | Family::Roberta | Family::XlmRoberta => {
                    read::<BertJson>(config_json)?.checked(family)
                }
            };
            return encoder.map(Self::Encoder);
        }
        match kind.model_type.as_deref() {
            Some("gpt2") => read::<Gpt2Json>(config_json)?.checked().map(Self::Gpt2),
            Some("llama") => read::<LlamaJson>(config_json)?.checked().map(Self::Llama),
            Some("mlp") => read::<MlpJson>(config_json)?.checked().map(Self::Mlp),
            Some("torchvision_resnet" | "timm_efficientnet_lite" | "timm_vit") => {
                read::<Image>(config_json)?.checked().map(Self::Image)
            }
            Some("vit") => read::<VitJson>(config_json)?.checked().map(Self::Image),
            Some("torchscript") => read::<ScriptJson>(config_json)?.checked().map(Self::Script),
            Some(other) => bad(format!(
                "`model_type` is `{}`; Sheaf trains {}, \"gpt2\", \"llama\", \"vit\", its own \"mlp\", and image classifiers and \
                 TorchScript modules imported with --kind",
                shown(other),
                Family::ALL.map(|family| format!("\"{}\"", family.model_type())).join(", ")
            )),
            None => bad(
                "has no `model_type`; take the config.json of a model of Hugging Face's or of one that Sheaf \
                 exported",
            ),
        }
    }

    /// `model_type` in `config.json`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Encoder(encoder) => encoder.family.model_type(),
            Self::Gpt2(_) => "gpt2",
            Self::Llama(_) => "llama",
            Self::Mlp(_) => "mlp",
            Self::Image(image) => image.architecture.model_type(),
            Self::Script(_) => "torchscript",
        }
    }

    /// The labels of the head that the weights may bring, in the order of its outputs.
    pub fn labels(&self) -> &[String] {
        match self {
            Self::Encoder(encoder) => &encoder.labels,
            Self::Gpt2(_) | Self::Llama(_) => &[],
            Self::Mlp(mlp) => &mlp.labels,
            Self::Image(image) => &image.labels,
            Self::Script(script) => &script.labels,
        }
    }

    /// Whether the head that the weights may bring gives what `task` learns.
    pub fn has_head_for(&self, task: &Task) -> bool {
        match (&task.target, self) {
            // It has no other, and a run that means something else by it is refused.
            (_, Self::Script(_)) => true,
            (Target::Number(number), Self::Mlp(mlp)) => mlp.number.as_ref() == Some(number),
            // A head of another number of Hugging Face's has no name that tells.
            (Target::Number(_) | Target::NextToken { .. } | Target::Nothing, _) => false,
            (Target::Label { labels, .. } | Target::Labels { labels, .. }, _) => self.labels() == labels,
        }
    }

    /// Whether it reads texts, and so comes with a tokenizer.
    pub fn reads_text(&self) -> bool {
        match self {
            Self::Encoder(_) | Self::Gpt2(_) | Self::Llama(_) => true,
            Self::Mlp(_) | Self::Image(_) | Self::Script(_) => false,
        }
    }

    /// Whether it foretells the next token.
    pub fn is_decoder(&self) -> bool {
        match self {
            Self::Gpt2(_) | Self::Llama(_) => true,
            Self::Encoder(_) | Self::Mlp(_) | Self::Image(_) | Self::Script(_) => false,
        }
    }

    /// Side of the images that it was made for, in pixels, if it takes images.
    pub fn image_size(&self) -> Option<u64> {
        match self {
            Self::Image(image) => Some(image.image_size),
            Self::Script(ScriptConfig { input: ScriptInput::Image { size, .. }, .. }) => Some(*size),
            Self::Encoder(_) | Self::Gpt2(_) | Self::Llama(_) | Self::Mlp(_) | Self::Script(_) => None,
        }
    }

    /// The dense layers that adapters are put on when a run names none: where PEFT knows the model, those that it takes.
    pub fn lora_targets(&self) -> &'static [&'static str] {
        match self {
            Self::Encoder(encoder) => encoder.family.layout().lora_targets,
            Self::Gpt2(_) => &["c_attn"],
            Self::Llama(_) => &["q_proj", "v_proj"],
            Self::Image(image) => image.architecture.lora_targets(),
            Self::Mlp(_) | Self::Script(_) => &[],
        }
    }

    /// Whether the weights hold what this model is made of, each tensor f32 and of the right shape. The pooler
    /// and head of an encoder or an image classifier may be missing: not every run uses them.
    pub fn check_weights(&self, weights: &Weights) -> Result<(), BadWeights> {
        let blocks = match self {
            Self::Encoder(encoder) => tensors::encoder(encoder, Pooling::Mean, None),
            Self::Gpt2(gpt2) => tensors::gpt2(gpt2),
            Self::Llama(llama) => tensors::llama(llama),
            Self::Mlp(mlp) => tensors::mlp(mlp.num_inputs(), &mlp.hidden, mlp.num_outputs()),
            Self::Image(image) => image.architecture.tensors(None),
            Self::Script(script) => script.blocks(),
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
