//! Image classifiers, as torchvision and timm compute them: a stem, residual blocks or layers, a head.
//!
//! Images and feature maps are `[batch, 1, channels, height, width]` between stages: one row per example, like anything
//! else that goes through the network. A file for each architecture; here is what they share.

mod efficientnet;
mod resnet;
mod vit;

use sheaf_common::model::vision::{Architecture, CHANNELS, Image};
use tch::{Device, Kind, TchError, Tensor};

use super::network::{Linear, Mode, Stage, drop_some};
use super::precision::Products;
use super::source::Source;
use crate::trainer::TrainError;

/// How much of a running statistic is replaced by that of a batch, as in PyTorch.
const MOMENTUM: f64 = 0.1;

/// The stages of an image classifier with `num_labels` outputs.
pub(super) fn stages(
    source: &mut Source<'_>,
    image: &Image,
    num_labels: u64,
    device: Device,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let pixels = Pixels::new(image, device)?;
    match &image.architecture {
        Architecture::ResNet(net) => resnet::stages(source, net, pixels, num_labels),
        Architecture::EfficientNetLite(net) => efficientnet::stages(source, net, pixels, num_labels),
        Architecture::Vit(net) => vit::stages(source, net, pixels, num_labels),
    }
}

/// Pixels to what the first layer reads: three channels, centred and scaled.
struct Pixels {
    /// `[1, 3, 1, 1]`.
    mean: Tensor,
    /// `[1, 3, 1, 1]`.
    std: Tensor,
}

impl Pixels {
    fn new(image: &Image, device: Device) -> Result<Self, TchError> {
        let channels = |values: &[f64]| {
            let values = Tensor::f_from_slice(values)?.f_to_kind(Kind::Float)?;
            values.f_view([1, CHANNELS as i64, 1, 1])?.f_to(device)
        };
        Ok(Self { mean: channels(&image.mean)?, std: channels(&image.std)? })
    }

    /// `[batch, 1, 1 or 3, height, width]`, bytes or floats of which 1 is white, to `[batch, 3, height, width]`.
    fn apply(&self, images: &Tensor) -> Result<Tensor, TchError> {
        let mut images = batch_of(images)?;
        if images.f_kind()? == Kind::Uint8 {
            images = images.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        }
        // A single channel is repeated by broadcasting.
        images.f_sub(&self.mean)?.f_div(&self.std)
    }
}

/// The rows of all examples as a batch of maps, and back.
fn batch_of(rows: &Tensor) -> Result<Tensor, TchError> {
    rows.f_flatten(0, 1)
}

fn rows_of(batch: &Tensor) -> Result<Tensor, TchError> {
    batch.f_unsqueeze(1)
}

/// How a convolution treats the edges.
#[derive(Clone, Copy)]
enum Padding {
    /// `kernel / 2` on all sides.
    Even,
    /// TensorFlow's: as much as makes the output `size / stride` large, the odd pixel behind.
    Same,
}

/// A convolution without bias, and batch normalisation behind it.
struct Convolution {
    /// `[outputs, inputs / groups, kernel, kernel]`.
    weight: Tensor,
    norm: BatchNorm,
    stride: i64,
    padding: Padding,
    groups: i64,
    products: Products,
}

/// A convolution's place in the model and its shape.
struct Shape {
    /// Name of the convolution and of its normalisation.
    names: [String; 2],
    outputs: u64,
    /// Inputs of a group.
    inputs: u64,
    groups: u64,
    kernel: u64,
    stride: u64,
}

impl Convolution {
    fn open(
        source: &mut Source<'_>,
        shape: &Shape,
        padding: Padding,
        epsilon: f64,
    ) -> Result<Self, TrainError> {
        let Shape { names: [conv, norm], outputs, inputs, groups, kernel, stride } = shape;
        let weight = source.take(&format!("{conv}.weight"), &[*outputs, *inputs, *kernel, *kernel])?;
        let norm = BatchNorm::open(source, norm, *outputs, epsilon)?;
        let (stride, groups, products) = (*stride as i64, *groups as i64, source.products());
        Ok(Self { weight, norm, stride, padding, groups, products })
    }

    fn parameters(&self) -> Vec<&Tensor> {
        [&self.weight].into_iter().chain(self.norm.parameters()).collect()
    }

    /// `[batch, inputs, height, width]` to `[batch, outputs, height / stride, width / stride]`.
    fn apply(&self, maps: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let (_, _, height, width) = maps.size4()?;
        let kernel = self.weight.size()[2];
        let [before_h, after_h] = self.padding(height, kernel);
        let [before_w, after_w] = self.padding(width, kernel);
        let convolve = |maps: &Tensor, padding: [i64; 2]| {
            self.products.convolve(maps, &self.weight, None, self.stride, padding, self.groups)
        };
        let maps = if before_h == after_h && before_w == after_w {
            convolve(maps, [before_h, before_w])?
        } else {
            convolve(&maps.f_constant_pad_nd([before_w, after_w, before_h, after_h])?, [0, 0])?
        };
        self.norm.apply(&maps, mode)
    }

    /// Pixels before and after an axis of this size.
    fn padding(&self, size: i64, kernel: i64) -> [i64; 2] {
        match self.padding {
            Padding::Even => [kernel / 2, kernel / 2],
            Padding::Same => {
                let outputs = (size + self.stride - 1) / self.stride;
                let all = ((outputs - 1) * self.stride + kernel - size).max(0);
                [all / 2, all - all / 2]
            }
        }
    }
}

/// Batch normalisation.
struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    epsilon: f64,
    /// Whether it normalises by the batch in training, and counts it, rather than by what it has counted.
    counts: bool,
}

impl BatchNorm {
    fn open(source: &mut Source<'_>, name: &str, width: u64, epsilon: f64) -> Result<Self, TrainError> {
        let counts = source.is_trained(&format!("{name}.running_mean"));
        let mut part = |part| source.take(&format!("{name}.{part}"), &[width]);
        Ok(Self {
            weight: part("weight")?,
            bias: part("bias")?,
            running_mean: part("running_mean")?,
            running_var: part("running_var")?,
            epsilon,
            counts,
        })
    }

    fn parameters(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    /// A batch of one value a channel has no variance: it is normalised by what was counted, and not counted.
    fn apply(&self, maps: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let (examples, _, height, width) = maps.size4()?;
        let counts = self.counts && mode.is_training() && examples * height * width > 1;
        maps.f_batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(&self.running_mean),
            Some(&self.running_var),
            counts,
            MOMENTUM,
            self.epsilon,
            true,
        )
    }
}

/// Dropout and a dense layer: `[batch, 1, channels]` to `[batch, 1, labels]`.
struct Head(Linear);

impl Stage for Head {
    fn parameters(&self) -> Vec<&Tensor> {
        self.0.parameters()
    }

    fn apply(&self, features: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        self.0.apply(&drop_some(features.shallow_clone(), mode)?, mode)
    }
}

/// The mean over a map: `[batch, 1, channels, height, width]` to `[batch, 1, channels]`.
struct MeanPooling;

impl Stage for MeanPooling {
    fn parameters(&self) -> Vec<&Tensor> {
        Vec::new()
    }

    fn apply(&self, maps: &Tensor, _real: Option<&Tensor>, _mode: Mode) -> Result<Tensor, TchError> {
        maps.f_mean_dim([-2_i64, -1].as_slice(), false, None)
    }
}
