//! Optimizers exactly as PyTorch defines them, over all trained parameters as one flat tensor.
//!
//! One tensor makes a step a handful of operations whatever the number of layers, and its norm one operation.
//! Weight decay leaves biases and normalisation weights alone (tensors of fewer than two dimensions) unless the run
//! says otherwise, as Hugging Face's `Trainer` has it: they do not overfit, and to pull a normalisation towards 0
//! does harm.

use std::ops::Range;

use sheaf_common::params::ParamSpec;
use sheaf_common::run::{AdagradSpec, AdamSpec, DecayOn, Optimizer as Kind, RmsPropSpec, Training};
use tch::{TchError, Tensor};

/// An optimizer and its state, which begins at nothing: one per round.
pub(super) struct Optimizer {
    kind: Kind,
    weight_decay: f64,
    groups: Vec<Group>,
    max_grad_value: Option<f64>,
    max_grad_norm: Option<f64>,
    /// Steps done.
    steps: i32,
    /// SGD's and RMSprop's momentum buffer, or Adam's first moment. `None` before the first step.
    first: Option<Tensor>,
    /// The mean (for Adagrad, the sum) of squares.
    second: Option<Tensor>,
    /// The mean gradient of a centred RMSprop.
    mean: Option<Tensor>,
}

impl Optimizer {
    /// An optimizer for `training` over the parameters of `spec`, each tensor so many layers below the head.
    pub(super) fn new(training: &Training, spec: &ParamSpec, depths: &[u32]) -> Self {
        Self {
            kind: training.optimizer,
            weight_decay: training.weight_decay,
            groups: groups(spec, depths, training),
            max_grad_value: training.max_grad_value,
            max_grad_norm: training.max_grad_norm,
            steps: 0,
            first: None,
            second: None,
            mean: None,
        }
    }

    /// One step: changes `params` in place along `grad` (both `[numel]`), with this step's learning rate.
    pub(super) fn step(&mut self, params: &mut Tensor, mut grad: Tensor, rate: f64) -> Result<(), TchError> {
        self.steps += 1;
        if let Some(limit) = self.max_grad_value {
            let _ = grad.f_clamp_(-limit, limit)?;
        }
        if let Some(limit) = self.max_grad_norm {
            clip(&mut grad, limit)?;
        }
        match self.kind {
            Kind::AdamW(_) => self.shrink(params, rate)?,
            Kind::Sgd { .. } | Kind::Adam(_) | Kind::RmsProp(_) | Kind::Adagrad(_) => {
                self.add_decay(params, &mut grad)?;
            }
        }
        match self.kind {
            Kind::Sgd { momentum, nesterov } => {
                let direction = self.momentum(grad, momentum, nesterov)?;
                self.descend(params, &direction, rate)
            }
            Kind::Adam(adam) | Kind::AdamW(adam) => self.adam(params, &grad, adam, rate),
            Kind::RmsProp(rms) => self.rms_prop(params, &grad, rms, rate),
            Kind::Adagrad(adagrad) => self.adagrad(params, &grad, adagrad, rate),
        }
    }

    /// Weight decay as part of the gradient: `grad += weight_decay * params`.
    fn add_decay(&self, params: &Tensor, grad: &mut Tensor) -> Result<(), TchError> {
        for Group { range, .. } in self.decaying() {
            let pull = part(params, range)?.f_mul_scalar(self.weight_decay)?;
            let _ = part(grad, range)?.f_add_(&pull)?;
        }
        Ok(())
    }

    /// Weight decay apart from the gradient: `params *= 1 - rate * weight_decay`.
    fn shrink(&self, params: &Tensor, rate: f64) -> Result<(), TchError> {
        for Group { range, rate: factor, .. } in self.decaying() {
            let _ = part(params, range)?.f_mul_scalar_(1.0 - rate * factor * self.weight_decay)?;
        }
        Ok(())
    }

