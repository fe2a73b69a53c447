//! Which tensors a model has.

use crate::params::ParamTensor;
use crate::run::RunSpec;

use super::config::ModelConfig;
use super::plan::PlanError;

/// All tensors of a run's model, trained or not, in the order of the model: embeddings, layers, pooler (only when
/// the run's pooling uses it), head.
pub fn tensors(_spec: &RunSpec, _config: Option<&ModelConfig>) -> Result<Vec<ParamTensor>, PlanError> {
    unimplemented!()
}
