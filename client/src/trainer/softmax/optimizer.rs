//! Optimizers with PyTorch's definitions, in double precision. Weight decay leaves the bias alone
//! unless the run says otherwise, as in the libtorch trainer.

use sheaf_common::run::{AdagradSpec, AdamSpec, Optimizer as Kind, RmsPropSpec, Training};

/// An optimizer and its state: one per round.
pub(super) struct Optimizer {
    kind: Kind,
    weight_decay: f64,
    /// So many parameters from the first on decay.
    decaying: usize,
    max_grad_value: Option<f64>,
    max_grad_norm: Option<f64>,
    /// Steps done.
    steps: i32,
    /// Momentum buffer, or Adam's first moment.
    first: Vec<f64>,
    /// The mean (for Adagrad, the sum) of squares.
    second: Vec<f64>,
    /// The mean gradient of a centred RMSprop.
    mean: Vec<f64>,
}

impl Optimizer {
    /// An optimizer for `training` whose weight decay reaches the first `decaying` parameters.
    pub(super) fn new(training: &Training, decaying: usize) -> Self {
        Self {
            kind: training.optimizer,
            weight_decay: training.weight_decay,
            decaying,
            max_grad_value: training.max_grad_value,
            max_grad_norm: training.max_grad_norm,
            steps: 0,
            first: Vec::new(),
            second: Vec::new(),
            mean: Vec::new(),
        }
    }

    /// Moves `params` along `gradient`, which is used up.
    pub(super) fn step(&mut self, params: &mut [f64], gradient: &mut [f64], learning_rate: f64) {
        if let Some(limit) = self.max_grad_value {
            gradient.iter_mut().for_each(|slope| *slope = slope.clamp(-limit, limit));
        }
        if let Some(norm) = self.max_grad_norm {
            clip(gradient, norm);
        }
        self.steps = self.steps.saturating_add(1);
        match self.kind {
            Kind::Sgd { momentum, nesterov } => {
                self.add_decay(params, gradient);
                self.momentum(gradient, momentum, nesterov);
                for (param, direction) in params.iter_mut().zip(gradient) {
                    *param -= learning_rate * *direction;
                }
            }
            Kind::Adam(adam) => {
                self.add_decay(params, gradient);
                self.adam(params, gradient, adam, learning_rate);
            }
            Kind::AdamW(adam) => {
                for param in params.iter_mut().take(self.decaying) {
                    *param *= 1.0 - learning_rate * self.weight_decay;
                }
                self.adam(params, gradient, adam, learning_rate);
            }
            Kind::RmsProp(rms) => {
                self.add_decay(params, gradient);
                self.rms_prop(params, gradient, rms, learning_rate);
            }
            Kind::Adagrad(adagrad) => {
                self.add_decay(params, gradient);
                self.adagrad(params, gradient, adagrad, learning_rate);
            }
        }
    }

    fn add_decay(&self, params: &[f64], gradient: &mut [f64]) {
        for (slope, param) in gradient.iter_mut().zip(params).take(self.decaying) {
            *slope += self.weight_decay * param;
        }
    }

    /// Turns the gradient into the direction of SGD. The first buffer is the first gradient.
    fn momentum(&mut self, gradient: &mut [f64], momentum: f64, nesterov: bool) {
        if momentum == 0.0 {
            return;
        }
        self.first.resize(gradient.len(), 0.0);
        for (slope, buffer) in gradient.iter_mut().zip(&mut self.first) {
            *buffer = momentum * *buffer + *slope;
            *slope = if nesterov { *slope + momentum * *buffer } else { *buffer };
        }
    }

    fn adam(&mut self, params: &mut [f64], gradient: &[f64], adam: AdamSpec, learning_rate: f64) {
        let AdamSpec { beta1, beta2, epsilon } = adam;
        self.first.resize(gradient.len(), 0.0);
        self.second.resize(gradient.len(), 0.0);
        let rate = learning_rate / (1.0 - beta1.powi(self.steps));
        let scale = (1.0 - beta2.powi(self.steps)).sqrt();
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((param, slope), (first, second)) in params.iter_mut().zip(gradient).zip(moments) {
            *first = beta1 * *first + (1.0 - beta1) * slope;
            *second = beta2 * *second + (1.0 - beta2) * slope * slope;
            *param -= rate * *first / (second.sqrt() / scale + epsilon);
        }
    }
}

impl Optimizer {
    fn rms_prop(&mut self, params: &mut [f64], gradient: &[f64], rms: RmsPropSpec, learning_rate: f64) {
        for state in [&mut self.first, &mut self.second, &mut self.mean] {
            state.resize(gradient.len(), 0.0);
        }
        let state = self.first.iter_mut().zip(&mut self.second).zip(&mut self.mean);
        for ((param, slope), ((buffer, square), mean)) in params.iter_mut().zip(gradient).zip(state) {
            *square = rms.alpha * *square + (1.0 - rms.alpha) * slope * slope;
            *mean = rms.alpha * *mean + (1.0 - rms.alpha) * slope;
            let spread = if rms.centered { (*square - *mean * *mean).max(0.0) } else { *square };
            *buffer = rms.momentum * *buffer + slope / (spread.sqrt() + rms.epsilon);
            *param -= learning_rate * *buffer;
        }
    }

    fn adagrad(&mut self, params: &mut [f64], gradient: &[f64], adagrad: AdagradSpec, learning_rate: f64) {
        self.second.resize(gradient.len(), adagrad.initial_accumulator_value);
        let rate = learning_rate / (1.0 + f64::from(self.steps - 1) * adagrad.lr_decay);
        for ((param, slope), sum) in params.iter_mut().zip(gradient).zip(&mut self.second) {
            *sum += slope * slope;
            *param -= rate * slope / (sum.sqrt() + adagrad.epsilon);
        }
    }
}

/// Scales the gradient down to the L2 norm `limit` if it is longer, as `clip_grad_norm_` does.
fn clip(gradient: &mut [f64], limit: f64) {
    let norm = gradient.iter().map(|slope| slope * slope).sum::<f64>().sqrt();
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        gradient.iter_mut().for_each(|slope| *slope *= factor);
    }
}