    fn decaying(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.decays && self.weight_decay != 0.0)
    }

    /// `params -= rate * direction`, at each layer's rate.
    fn descend(&self, params: &mut Tensor, direction: &Tensor, rate: f64) -> Result<(), TchError> {
        if self.groups.iter().all(|group| group.rate == 1.0) {
            return params.f_sub_(&direction.f_mul_scalar(rate)?).map(drop);
        }
        for Group { range, rate: factor, .. } in &self.groups {
            let step = part(direction, range)?.f_mul_scalar(rate * factor)?;
            let _ = part(params, range)?.f_sub_(&step)?;
        }
        Ok(())
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
        self.descend(params, &direction, rate / correction1)
    }

    /// `torch.optim.RMSprop`.
    fn rms_prop(
        &mut self,
        params: &mut Tensor,
        grad: &Tensor,
        rms: RmsPropSpec,
        rate: f64,
    ) -> Result<(), TchError> {
        let mut square = self.second.take().map_or_else(|| grad.f_zeros_like(), Ok)?;
        let _ = square.f_lerp_(&grad.f_square()?, 1.0 - rms.alpha)?;
        let mut denominator = if rms.centered {
            let mut mean = self.mean.take().map_or_else(|| grad.f_zeros_like(), Ok)?;
            let _ = mean.f_lerp_(grad, 1.0 - rms.alpha)?;
            let spread = square.f_sub(&mean.f_square()?)?;
            self.mean = Some(mean);
            // Rounding may leave a hair below 0 where all gradients were the same.
            spread.f_clamp_min(0.0)?.f_sqrt()?
        } else {
            square.f_sqrt()?
        };
        self.second = Some(square);
        let direction = grad.f_div(&denominator.f_add_scalar_(rms.epsilon)?)?;
        if rms.momentum == 0.0 {
            return self.descend(params, &direction, rate);
        }
        let mut buffer = self.first.take().map_or_else(|| grad.f_zeros_like(), Ok)?;
        let _ = buffer.f_mul_scalar_(rms.momentum)?.f_add_(&direction)?;
        let moved = self.descend(params, &buffer, rate);
        self.first = Some(buffer);
        moved
    }

    /// `torch.optim.Adagrad`.
    fn adagrad(
        &mut self,
        params: &mut Tensor,
        grad: &Tensor,
        adagrad: AdagradSpec,
        rate: f64,
    ) -> Result<(), TchError> {
        let start = || grad.f_full_like(adagrad.initial_accumulator_value);
        let mut sum = self.second.take().map_or_else(start, Ok)?;
        let _ = sum.f_add_(&grad.f_square()?)?;
        let direction = grad.f_div(&sum.f_sqrt()?.f_add_scalar_(adagrad.epsilon)?)?;
        self.second = Some(sum);
        let rate = rate / (1.0 + f64::from(self.steps - 1) * adagrad.lr_decay);
        self.descend(params, &direction, rate)
    }
}

/// Scales `grad` down to the L2 norm `limit` where it is longer, as `torch.nn.utils.clip_grad_norm_` does.
fn clip(grad: &mut Tensor, limit: f64) -> Result<(), TchError> {
    let mut factor = grad.f_norm()?.f_add_scalar(1e-6)?.f_reciprocal()?;
    let factor = factor.f_mul_scalar_(limit)?.f_clamp_max_(1.0)?;
    grad.f_mul_(&factor).map(drop)
}

/// A stretch of the flat tensor whose parameters are moved alike.
#[derive(Debug, PartialEq)]
pub(super) struct Group {
    range: Range<i64>,
    /// Factor on the learning rate.
    rate: f64,
    /// Whether weight decay reaches it.
    decays: bool,
}

/// The stretches of the flat tensor; neighbours that are moved alike are joined.
fn groups(spec: &ParamSpec, depths: &[u32], training: &Training) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut start = 0;
    for (tensor, depth) in spec.tensors.iter().zip(depths) {
        let range = start..start + tensor.numel() as i64;
        start = range.end;
        let new = Group {
            range,
            rate: training.layer_decay.powf(f64::from(*depth)),
            decays: training.weight_decay_on == DecayOn::All || tensor.shape.len() >= 2,
        };
        match groups.last_mut() {
            Some(last) if (last.rate, last.decays) == (new.rate, new.decays) => {
                last.range.end = new.range.end
            }
            Some(_) | None => groups.push(new),
        }
    }
    groups
}

fn part(flat: &Tensor, range: &Range<i64>) -> Result<Tensor, TchError> {
    flat.f_narrow(0, range.start, range.end - range.start)
}

#[cfg(test)]
mod tests {
    use sheaf_common::params::ParamTensor;

    use super::*;

    #[test]
    fn neighbours_that_are_moved_alike_are_one_group() {
        let tensor = |name: &str, shape: &[u64]| ParamTensor { name: name.into(), shape: shape.into() };
        let spec = ParamSpec {
            tensors: vec![tensor("l.0.w", &[2, 2]), tensor("l.1.w", &[2, 2]), tensor("l.1.b", &[2])],
        };
        let group = |range, rate, decays| Group { range, rate, decays };
        let of = |layer_decay, weight_decay_on| {
            groups(&spec, &[2, 0, 0], &Training { layer_decay, weight_decay_on, ..Training::default() })
        };
        assert_eq!(of(1.0, DecayOn::All), [group(0..10, 1.0, true)]);
        assert_eq!(of(1.0, DecayOn::Weights), [group(0..8, 1.0, true), group(8..10, 1.0, false)]);
        let apart = [group(0..4, 0.25, true), group(4..8, 1.0, true), group(8..10, 1.0, false)];
        assert_eq!(of(0.5, DecayOn::Weights), apart);
    }
}
