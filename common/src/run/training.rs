//! How a site trains: the table `[training]`, complete and checked. Names, definitions and defaults are PyTorch's.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::Augmentation;

/// How a site trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The optimizer; fresh in every round.
    pub optimizer: Optimizer,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled for AdamW, added to the gradient otherwise.
    pub weight_decay: f64,
    /// Which parameters it reaches.
    pub weight_decay_on: DecayOn,
    /// Examples per batch.
    pub batch_size: u32,
    /// Batches per step: their gradients are averaged.
    pub accumulation_steps: u32,
    /// How long a site trains in a round.
    pub local: LocalWork,
    /// How the learning rate moves over the rounds' steps.
    pub schedule: Schedule,
    /// Factor on the learning rate from each layer to the one below; 1 is one rate for all.
    pub layer_decay: f64,
    /// Clip each value of the gradient to plus or minus this.
    pub max_grad_value: Option<f64>,
    /// Clip the gradient to this L2 norm over all trained parameters.
    pub max_grad_norm: Option<f64>,
    /// What is minimised.
    pub loss: Loss,
    /// FedProx: half of this times the squared distance from the global parameters is added to the loss.
    pub proximal_mu: f64,
    /// Which examples a site sees how often.
    pub sampling: Sampling,
    /// A site trains on at most so many examples of each class, drawn once for the whole run.
    pub max_examples_per_class: Option<u32>,
    /// What is changed at random in an example each time it is trained on.
    pub augmentation: Option<Augmentation>,
    /// In which precision the large products are computed.
    pub precision: Precision,
    /// Whether a site gives up what makes its results differ from one time to the next: its GPU.
    pub deterministic: bool,
}

/// In which precision dense layers, convolutions and attention are computed; parameters are f32 always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single.
    #[default]
    F32,
    /// As PyTorch's autocast to `torch.bfloat16`.
    Bf16,
}

/// Which parameters weight decay reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecayOn {
    /// Tensors of two dimensions or more, not biases and norms: as Hugging Face's `Trainer` has it.
    Weights,
    /// All, as `torch.optim` does with what it is given.
    All,
}

/// How long a site trains in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LocalWork {
    /// Passes over the site's training data.
    Epochs(u32),
    /// Optimizer steps.
    Steps(u32),
}

/// An optimizer, with PyTorch's definitions and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd {
        /// Momentum in [0, 1).
        momentum: f64,
        /// Nesterov's variant.
        nesterov: bool,
    },
    /// Adam.
    Adam(AdamSpec),
    /// Adam with decoupled weight decay.
    AdamW(AdamSpec),
    /// RMSprop.
    RmsProp(RmsPropSpec),
    /// Adagrad.
    Adagrad(AdagradSpec),
}

/// Constants of Adam and AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdamSpec {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
}

/// Constants of RMSprop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RmsPropSpec {
    /// Decay of the mean square, in [0, 1).
    pub alpha: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// Momentum in [0, 1).
    pub momentum: f64,
    /// Whether the mean is taken off the mean square.
    pub centered: bool,
}

/// Constants of Adagrad.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdagradSpec {
    /// The rate is divided by 1 + this for each step of the round.
    pub lr_decay: f64,
    /// What the sum of squares begins at.
    pub initial_accumulator_value: f64,
    /// Added to the denominator.
    pub epsilon: f64,
}

/// How the learning rate moves over all steps of the run: a site's step `s` of round `r` (from 1) is step
/// `(r - 1) * steps_per_round + s` of `rounds * steps_per_round`; counted in rounds it is `r - 1` of `rounds`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its form after the warm-up.
    pub kind: ScheduleKind,
    /// What is counted.
    pub per: Per,
    /// Steps (or rounds) over which it rises linearly from 0 to the peak.
    pub warmup_steps: u32,
}

/// What a schedule counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// Optimizer steps.
    Step,
    /// Rounds: the rate stays the same within one.
    Round,
}

