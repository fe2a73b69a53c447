//! EfficientNet-Lite under timm's names.

use serde::{Deserialize, Serialize};

use super::{CHANNELS, LAYERS_MAX, batch_norm, conv, epsilon, linear};
use crate::model::config::{BadConfig, bad, within};
use crate::model::tensors::Blocks;
use crate::params::ParamTensor;

/// An EfficientNet without squeeze and excitation: inverted residuals with ReLU6, and TensorFlow's padding, which puts
/// the odd pixel behind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EfficientNetLite {
    /// Channels of the first convolution, which halves the image.
    pub stem_width: u64,
    /// The stages between it and the last convolution.
    pub stages: Vec<Stage>,
    /// Channels of the last convolution, which the head reads.
    pub features: u64,
    /// Added to the variance in batch normalisation.
    pub batch_norm_eps: f64,
}

/// Blocks of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Blocks.
    pub depth: u64,
    /// Side of the depthwise convolution.
    pub kernel: u64,
    /// Of the first block's depthwise convolution.
    pub stride: u64,
    /// Channels within a block for each that comes in.
    pub expansion: u64,
    /// Channels that go out of each block.
    pub width: u64,
}

/// One block, as a site builds it: 1 x 1 to `inner` channels (unless there are as many already), depthwise, 1 x 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvertedResidual {
    /// `blocks.0.0` …
    pub name: String,
    /// Channels that come in.
    pub inputs: u64,
    /// Channels of the depthwise convolution.
    pub inner: u64,
    /// Channels that go out.
    pub outputs: u64,
    /// Side of the depthwise convolution.
    pub kernel: u64,
    /// Of the depthwise convolution.
    pub stride: u64,
}

impl InvertedResidual {
    /// Whether it begins with a convolution to more channels. timm names the parts of a block without it otherwise.
    pub fn expands(&self) -> bool {
        self.inner != self.inputs
    }

    /// Whether what came in is added to what goes out.
    pub fn has_shortcut(&self) -> bool {
        self.stride == 1 && self.inputs == self.outputs
    }

    /// Its convolutions: name, name of the batch normalisation behind it, outputs, inputs per group, kernel.
    pub fn convolutions(&self) -> Vec<(&'static str, &'static str, u64, u64, u64)> {
        if self.expands() {
            vec![
                ("conv_pw", "bn1", self.inner, self.inputs, 1),
                ("conv_dw", "bn2", self.inner, 1, self.kernel),
                ("conv_pwl", "bn3", self.outputs, self.inner, 1),
            ]
        } else {
            vec![
                ("conv_dw", "bn1", self.inner, 1, self.kernel),
                ("conv_pw", "bn2", self.outputs, self.inner, 1),
            ]
        }
    }
}

impl EfficientNetLite {
    /// The blocks, from the image on.
    pub fn blocks(&self) -> Vec<InvertedResidual> {
        let mut inputs = self.stem_width;
        let mut blocks = Vec::new();
        for (number, stage) in self.stages.iter().enumerate() {
            for block in 0..stage.depth {
                blocks.push(InvertedResidual {
                    name: format!("blocks.{number}.{block}"),
                    inputs,
                    inner: stage.expansion * inputs,
                    outputs: stage.width,
                    kernel: stage.kernel,
                    stride: if block == 0 { stage.stride } else { 1 },
                });
                inputs = stage.width;
            }
        }
        blocks
    }

    /// Channels that come out of the last block.
    pub fn blocks_width(&self) -> u64 {
        self.stages.last().map_or(self.stem_width, |stage| stage.width)
    }

    pub(super) fn check(&self) -> Result<(), BadConfig> {
        within("stem_width", self.stem_width, 1, 1 << 12)?;
        within("stages", self.stages.len() as u64, 1, 16)?;
        for stage in &self.stages {
            within("stages.depth", stage.depth, 1, LAYERS_MAX)?;
            within("stages.expansion", stage.expansion, 1, 16)?;
            within("stages.width", stage.width, 1, 1 << 12)?;
            within("stages.stride", stage.stride, 1, 2)?;
            if !matches!(stage.kernel, 1 | 3 | 5 | 7) {
                return bad(format!("`stages.kernel` {} is not 1, 3, 5 or 7", stage.kernel));
            }
        }
        within("stages.depth", self.stages.iter().map(|stage| stage.depth).sum(), 1, LAYERS_MAX)?;
        within("features", self.features, 1, 1 << 14)?;
        epsilon("batch_norm_eps", self.batch_norm_eps)
    }

    pub(super) fn tensors(&self, num_labels: Option<u64>) -> Blocks {
        let convolution = |name: &str, norm: &str, outputs, inputs, kernel| {
            let mut tensors = vec![conv(name, outputs, inputs, kernel)];
            tensors.extend(batch_norm(norm, outputs));
            tensors
        };
        let block = |block: &InvertedResidual| -> Vec<ParamTensor> {
            let name = |part: &str| format!("{}.{part}", block.name);
            let parts = block.convolutions();
            let parts = parts.iter().map(|(conv, norm, outputs, inputs, kernel)| {
                convolution(&name(conv), &name(norm), *outputs, *inputs, *kernel)
            });
            parts.flatten().collect()
        };
        Blocks {
            inputs_first: false,
            embeddings: convolution("conv_stem", "bn1", self.stem_width, CHANNELS, 3),
            layers: self.blocks().iter().map(block).collect(),
            pooler: convolution("conv_head", "bn2", self.features, self.blocks_width(), 1),
            head: num_labels
                .map_or_else(Vec::new, |labels| linear("classifier", labels, Some(self.features)).into()),
        }
    }
}
