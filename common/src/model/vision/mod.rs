//! Image classifiers: what they are made of, described once for server and site.
//!
//! A file for each architecture gives its description in `config.json`, its tensors under the names of torchvision,
//! timm or Hugging Face, block by block, and the shapes from which a site builds it. [`Image`] is what they have in common.

mod efficientnet;
mod resnet;
mod vit;

use serde::{Deserialize, Serialize};

use super::config::{BadConfig, bad, within};
use super::tensors::Blocks;
use crate::params::ParamTensor;

pub use efficientnet::{EfficientNetLite, InvertedResidual, Stage};
pub use resnet::{ResNet, Residual, ResidualBlock};
pub use vit::{Vit, VitLayout, VitNames};

/// Channels of an image: red, green and blue. A grey image is repeated.
pub const CHANNELS: u64 = 3;

/// Most layers that `last:K` can count, for the list of tensors must fit a control message.
const LAYERS_MAX: u64 = 256;

/// An image classifier, as its `config.json` describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Image {
    /// What it is made of.
    #[serde(flatten)]
    pub architecture: Architecture,
    /// Side of the square images that it was trained on, in pixels.
    pub image_size: u64,
    /// Mean of each channel, where 1 is white: `(x - mean) / std` is what the first layer reads.
    pub mean: [f64; CHANNELS as usize],
    /// Standard deviation of each channel.
    pub std: [f64; CHANNELS as usize],
    /// Labels of the head that the weights may bring, in the order of its outputs; empty when none are named.
    #[serde(default)]
    pub labels: Vec<String>,
}

/// What an image classifier is made of. The tag says whose names its tensors have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type")]
pub enum Architecture {
    /// A residual network (He et al. 2016), as torchvision's `resnet18`, `resnet34` and `resnet50`.
    #[serde(rename = "torchvision_resnet")]
    ResNet(ResNet),
    /// An EfficientNet without squeeze and excitation, as timm's `tf_efficientnet_lite0`.
    #[serde(rename = "timm_efficientnet_lite")]
    EfficientNetLite(EfficientNetLite),
    /// A vision transformer (Dosovitskiy et al. 2021), as timm's `vit_base_patch16_224`.
    #[serde(rename = "timm_vit")]
    Vit(Vit),
}

impl Architecture {
    /// `model_type` in `config.json`.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::ResNet(_) => "torchvision_resnet",
            Self::EfficientNetLite(_) => "timm_efficientnet_lite",
            Self::Vit(net) => match net.names {
                VitNames::Timm => "timm_vit",
                VitNames::HuggingFace => "vit",
            },
        }
    }

    /// Whether it takes images of one size only.
    pub fn has_fixed_size(&self) -> bool {
        matches!(self, Self::Vit(_))
    }

    /// Its names, if it is a vision transformer of Hugging Face's.
    pub(super) fn hugging_face(&self) -> Option<&'static VitLayout> {
        match self {
            Self::Vit(net) if net.names == VitNames::HuggingFace => Some(net.names.layout()),
            Self::ResNet(_) | Self::EfficientNetLite(_) | Self::Vit(_) => None,
        }
    }

    /// The dense layers that get adapters when a run names none; none where all layers are convolutions.
    pub fn lora_targets(&self) -> &'static [&'static str] {
        match self {
            Self::ResNet(_) | Self::EfficientNetLite(_) => &[],
            Self::Vit(net) => net.names.layout().lora_targets,
        }
    }

    /// The tensors, running statistics among them, with a head of so many labels.
    pub fn tensors(&self, num_labels: Option<u64>) -> Blocks {
        match self {
            Self::ResNet(net) => net.tensors(num_labels),
            Self::EfficientNetLite(net) => net.tensors(num_labels),
            Self::Vit(net) => net.tensors(num_labels),
        }
    }
}

impl Image {
    /// Whether its numbers are those of a model.
    pub(super) fn checked(self) -> Result<Self, BadConfig> {
        within("image_size", self.image_size, 8, 4096)?;
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.iter().any(|value| !value.is_finite() || (key == "std" && *value <= 0.0)) {
                return bad(format!("`{key}` is no {key} of pixels between 0 and 1"));
            }
        }
        match &self.architecture {
            Architecture::ResNet(net) => net.check()?,
            Architecture::EfficientNetLite(net) => net.check()?,
            Architecture::Vit(net) => net.check(self.image_size)?,
        }
        Ok(self)
    }
}

/// What batch normalisation counts: the mean and the variance of each channel.
const STATISTICS: [&str; 2] = [".running_mean", ".running_var"];

/// Whether a tensor holds what batch normalisation has counted, which no gradient changes.
pub fn is_statistic(name: &str) -> bool {
    STATISTICS.iter().any(|statistic| name.ends_with(statistic))
}

/// Whether a tensor holds variances that batch normalisation has counted. A sum that was rounded may leave one a hair below 0.
pub fn is_variance(name: &str) -> bool {
    name.ends_with(STATISTICS[1])
}

/// The names of what the batch normalisation of this name counts.
pub(super) fn statistics_of(norm: &str) -> [String; 2] {
    STATISTICS.map(|statistic| format!("{norm}{statistic}"))
}

/// A convolution's weight, without a bias, for so many groups of channels.
fn conv(name: &str, outputs: u64, inputs: u64, kernel: u64) -> ParamTensor {
    tensor(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel])
}

/// Batch normalisation: weight, bias and what it has counted.
fn batch_norm(name: &str, width: u64) -> [ParamTensor; 4] {
    ["weight", "bias", "running_mean", "running_var"].map(|part| tensor(&format!("{name}.{part}"), &[width]))
}

/// A dense layer, or a layer normalisation when it has no `inputs`.
fn linear(name: &str, outputs: u64, inputs: Option<u64>) -> [ParamTensor; 2] {
    let weight: Vec<u64> = [outputs].into_iter().chain(inputs).collect();
    [tensor(&format!("{name}.weight"), &weight), tensor(&format!("{name}.bias"), &[outputs])]
}

fn tensor(name: &str, shape: &[u64]) -> ParamTensor {
    ParamTensor { name: name.to_owned(), shape: shape.to_vec() }
}

/// `batch_norm_eps` or `layer_norm_eps`.
fn epsilon(key: &str, value: f64) -> Result<(), BadConfig> {
    if value > 0.0 && value < 1.0 { Ok(()) } else { bad(format!("`{key}` {value} is not between 0 and 1")) }
}
