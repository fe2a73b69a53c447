//! What is minimised, as PyTorch and torchvision define it: cross-entropy (smoothed, weighted by class, or focal) of one
//! label or of tokens, binary cross-entropy of any number of labels, or the squared error of a number.

use sheaf_common::run::{ClassWeights, Loss as Spec};
use tch::{Device, Kind, Reduction, TchError, Tensor};

use super::augment::Mix;
use crate::data::Targets;

/// The loss of a run at a site.
pub(super) enum Loss {
    /// Of one label.
    CrossEntropy(CrossEntropy),
    /// Of any number of labels: the mean over the labels (`BCEWithLogitsLoss`).
    Binary,
    /// Of a number (`MSELoss`).
    Squared,
    /// Of the tokens that a language model foretells: the mean over all of them, as in Hugging Face's models.
    Tokens,
}

/// Cross-entropy and what changes it.
pub(super) struct CrossEntropy {
    smoothing: f64,
    focal_gamma: f64,
    /// What an example of each class counts; `None` when all count the same.
    weights: Option<Vec<f32>>,
    /// The same on the device, `[labels]`.
    on_device: Option<Tensor>,
}

impl Loss {
    /// The loss of `spec` at a site that trains on `targets`, of which labels are among `num_labels`.
    pub(super) fn new(
        spec: &Spec,
        num_labels: usize,
        targets: &Targets,
        device: Device,
    ) -> Result<Self, TchError> {
        Ok(match targets {
            Targets::Label(labels) => {
                Self::CrossEntropy(CrossEntropy::new(spec, num_labels, labels, device)?)
            }
            Targets::Labels { .. } => Self::Binary,
            Targets::Number(_) | Targets::Answer(_) | Targets::Inputs(_) => Self::Squared,
            Targets::Tokens(_) => Self::Tokens,
        })
    }

    /// What these examples count together. [`Loss::sum`] divided by it is the mean that PyTorch's losses give.
    pub(super) fn weight(&self, targets: &Targets, examples: &[usize]) -> f64 {
        match (self, targets) {
            (Self::CrossEntropy(loss), Targets::Label(labels)) => {
                loss.weight(examples.iter().map(|example| labels[*example]))
            }
            (_, Targets::Tokens(tokens)) => {
                examples.iter().map(|example| tokens.count(*example)).sum::<usize>() as f64
            }
            _ => examples.len() as f64,
        }
    }

    /// [`Loss::sum`] of examples that are mixed in pairs: of what the one has and of what its partner has, in their shares.
    /// Where a number is learned this is more than the squared error from the mixed number, by what does not depend on the
    /// model. Its weight is that of the examples: each is a partner once.
    pub(super) fn sum_of_pairs(
        &self,
        logits: &Tensor,
        targets: &Targets,
        examples: &[usize],
        mix: &Mix,
    ) -> Result<Tensor, TchError> {
        let partners: Vec<usize> = mix.partners.iter().map(|place| examples[*place]).collect();
        let own = self.sum(logits, targets, examples)?.f_mul_scalar(mix.share)?;
        own.f_add(&self.sum(logits, targets, &partners)?.f_mul_scalar(1.0 - mix.share)?)
    }

    /// The sum over these examples, whose `logits` are `[rows, outputs]`; a scalar.
    pub(super) fn sum(
        &self,
        logits: &Tensor,
        targets: &Targets,
        examples: &[usize],
    ) -> Result<Tensor, TchError> {
        let on_device = |tensor: Tensor| tensor.f_to(logits.device());
        match (self, targets) {
            (Self::CrossEntropy(loss), Targets::Label(labels)) => {
                let labels: Vec<i64> = examples.iter().map(|example| i64::from(labels[*example])).collect();
                loss.sum(logits, &on_device(Tensor::f_from_slice(&labels)?)?)
            }
            (_, Targets::Labels { width, .. }) => {
                let Targets::Labels { values, .. } = targets.select(examples) else { return no_targets() };
                let values: Vec<f32> = values.into_iter().map(|has| f32::from(u8::from(has))).collect();
                let values = on_device(Tensor::f_from_slice(&values)?)?.f_view_as(logits)?;
                let none = None::<&Tensor>;
                let sum = logits.f_binary_cross_entropy_with_logits(&values, none, none, Reduction::Sum)?;
                sum.f_div_scalar(*width as f64)
            }
            (_, Targets::Number(_)) => {
                let Targets::Number(values) = targets.select(examples) else { return no_targets() };
                let values = on_device(Tensor::f_from_slice(&values)?)?.f_view_as(logits)?;
                logits.f_mse_loss(&values, Reduction::Sum)
            }
            (_, Targets::Tokens(tokens)) => {
                let tokens = on_device(Tensor::f_from_slice(&tokens.of(examples)?)?)?;
                logits.f_cross_entropy_loss(&tokens, None::<&Tensor>, Reduction::Sum, -100, 0.0)
            }
            (_, Targets::Label(_) | Targets::Answer(_) | Targets::Inputs(_)) => no_targets(),
        }
    }
}

