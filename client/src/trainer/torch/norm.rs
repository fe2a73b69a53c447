//! Layer normalisation, which encoders, decoders and vision transformers have alike.

use tch::{TchError, Tensor};

use super::network::{Mode, Stage};
use super::source::Source;
use crate::trainer::TrainError;

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias` over the last dimension.
pub(super) struct LayerNorm {
    /// `[width]`.
    weight: Tensor,
    /// `[width]`.
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    /// The tensors `{name}.weight` and `{name}.bias`.
    pub(super) fn open(
        source: &mut Source<'_>,
        name: &str,
        width: u64,
        epsilon: f64,
    ) -> Result<Self, TrainError> {
        let mut part = |part| source.take(&format!("{name}.{part}"), &[width]);
        Ok(Self { weight: part("weight")?, bias: part("bias")?, epsilon })
    }

    pub(super) fn parameters(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    /// `[..., width]` to the same.
    pub(super) fn apply(&self, values: &Tensor) -> Result<Tensor, TchError> {
        values.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)
    }
}

/// As the stage that ends a decoder.
impl Stage for LayerNorm {
    fn parameters(&self) -> Vec<&Tensor> {
        self.parameters().into()
    }

    fn apply(&self, values: &Tensor, _real: Option<&Tensor>, _mode: Mode) -> Result<Tensor, TchError> {
        self.apply(values)
    }
}
