//! SGD, Adam and AdamW exactly as PyTorch defines them, over all trained parameters as one flat tensor.
//!
//! One tensor makes a step a handful of operations whatever the number of layers, and its norm one operation.
//! Weight decay leaves biases and normalisation weights alone (tensors of fewer than two dimensions), as Hugging
//! Face's `Trainer` has it: they do not overfit, and to pull a normalisation towards 0 does harm.

use std::ops::Range;

use sheaf_common::params::ParamSpec;
use sheaf_common::run::{AdamSpec, Optimizer as Kind, Training};
use tch::{TchError, Tensor};

/// An optimizer and its state, which begins at nothing: one per round.
pub(super) struct Optimizer {
    kind: Kind,
    weight_decay: f64,
    /// Where the parameters that decay lie in the flat tensor.
    decaying: Vec<Range<i64>>,
    max_grad_norm: Option<f64>,
    /// Steps done.
    steps: i32,
    /// SGD's momentum buffer, or Adam's first moment. `None` before the first step.
    first: Option<Tensor>,
    /// Adam's second moment.
    second: Option<Tensor>,
}

impl Optimizer {
    /// An optimizer for `training` over the parameters of `spec`.
    pub(super) fn new(training: &Training, spec: &ParamSpec) -> Self {
        Self {
            kind: training.optimizer,
            weight_decay: training.weight_decay,
            decaying: decaying(spec),
            max_grad_norm: training.max_grad_norm,
            steps: 0,
            first: None,
            second: None,
        }
    }

    /// One step: changes `params` in place along `grad` (both `[numel]`), with this step's learning rate.
    pub(super) fn step(&mut self, params: &mut Tensor, mut grad: Tensor, rate: f64) -> Result<(), TchError> {
        self.steps += 1;
        if let Some(limit) = self.max_grad_norm {
            clip(&mut grad, limit)?;
        }
        match self.kind {
            Kind::Sgd { momentum, nesterov } => {
                self.add_decay(params, &mut grad)?;
                let direction = self.momentum(grad, momentum, nesterov)?;
                descend(params, &direction, rate)
            }
            Kind::Adam(adam) => {
                self.add_decay(params, &mut grad)?;
                self.adam(params, &grad, adam, rate)
            }
            Kind::AdamW(adam) => {
                self.shrink(params, rate)?;
                self.adam(params, &grad, adam, rate)
            }
        }
    }

    /// Weight decay as part of the gradient: `grad += weight_decay * params`.
    fn add_decay(&self, params: &Tensor, grad: &mut Tensor) -> Result<(), TchError> {
        for range in self.active_decay() {
            let pull = part(params, range)?.f_mul_scalar(self.weight_decay)?;
            let _ = part(grad, range)?.f_add_(&pull)?;
        }
        Ok(())
    }

    /// Weight decay apart from the gradient: `params *= 1 - rate * weight_decay`.
    fn shrink(&self, params: &Tensor, rate: f64) -> Result<(), TchError> {
        for range in self.active_decay() {
            let _ = part(params, range)?.f_mul_scalar_(1.0 - rate * self.weight_decay)?;
        }
        Ok(())
    }

    fn active_decay(&self) -> impl Iterator<Item = &Range<i64>> {
        self.decaying.iter().filter(|_| self.weight_decay != 0.0)
    }

    /// The direction of SGD: `buffer = momentum * buffer + grad`, the first buffer being the first gradient.
    fn momentum(&mut self, grad: Tensor, momentum: f64, nesterov: bool) -> Result<Tensor, TchError> {
        if momentum == 0.0 {
            return Ok(grad);
        }
        let buffer = match self.first.take() {
            Some(mut buffer) => buffer.f_mul_scalar_(momentum)?.f_add_(&grad)?,
            None => grad.shallow_clone(),
        };
        let direction =
            if nesterov { grad.f_add(&buffer.f_mul_scalar(momentum)?)? } else { buffer.shallow_clone() };
        self.first = Some(buffer);
        Ok(direction)
    }

    fn adam(
        &mut self,
        params: &mut Tensor,
        grad: &Tensor,
        adam: AdamSpec,
        rate: f64,
    ) -> Result<(), TchError> {
        let AdamSpec { beta1, beta2, epsilon } = adam;
        let moment = |kept: Option<Tensor>| kept.map_or_else(|| grad.f_zeros_like(), Ok);
        let mut first = moment(self.first.take())?;
        let mut second = moment(self.second.take())?;
        let _ = first.f_lerp_(grad, 1.0 - beta1)?;
        let _ = second.f_lerp_(&grad.f_square()?, 1.0 - beta2)?;

        let correction1 = 1.0 - beta1.powi(self.steps);
        let correction2 = 1.0 - beta2.powi(self.steps);
        let mut denominator = second.f_sqrt()?;
        let denominator = denominator.f_div_scalar_(correction2.sqrt())?.f_add_scalar_(epsilon)?;
        let direction = first.f_div(&denominator)?;

        (self.first, self.second) = (Some(first), Some(second));
        descend(params, &direction, rate / correction1)
    }
}

/// `params -= rate * direction`.
fn descend(params: &mut Tensor, direction: &Tensor, rate: f64) -> Result<(), TchError> {
    params.f_sub_(&direction.f_mul_scalar(rate)?).map(drop)
}

/// Scales `grad` down to the L2 norm `limit` where it is longer, as `torch.nn.utils.clip_grad_norm_` does.
fn clip(grad: &mut Tensor, limit: f64) -> Result<(), TchError> {
    let mut factor = grad.f_norm()?.f_add_scalar(1e-6)?.f_reciprocal()?;
    let factor = factor.f_mul_scalar_(limit)?.f_clamp_max_(1.0)?;
    grad.f_mul_(&factor).map(drop)
}

/// The stretches of the flat tensor that hold parameters of two dimensions or more; neighbours are joined.
fn decaying(spec: &ParamSpec) -> Vec<Range<i64>> {
    let mut ranges: Vec<Range<i64>> = Vec::new();
    let mut start = 0;
    for tensor in &spec.tensors {
        let end = start + tensor.numel() as i64;
        if tensor.shape.len() >= 2 {
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                Some(_) | None => ranges.push(start..end),
            }
        }
        start = end;
    }
    ranges
}

fn part(flat: &Tensor, range: &Range<i64>) -> Result<Tensor, TchError> {
    flat.f_narrow(0, range.start, range.end - range.start)
}
