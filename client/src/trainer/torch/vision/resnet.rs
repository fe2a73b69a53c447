//! Residual networks (He et al. 2016), as torchvision's.

use sheaf_common::model::vision::{CHANNELS, ResNet, Residual, ResidualBlock};
use tch::{TchError, Tensor};

use super::{Convolution, Head, MeanPooling, Padding, Pixels, Shape, batch_of, rows_of};
use crate::trainer::TrainError;
use crate::trainer::torch::network::{Linear, Mode, Stage};
use crate::trainer::torch::source::Source;

pub(super) fn stages(
    source: &mut Source<'_>,
    net: &ResNet,
    pixels: Pixels,
    num_labels: u64,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let names = ["conv1", "bn1"].map(str::to_owned);
    let stem = Shape { names, outputs: net.stem_width(), inputs: CHANNELS, groups: 1, kernel: 7, stride: 2 };
    let convolution = Convolution::open(source, &stem, Padding::Even, net.batch_norm_eps)?;
    let mut stages: Vec<Box<dyn Stage>> = vec![Box::new(Stem { pixels, convolution })];
    for block in net.blocks() {
        stages.push(Box::new(Block::open(source, net, &block)?));
    }
    stages.push(Box::new(MeanPooling));
    stages.push(Box::new(Head(Linear::open(source, "fc", net.features(), num_labels)?)));
    Ok(stages)
}

/// Images to maps of a quarter of their side.
struct Stem {
    pixels: Pixels,
    convolution: Convolution,
}

impl Stage for Stem {
    fn parameters(&self) -> Vec<&Tensor> {
        self.convolution.parameters()
    }

    fn apply(&self, images: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let maps = self.convolution.apply(&self.pixels.apply(images)?, mode)?.f_relu_()?;
        rows_of(&maps.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?)
    }
}

/// A residual block.
struct Block {
    /// ReLU lies between them, and behind the sum.
    convolutions: Vec<Convolution>,
    downsample: Option<Convolution>,
}

impl Block {
    fn open(source: &mut Source<'_>, net: &ResNet, block: &ResidualBlock) -> Result<Self, TrainError> {
        let [inputs, width, outputs] = block.channels;
        let mut open = |names: [&str; 2], outputs, inputs, kernel, stride| {
            let names = names.map(|part| format!("{}.{part}", block.name));
            let shape = Shape { names, outputs, inputs, groups: 1, kernel, stride };
            Convolution::open(source, &shape, Padding::Even, net.batch_norm_eps)
        };
        let convolutions = match net.block {
            Residual::Basic => vec![
                open(["conv1", "bn1"], outputs, inputs, 3, block.stride)?,
                open(["conv2", "bn2"], outputs, outputs, 3, 1)?,
            ],
            Residual::Bottleneck => vec![
                open(["conv1", "bn1"], width, inputs, 1, 1)?,
                open(["conv2", "bn2"], width, width, 3, block.stride)?,
                open(["conv3", "bn3"], outputs, width, 1, 1)?,
            ],
        };
        let downsample = block
            .has_downsample()
            .then(|| open(["downsample.0", "downsample.1"], outputs, inputs, 1, block.stride))
            .transpose()?;
        Ok(Self { convolutions, downsample })
    }
}

impl Stage for Block {
    fn parameters(&self) -> Vec<&Tensor> {
        self.convolutions.iter().chain(&self.downsample).flat_map(Convolution::parameters).collect()
    }

    fn apply(&self, maps: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let maps = batch_of(maps)?;
        let mut inner = maps.shallow_clone();
        for (at, convolution) in self.convolutions.iter().enumerate() {
            inner = convolution.apply(&if at == 0 { inner } else { inner.f_relu_()? }, mode)?;
        }
        let past = match &self.downsample {
            Some(downsample) => downsample.apply(&maps, mode)?,
            None => maps,
        };
        rows_of(&inner.f_add_(&past)?.f_relu_()?)
    }
}
