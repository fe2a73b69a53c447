//! Which tensors of a model a run trains: those that travel, in one order on which server and site agree.

use crate::config::Invalid;
use crate::params::ParamSpec;
use crate::run::RunSpec;

use super::config::ModelConfig;

/// A run does not fit its model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct PlanError {
    key: &'static str,
    problem: String,
}

impl PlanError {
    /// The error as a wrong value in `run.toml`, to be located there.
    pub fn invalid(&self) -> Invalid {
        Invalid::new(self.key, self.problem.clone())
    }
}

/// The tensors that travel. `config` is the imported model's, `None` for a fresh one.
pub fn plan(_spec: &RunSpec, _config: Option<&ModelConfig>) -> Result<ParamSpec, PlanError> {
    unimplemented!()
}