/// The form of a schedule after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum ScheduleKind {
    /// Stays at the peak.
    Constant,
    /// Falls linearly to 0 at the last step.
    Linear,
    /// Falls along half a cosine to 0 at the last step.
    Cosine,
    /// `OneCycleLR`: rises along half a cosine from peak / 25 over the first 30 %, then falls to peak / 250 000.
    OneCycle,
    /// `StepLR`: times `gamma` every `step_size`.
    Step {
        /// Steps (or rounds) between two drops.
        step_size: u32,
        /// Factor of a drop.
        gamma: f64,
    },
    /// `ExponentialLR`: times `gamma` every step (or round).
    Exponential {
        /// Factor.
        gamma: f64,
    },
    /// `PolynomialLR`: falls to 0 as this power of what is left of the steps.
    Polynomial {
        /// 1 is [`ScheduleKind::Linear`].
        power: f64,
    },
}

/// What is minimised: cross-entropy, and what changes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// This share of the target is spread over all classes, in [0, 1).
    pub label_smoothing: f64,
    /// Focal loss: an example counts (1 - p)^gamma, p being the probability of its label; 0 is plain cross-entropy.
    pub focal_gamma: f64,
    /// What an example of each class counts.
    pub class_weights: ClassWeights,
}

/// What an example of each class counts in the loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClassWeights {
    /// All the same.
    Equal,
    /// This, in the order of the run's labels.
    Given(Vec<f64>),
    /// `examples / (classes * examples of the class)`, by the site's own training examples.
    BalancedLocal,
}

/// Which examples a site sees how often in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Each once, in a fresh order.
    Shuffle,
    /// As many as there are, drawn with replacement so that every class is as likely
    /// (`WeightedRandomSampler`).
    Balanced,
}

/// `OneCycleLR`'s `pct_start`, `div_factor` and `final_div_factor`.
const CYCLE: (f64, f64, f64) = (0.3, 25.0, 1e4);

impl Schedule {
    /// The factor on the peak learning rate at `step` (from 0) of `total`.
    pub fn factor(&self, step: u64, total: u64) -> f64 {
        let warmup = u64::from(self.warmup_steps);
        if step < warmup {
            return (step + 1) as f64 / (warmup + 1) as f64;
        }
        let (step, total) = (step - warmup, total.saturating_sub(warmup).max(1));
        let progress = (step as f64 / total as f64).min(1.0);
        match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            ScheduleKind::Polynomial { power } => (1.0 - progress).powf(power),
            ScheduleKind::OneCycle => one_cycle(step as f64, total as f64),
            ScheduleKind::Step { step_size, gamma } => {
                gamma.powf((step / u64::from(step_size.max(1))) as f64)
            }
            ScheduleKind::Exponential { gamma } => gamma.powf(step as f64),
        }
    }
}

/// Two halves of a cosine, with PyTorch's ends: the first is `pct_start * total - 1` steps long, the second ends at
/// the last step.
fn one_cycle(step: f64, total: f64) -> f64 {
    let (pct_start, div_factor, final_div_factor) = CYCLE;
    let (low, last) = (1.0 / div_factor, 1.0 / div_factor / final_div_factor);
    let anneal = |from: f64, to: f64, share: f64| to + (from - to) / 2.0 * (1.0 + (PI * share).cos());
    let (top, end) = (pct_start * total - 1.0, total - 1.0);
    if step <= top {
        anneal(low, 1.0, step / top.max(f64::MIN_POSITIVE))
    } else {
        anneal(1.0, last, ((step - top) / (end - top).max(f64::MIN_POSITIVE)).min(1.0))
    }
}

impl Default for Training {
    /// What an empty table `[training]` says.
    fn default() -> Self {
        Self {
            optimizer: Optimizer::AdamW(AdamSpec { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }),
            learning_rate: 1e-3,
            weight_decay: 0.01,
            weight_decay_on: DecayOn::Weights,
            batch_size: 16,
            accumulation_steps: 1,
            local: LocalWork::Epochs(1),
            schedule: Schedule { kind: ScheduleKind::Constant, per: Per::Step, warmup_steps: 0 },
            layer_decay: 1.0,
            max_grad_value: None,
            max_grad_norm: None,
            loss: Loss::default(),
            proximal_mu: 0.0,
            sampling: Sampling::Shuffle,
            max_examples_per_class: None,
            augmentation: None,
            precision: Precision::F32,
            deterministic: false,
        }
    }
}

impl Default for Loss {
    fn default() -> Self {
        Self { label_smoothing: 0.0, focal_gamma: 0.0, class_weights: ClassWeights::Equal }
    }
}
