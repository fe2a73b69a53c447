//! The values of the trained parameters before the first round: from the imported weights, or from the run's
//! seed. Neither needs more memory than a chunk of them.

use rand::Rng;

use crate::params::{ParamSpec, ParamTensor};
use crate::run::{Architecture, ModelSource, RunSpec};
use crate::seed;

use super::config::ModelConfig;
use super::lora;
use super::plan::{PlanError, blocks};
use super::tensors::Blocks;
use super::weights::{BadWeights, Weights};

/// Standard deviation of a fresh classifier, as in Hugging Face's encoders (`initializer_range`).
const CLASSIFIER_STD: f64 = 0.02;

/// Where a tensor's values come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// These bytes of the imported `model.safetensors`, as they are: they are laid out as in a blob of
    /// parameters.
    FromWeights {
        /// Where they start in the file.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// Drawn from the run's seed.
    Fresh(Distribution),
}

/// How fresh values are distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// All 0.
    Zeros,
    /// Uniform in `[-bound, bound)`.
    Uniform {
        /// Half the width.
        bound: f64,
    },
    /// Normal around 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

/// A run's parameters cannot be given their first values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitialError {
    /// The run does not fit its model.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The imported weights lack something that the run needs.
    #[error(transparent)]
    Weights(#[from] BadWeights),
    /// A tensor starts from the seed and would stay as it is.
    #[error(
        "`{0}` is new, since the imported model has other labels or none, and must be trained: have model.trainable \
         name it too"
    )]
    Untrained(String),
}

impl Distribution {
    /// The values of the tensor `name`, row-major, without end: take as many as the tensor has. Each tensor
    /// has a stream of its own, so that its values depend on nothing but `seed` and `name`.
    pub fn values(self, seed: u64, name: &str) -> impl Iterator<Item = f32> + use<> {
        let mut random = seed::stream(seed, &["initial", name]);
        std::iter::repeat_with(move || match self {
            Self::Zeros => 0.0,
            Self::Uniform { bound } => (bound * (2.0 * unit(&mut random) - 1.0)) as f32,
            Self::Normal { std } => (std * standard_normal(&mut random)) as f32,
        })
    }
}

/// Uniform in [0, 1), in steps of 2^-53.
fn unit(random: &mut impl Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Box and Muller's transform, of which one of the two values is used.
fn standard_normal(random: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - unit(random)).ln()).sqrt();
    radius * (std::f64::consts::TAU * unit(random)).cos()
}

/// Where the values of each tensor of `params` come from, in its order; `params` is what
/// [`plan`](super::plan()) gave for the same run. Frozen tensors are checked too, so that a run that is
/// queued finds all it needs.
///
/// The head comes from the imported weights only if they name the run's labels in the run's order; any other
/// head would mean something else, so a fresh one takes its place.
pub fn initial(
    spec: &RunSpec,
    config: Option<&ModelConfig>,
    weights: Option<&Weights>,
    params: &ParamSpec,
) -> Result<Vec<Initial>, InitialError> {
    let blocks = blocks(spec, config)?;
    let source = match (&spec.model.source, config, weights) {
        (ModelSource::Imported(_), Some(config), Some(weights)) => {
            Source::Imported { weights, head: imported_head(spec, config, weights, &blocks) }
        }
        (ModelSource::Imported(name), ..) => return Err(PlanError::NoModel(name.clone()).into()),
        (ModelSource::Fresh(architecture), ..) => Source::Fresh(architecture),
    };
    for tensor in blocks.all() {
        if matches!(source.of(tensor, &blocks)?, Initial::Fresh(_)) && !params.tensors.contains(tensor) {
            return Err(InitialError::Untrained(tensor.name.clone()));
        }
    }
    let of = |tensor: &ParamTensor| match lora::is_a(&tensor.name) {
        // As PEFT starts them: the product is 0, so that the model begins as it is.
        Some(true) => Ok(Initial::Fresh(Distribution::Uniform { bound: 1.0 / inputs_of(tensor).sqrt() })),
        Some(false) => Ok(Initial::Fresh(Distribution::Zeros)),
        None => Ok(source.of(tensor, &blocks)?),
    };
    params.tensors.iter().map(of).collect()
}

fn inputs_of(weight: &ParamTensor) -> f64 {
    weight.shape.last().copied().unwrap_or(1).max(1) as f64
}

/// Whether the weights bring a head for the run's labels. A language model's is always theirs.
fn imported_head(spec: &RunSpec, config: &ModelConfig, weights: &Weights, blocks: &Blocks) -> bool {
    config.is_decoder()
        || config.has_head_for(&spec.task)
            && blocks.head.iter().all(|tensor| weights.require(&tensor.name, &tensor.shape).is_ok())
}

/// Where a run's tensors come from.
enum Source<'a> {
    Fresh(&'a Architecture),
    Imported { weights: &'a Weights, head: bool },
}

impl Source<'_> {
    fn of(&self, tensor: &ParamTensor, blocks: &Blocks) -> Result<Initial, BadWeights> {
        match self {
            Self::Fresh(Architecture::Mlp(_)) => Ok(Initial::Fresh(linear(tensor, blocks))),
            Self::Fresh(Architecture::Softmax | Architecture::Constant(_)) => {
                Ok(Initial::Fresh(Distribution::Zeros))
            }
            Self::Imported { head: false, .. } if blocks.head.contains(tensor) => {
                Ok(Initial::Fresh(head(tensor, blocks)))
            }
            Self::Imported { weights, .. } => {
                let stored = weights.require(&tensor.name, &tensor.shape)?;
                Ok(Initial::FromWeights { offset: stored.offset, bytes: stored.bytes })
            }
        }
    }
}

/// A fresh head of an imported model: as Hugging Face starts a classifier, or as PyTorch starts a linear
/// layer.
fn head(tensor: &ParamTensor, blocks: &Blocks) -> Distribution {
    let is_classifier = ["classifier.", "pre_classifier."].iter().any(|part| tensor.name.starts_with(part));
    match (is_classifier, tensor.name.ends_with(".bias")) {
        (true, false) => Distribution::Normal { std: CLASSIFIER_STD },
        (true, true) => Distribution::Zeros,
        (false, _) => linear(tensor, blocks),
    }
}

/// PyTorch's `nn.Linear`: weight and bias uniform in plus or minus one over the root of the number of inputs.
fn linear(tensor: &ParamTensor, blocks: &Blocks) -> Distribution {
    let weight_name = match tensor.name.strip_suffix(".bias") {
        Some(layer) => format!("{layer}.weight"),
        None => tensor.name.clone(),
    };
    let weight = blocks.all().find(|weight| weight.name == weight_name);
    Distribution::Uniform { bound: 1.0 / weight.map_or(1.0, inputs_of).sqrt() }
}
