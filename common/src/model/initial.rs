//! The values of the trained parameters before the first round.

use crate::params::ParamSpec;
use crate::run::RunSpec;

use super::config::ModelConfig;
use super::weights::{BadWeights, Weights};

/// Where a tensor's values come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// These bytes of the imported `model.safetensors`, as they are.
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

impl Distribution {
    /// The values of the tensor `name`, row-major, without end: take as many as the tensor has.
    pub fn values(self, _seed: u64, _name: &str) -> impl Iterator<Item = f32> + use<> {
        std::iter::empty()
    }
}

/// Where the values of each tensor of `params` come from, in its order.
pub fn initial(
    _spec: &RunSpec,
    _config: Option<&ModelConfig>,
    _weights: Option<&Weights>,
    _params: &ParamSpec,
) -> Result<Vec<Initial>, BadWeights> {
    unimplemented!()
}