fn no_targets<T>() -> Result<T, TchError> {
    Err(TchError::Torch("the examples have no targets of the run's kind".into()))
}

impl CrossEntropy {
    fn new(spec: &Spec, num_labels: usize, labels: &[u32], device: Device) -> Result<Self, TchError> {
        let weights = match &spec.class_weights {
            ClassWeights::Equal => None,
            ClassWeights::Given(weights) => Some(weights.iter().map(|weight| *weight as f32).collect()),
            ClassWeights::BalancedLocal => Some(balanced(num_labels, labels)),
        };
        let copy = |weights: &Vec<f32>| Tensor::f_from_slice(weights)?.f_to(device);
        let on_device = weights.as_ref().map(copy).transpose()?;
        Ok(Self { smoothing: spec.label_smoothing, focal_gamma: spec.focal_gamma, weights, on_device })
    }

    fn weight(&self, labels: impl ExactSizeIterator<Item = u32>) -> f64 {
        match &self.weights {
            None => labels.len() as f64,
            Some(weights) => labels.map(|label| f64::from(weights[label as usize])).sum(),
        }
    }

    fn sum(&self, logits: &Tensor, labels: &Tensor) -> Result<Tensor, TchError> {
        let weights = self.on_device.as_ref();
        if self.focal_gamma == 0.0 {
            // -100 is the label that PyTorch leaves out; no example has it.
            return logits.f_cross_entropy_loss(labels, weights, Reduction::Sum, -100, self.smoothing);
        }
        let log_p = logits.f_log_softmax(-1, None::<Kind>)?;
        let log_p = log_p.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?;
        // (1 - p)^gamma, without the infinite slope that a power has at 0.
        let miss = log_p.f_exp()?.f_neg()?.f_add_scalar(1.0)?.f_clamp_min(1e-7)?;
        let each = log_p.f_neg()?.f_mul(&miss.f_pow_tensor_scalar(self.focal_gamma)?)?;
        match weights {
            None => each.f_sum(None::<Kind>),
            Some(weights) => each.f_mul(&weights.f_index_select(0, labels)?)?.f_sum(None::<Kind>),
        }
    }
}

