//! EfficientNet-Lite (Tan and Le 2019, without squeeze and excitation), as timm's.

use sheaf_common::model::vision::{CHANNELS, EfficientNetLite, InvertedResidual};
use tch::{TchError, Tensor};

use super::{Convolution, Head, MeanPooling, Padding, Pixels, Shape, batch_of, rows_of};
use crate::trainer::TrainError;
use crate::trainer::torch::network::{Linear, Mode, Stage};
use crate::trainer::torch::source::Source;

pub(super) fn stages(
    source: &mut Source<'_>,
    net: &EfficientNetLite,
    pixels: Pixels,
    num_labels: u64,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let mut plain = |names: [&str; 2], outputs, inputs, kernel, stride| {
        let names = names.map(str::to_owned);
        let shape = Shape { names, outputs, inputs, groups: 1, kernel, stride };
        Convolution::open(source, &shape, Padding::Same, net.batch_norm_eps)
    };
    let stem = plain(["conv_stem", "bn1"], net.stem_width, CHANNELS, 3, 2)?;
    let last = plain(["conv_head", "bn2"], net.features, net.blocks_width(), 1, 1)?;
    let mut stages: Vec<Box<dyn Stage>> =
        vec![Box::new(Activated { pixels: Some(pixels), convolution: stem })];
    for block in net.blocks() {
        stages.push(Box::new(Block::open(source, net, &block)?));
    }
    stages.push(Box::new(Activated { pixels: None, convolution: last }));
    stages.push(Box::new(MeanPooling));
    stages.push(Box::new(Head(Linear::open(source, "classifier", net.features, num_labels)?)));
    Ok(stages)
}

/// A convolution and ReLU6: the first, which reads images, and the last.
struct Activated {
    pixels: Option<Pixels>,
    convolution: Convolution,
}

impl Stage for Activated {
    fn parameters(&self) -> Vec<&Tensor> {
        self.convolution.parameters()
    }

    fn apply(&self, maps: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let maps = match &self.pixels {
            Some(pixels) => pixels.apply(maps)?,
            None => batch_of(maps)?,
        };
        rows_of(&self.convolution.apply(&maps, mode)?.f_relu6_()?)
    }
}

/// An inverted residual.
struct Block {
    /// ReLU6 lies between them, and none behind the last.
    convolutions: Vec<Convolution>,
    has_shortcut: bool,
}

impl Block {
    fn open(
        source: &mut Source<'_>,
        net: &EfficientNetLite,
        block: &InvertedResidual,
    ) -> Result<Self, TrainError> {
        let mut open = |(conv, norm, outputs, inputs, kernel): (&str, &str, u64, u64, u64)| {
            let names = [conv, norm].map(|part| format!("{}.{part}", block.name));
            let (groups, stride) = if conv == "conv_dw" { (block.inner, block.stride) } else { (1, 1) };
            let shape = Shape { names, outputs, inputs, groups, kernel, stride };
            Convolution::open(source, &shape, Padding::Same, net.batch_norm_eps)
        };
        let convolutions = block.convolutions().into_iter().map(&mut open).collect::<Result<_, _>>()?;
        Ok(Self { convolutions, has_shortcut: block.has_shortcut() })
    }
}

impl Stage for Block {
    fn parameters(&self) -> Vec<&Tensor> {
        self.convolutions.iter().flat_map(Convolution::parameters).collect()
    }

    fn apply(&self, maps: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let maps = batch_of(maps)?;
        let mut inner = maps.shallow_clone();
        for (at, convolution) in self.convolutions.iter().enumerate() {
            inner = convolution.apply(&if at == 0 { inner } else { inner.f_relu6_()? }, mode)?;
        }
        rows_of(&if self.has_shortcut { inner.f_add_(&maps)? } else { inner })
    }
}
