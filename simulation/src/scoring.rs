//! The global model on the common test set: centralized evaluation, which only a simulation can do.

use std::sync::Arc;

use sheaf_client::data::Split;
use sheaf_client::device::DeviceChoice;
use sheaf_client::trainer::open::{self, OpenError};
use sheaf_client::trainer::{TrainError, Trainer, Unwatched};
use sheaf_common::message::Job;
use sheaf_common::metrics::Kind;
use sheaf_common::params::{ParamSpec, from_bytes};

use crate::client;
use crate::data::Examples;
use crate::rounds::{Score, score};

/// Whose random choices the test set's trainer would make, if it made any.
const NAME: &str = "test";

/// The model could not be tested.
#[derive(Debug, thiserror::Error)]
pub enum ScoringError {
    /// The trainer cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It does not evaluate.
    #[error(transparent)]
    Train(#[from] TrainError),
}

/// Evaluates models on the test set, with one trainer for all of them.
pub struct Scorer {
    examples: Arc<Examples>,
    device: DeviceChoice,
    /// The parameters that it takes, and the trainer.
    open: Option<(ParamSpec, Box<dyn Trainer>)>,
}

impl Scorer {
    /// With the test set of these examples, if they have one.
    pub fn new(examples: Arc<Examples>, device: DeviceChoice) -> Option<Self> {
        examples.test()?;
        Some(Self { examples, device, open: None })
    }

    /// The metrics of the model with these parameters (little-endian f32), which are those of `job`.
    pub fn score(&mut self, job: &Job, params: &[u8]) -> Result<Option<Score>, ScoringError> {
        let fits = self.open.as_ref().is_some_and(|(of, _)| *of == job.params);
        if !fits {
            let Some(test) = self.examples.test() else { return Ok(None) };
            let split = Split { train: test.empty_like(), validation: test.clone() };
            let model_dir = self.examples.model_dir();
            let trainer = open::on_split(job, model_dir, split, NAME, self.device, &client::policy())?;
            self.open = Some((job.params.clone(), trainer));
        }
        let Some((_, trainer)) = &mut self.open else { return Ok(None) };
        let counts = trainer.evaluate(&from_bytes(params), &Unwatched)?;
        Ok(counts.map(|counts| score(&counts.report(&Kind::of(&job.spec)))))
    }
}
