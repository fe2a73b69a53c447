//! Residual networks under torchvision's names.

use serde::{Deserialize, Serialize};

use super::{CHANNELS, LAYERS_MAX, batch_norm, conv, epsilon, linear};
use crate::model::config::{BadConfig, bad, within};
use crate::model::tensors::Blocks;
use crate::params::ParamTensor;

/// A residual network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResNet {
    /// What its blocks are.
    pub block: Residual,
    /// Blocks of each stage. Each stage but the first halves the image.
    pub depths: Vec<u64>,
    /// Channels within the blocks of each stage; of the stem, those of the first.
    pub widths: Vec<u64>,
    /// Added to the variance in batch normalisation.
    pub batch_norm_eps: f64,
}

/// What a residual block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Residual {
    /// Two convolutions of 3 x 3.
    Basic,
    /// 1 x 1, 3 x 3 (with the stride) and 1 x 1 to four times the width.
    Bottleneck,
}

/// One block, as a site builds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResidualBlock {
    /// `layer1.0` …
    pub name: String,
    /// Channels that come in, lie between, and go out.
    pub channels: [u64; 3],
    /// Of the convolution that halves the image, if this block does.
    pub stride: u64,
}

impl ResidualBlock {
    /// Whether what goes past the block must be brought to its shape.
    pub fn has_downsample(&self) -> bool {
        self.stride != 1 || self.channels[0] != self.channels[2]
    }
}

impl ResNet {
    /// The blocks, from the image on.
    pub fn blocks(&self) -> Vec<ResidualBlock> {
        let expansion = match self.block {
            Residual::Basic => 1,
            Residual::Bottleneck => 4,
        };
        let mut inputs = self.stem_width();
        let mut blocks = Vec::new();
        for (stage, (depth, width)) in self.depths.iter().zip(&self.widths).enumerate() {
            for block in 0..*depth {
                let channels = [inputs, *width, expansion * width];
                let stride = if block == 0 && stage > 0 { 2 } else { 1 };
                blocks.push(ResidualBlock { name: format!("layer{}.{block}", stage + 1), channels, stride });
                inputs = expansion * width;
            }
        }
        blocks
    }

    /// Channels of the stem.
    pub fn stem_width(&self) -> u64 {
        self.widths.first().copied().unwrap_or(0)
    }

    /// Channels that the head reads.
    pub fn features(&self) -> u64 {
        self.blocks().last().map_or(0, |block| block.channels[2])
    }

    pub(super) fn check(&self) -> Result<(), BadConfig> {
        if self.depths.len() != self.widths.len() || self.depths.is_empty() || self.depths.len() > 8 {
            return bad("`depths` and `widths` must have one number for each of 1 to 8 stages");
        }
        self.depths.iter().try_for_each(|depth| within("depths", *depth, 1, LAYERS_MAX))?;
        within("depths", self.depths.iter().sum(), 1, LAYERS_MAX)?;
        self.widths.iter().try_for_each(|width| within("widths", *width, 1, 1 << 14))?;
        epsilon("batch_norm_eps", self.batch_norm_eps)
    }

    pub(super) fn tensors(&self, num_labels: Option<u64>) -> Blocks {
        let mut embeddings = vec![conv("conv1", self.stem_width(), CHANNELS, 7)];
        embeddings.extend(batch_norm("bn1", self.stem_width()));
        Blocks {
            inputs_first: false,
            embeddings,
            layers: self.blocks().iter().map(|block| self.block_tensors(block)).collect(),
            pooler: Vec::new(),
            head: num_labels
                .map_or_else(Vec::new, |labels| linear("fc", labels, Some(self.features())).into()),
        }
    }

    fn block_tensors(&self, block: &ResidualBlock) -> Vec<ParamTensor> {
        let name = |part: &str| format!("{}.{part}", block.name);
        let [inputs, width, outputs] = block.channels;
        let convolutions = match self.block {
            Residual::Basic => vec![(outputs, inputs, 3), (outputs, outputs, 3)],
            Residual::Bottleneck => vec![(width, inputs, 1), (width, width, 3), (outputs, width, 1)],
        };
        let mut tensors = Vec::new();
        for (number, (outputs, inputs, kernel)) in (1..).zip(convolutions) {
            tensors.push(conv(&name(&format!("conv{number}")), outputs, inputs, kernel));
            tensors.extend(batch_norm(&name(&format!("bn{number}")), outputs));
        }
        if block.has_downsample() {
            tensors.push(conv(&name("downsample.0"), outputs, inputs, 1));
            tensors.extend(batch_norm(&name("downsample.1"), outputs));
        }
        tensors
    }
}
