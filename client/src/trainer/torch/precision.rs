//! In which precision the large products are computed: dense layers, convolutions, and attention, which works on what
//! dense layers gave it.
//!
//! With `precision = "bf16"` they are what PyTorch's autocast makes of them: inputs, weights and biases are rounded to
//! bf16, and so is the result. The parameters themselves stay f32, their gradients come back to f32 through the rounding,
//! and what is added to something of f32, normalised or made a loss of is f32 again. libtorch's own autocast cannot be
//! used: the binding has no choice of its type, which is f16.

use sheaf_common::run::Precision;
use tch::{Kind, TchError, Tensor};

/// Computes a model's products.
#[derive(Clone, Copy)]
pub(super) struct Products {
    kind: Kind,
}

impl Products {
    /// In this precision.
    pub(super) fn new(precision: Precision) -> Self {
        let kind = match precision {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        };
        Self { kind }
    }

    /// `values W^T + b`: `[..., inputs]` to `[..., outputs]`, with a weight `[outputs, inputs]`.
    pub(super) fn dense(
        self,
        values: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        self.rounded(values)?.f_linear(&self.rounded(weight)?, self.rounded_bias(bias)?.as_ref())
    }

    /// `[batch, inputs, height, width]` through a square kernel `[outputs, inputs / groups, side, side]`.
    pub(super) fn convolve(
        self,
        maps: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: i64,
        padding: [i64; 2],
        groups: i64,
    ) -> Result<Tensor, TchError> {
        let (weight, bias) = (self.rounded(weight)?, self.rounded_bias(bias)?);
        self.rounded(maps)?.f_conv2d(&weight, bias.as_ref(), [stride, stride], padding, [1, 1], groups)
    }

    /// The tensor itself if it is of that precision already.
    fn rounded(self, tensor: &Tensor) -> Result<Tensor, TchError> {
        tensor.f_to_kind(self.kind)
    }

    fn rounded_bias(self, bias: Option<&Tensor>) -> Result<Option<Tensor>, TchError> {
        bias.map(|bias| self.rounded(bias)).transpose()
    }
}
