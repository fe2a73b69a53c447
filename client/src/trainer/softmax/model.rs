//! `softmax(weight * x + bias)`: its outputs, its loss and the loss's gradient, in double precision.
//!
//! Parameters are one flat vector: `weight` `[labels, inputs]`, row-major, then `bias` `[labels]`.

/// The model's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    /// Inputs per example.
    pub(super) inputs: usize,
    /// Outputs.
    pub(super) labels: usize,
}

impl Model {
    /// Number of values in `weight`.
    pub(super) fn num_weights(&self) -> usize {
        self.labels * self.inputs
    }

    /// Number of parameters.
    pub(super) fn numel(&self) -> usize {
        self.num_weights() + self.labels
    }

    /// One output per label, before softmax.
    pub(super) fn logits(&self, params: &[f64], row: &[f32]) -> impl Iterator<Item = f64> {
        let (weight, bias) = params.split_at(self.num_weights());
        (0..self.labels).map(move |label| {
            let weights = &weight[label * self.inputs..(label + 1) * self.inputs];
            bias[label] + weights.iter().zip(row).map(|(w, x)| w * f64::from(*x)).sum::<f64>()
        })
    }

    /// The mean cross-entropy over `examples` (rows and labels) in nats; its gradient is added to `gradient`.
    pub(super) fn loss_and_gradient<'a>(
        &self,
        params: &[f64],
        examples: impl ExactSizeIterator<Item = (&'a [f32], usize)>,
        gradient: &mut [f64],
    ) -> f64 {
        let share = 1.0 / examples.len().max(1) as f64;
        let (weight_gradient, bias_gradient) = gradient.split_at_mut(self.num_weights());
        let mut loss = 0.0;
        for (row, label) in examples {
            let logits: Vec<f64> = self.logits(params, row).collect();
            let normalizer = log_sum_exp(&logits);
            loss += share * (normalizer - logits[label]);
            for (output, logit) in logits.iter().enumerate() {
                let target = if output == label { 1.0 } else { 0.0 };
                let error = share * ((logit - normalizer).exp() - target);
                bias_gradient[output] += error;
                let weights = &mut weight_gradient[output * self.inputs..(output + 1) * self.inputs];
                for (slope, x) in weights.iter_mut().zip(row) {
                    *slope += error * f64::from(*x);
                }
            }
        }
        loss
    }
}

fn log_sum_exp(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + values.iter().map(|value| (value - most).exp()).sum::<f64>().ln()
}