/// scikit-learn's `balanced`: `examples / (classes * examples of the class)`; 1 for a class without any.
fn balanced(num_labels: usize, labels: &[u32]) -> Vec<f32> {
    let mut counts = vec![0usize; num_labels];
    for label in labels {
        if let Some(count) = counts.get_mut(*label as usize) {
            *count += 1;
        }
    }
    let weight = |count: &usize| {
        if *count == 0 { 1.0 } else { labels.len() as f32 / (num_labels * count) as f32 }
    };
    counts.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(spec: Spec) -> f64 {
        let labels = [0, 2, 2, 1, 2];
        let logits: Vec<f32> = (0..15).map(|at| ((at * 7 % 11) as f32 - 5.0) / 2.0).collect();
        let logits = Tensor::from_slice(&logits).view([5, 3]);
        mean(&spec, 3, &Targets::Label(labels.to_vec()), &logits)
    }

    fn mean(spec: &Spec, num_labels: usize, targets: &Targets, logits: &Tensor) -> f64 {
        let loss = Loss::new(spec, num_labels, targets, Device::Cpu).unwrap();
        let examples: Vec<usize> = (0..targets.len()).collect();
        let sum = loss.sum(logits, targets, &examples).unwrap().double_value(&[]);
        sum / loss.weight(targets, &examples)
    }

    /// The definition, in f64: `sum_i w_y (1 - p_y)^gamma * -log p_y / sum_i w_y`, with a smoothed target when asked.
    fn plain(weights: [f64; 3], gamma: f64, smoothing: f64) -> f64 {
        let labels = [0usize, 2, 2, 1, 2];
        let (mut sum, mut weight) = (0.0, 0.0);
        for (row, label) in labels.iter().enumerate() {
            let logits: Vec<f64> =
                (0..3).map(|at| (f64::from((row * 3 + at) as u32 * 7 % 11) - 5.0) / 2.0).collect();
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            let log_p: Vec<f64> = logits.iter().map(|logit| logit - total.ln()).collect();
            let hard = weights[*label] * (1.0 - log_p[*label].exp()).powf(gamma) * -log_p[*label];
            let soft: f64 = log_p.iter().zip(weights).map(|(log_p, weight)| -log_p * weight / 3.0).sum();
            sum += (1.0 - smoothing) * hard + smoothing * soft;
            weight += weights[*label];
        }
        sum / weight
    }

    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[test]
    fn each_loss_is_its_definition() {
        let equal = || Spec::default();
        let given = || ClassWeights::Given(vec![0.5, 2.0, 1.5]);
        assert_near(loss(equal()), plain([1.0; 3], 0.0, 0.0));
        assert_near(loss(Spec { label_smoothing: 0.1, ..equal() }), plain([1.0; 3], 0.0, 0.1));
        assert_near(loss(Spec { class_weights: given(), ..equal() }), plain([0.5, 2.0, 1.5], 0.0, 0.0));
        let both = Spec { class_weights: given(), label_smoothing: 0.2, ..equal() };
        assert_near(loss(both), plain([0.5, 2.0, 1.5], 0.0, 0.2));
        assert_near(loss(Spec { focal_gamma: 2.0, ..equal() }), plain([1.0; 3], 2.0, 0.0));
        let focal = Spec { focal_gamma: 1.5, class_weights: given(), ..equal() };
        assert_near(loss(focal), plain([0.5, 2.0, 1.5], 1.5, 0.0));
        // Five examples of three classes: 1, 1 and 3 of them.
        let balanced = Spec { class_weights: ClassWeights::BalancedLocal, ..equal() };
        assert_near(loss(balanced), plain([5.0 / 3.0, 5.0 / 3.0, 5.0 / 9.0], 0.0, 0.0));
    }

    #[test]
    fn a_focal_loss_has_a_slope_where_the_model_is_certain() {
        let logits = Tensor::from_slice(&[60.0f32, 0.0]).view([1, 2]).set_requires_grad(true);
        let spec = Spec { focal_gamma: 0.5, ..Spec::default() };
        let targets = Targets::Label(vec![0]);
        let loss = Loss::new(&spec, 2, &targets, Device::Cpu).unwrap();
        loss.sum(&logits, &targets, &[0]).unwrap().backward();
        assert!(logits.grad().isfinite().all().int64_value(&[]) == 1);
    }

    #[test]
    fn labels_and_numbers_have_the_mean_that_pytorch_gives() {
        let logits = [0.5f32, -1.0, 2.0, 0.0];
        let softplus = |z: f32| f64::from(z).exp().ln_1p();
        let values = vec![true, false, false, true];
        let each = logits.iter().zip(&values).map(|(z, has)| softplus(if *has { -z } else { *z }));
        let binary = each.sum::<f64>() / 4.0;
        let labels = Targets::Labels { width: 2, values };
        assert_near(mean(&Spec::default(), 2, &labels, &Tensor::from_slice(&logits).view([2, 2])), binary);

        let numbers = Targets::Number(vec![1.0, 0.0, 2.0, -1.0]);
        let squared = (0.25 + 1.0 + 0.0 + 1.0) / 4.0;
        assert_near(mean(&Spec::default(), 0, &numbers, &Tensor::from_slice(&logits).view([4, 1])), squared);
    }
}
