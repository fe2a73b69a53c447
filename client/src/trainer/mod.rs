//! The seam between a site's session and whatever trains: blocking, and no tensor type crosses it.
//!
//! A trainer holds one run's model and one site's data, from the run's first task to its last, so that what can
//! be computed once (tokens, the output of frozen layers) is computed once.

pub(crate) mod batches;
pub mod constant;
pub mod open;
pub mod softmax;
pub mod torch;

use std::collections::BTreeMap;

use sheaf_common::blob::BlobId;
use sheaf_common::metrics::Counts;
use sheaf_common::status::Progress;

/// Where a task is within its run: fixes the learning rate and the order of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// The round, from 1.
    pub number: u32,
    /// Rounds of the run.
    pub of: u32,
}

/// What a site keeps to itself of what training changes, by name: running statistics of batch normalisation, when the run
/// says that they stay local.
pub type Local = BTreeMap<String, Vec<f32>>;

/// What training gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The trained parameters, in the order of the job's `ParamSpec`.
    pub params: Vec<f32>,
    /// Mean loss per example over the last epoch (over all steps when there is less than one epoch), in nats.
    pub train_loss: f64,
}

/// Training or evaluating did not work.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The task was called off.
    #[error("the task was called off")]
    Cancelled,
    /// The loss left the finite numbers.
    #[error(
        "the loss became {loss} at step {step} of round {round}: lower training.learning_rate or set max_grad_norm"
    )]
    Diverged {
        /// The loss.
        loss: f64,
        /// The step, from 1.
        step: u64,
        /// The round.
        round: u32,
    },
    /// The model is a program that the site does not run.
    #[error(
        "this site runs no TorchScript module that it does not know: when somebody there trusts what it does, they add \
         \"{0}\" to policy.torchscript in its site.toml"
    )]
    Unlisted(BlobId),
    /// Everything else, as a sentence.
    #[error("{0}")]
    Failed(String),
}

impl TrainError {
    /// One sentence for the operator, without a path of the site's or a value of its data.
    pub fn for_operator(&self) -> String {
        match self {
            Self::Cancelled | Self::Diverged { .. } | Self::Unlisted(_) => self.to_string(),
            Self::Failed(_) => "the site could not train; its log says why".to_owned(),
        }
    }
}

/// The site's examples are kept in a file, which cannot be read or written.
impl From<std::io::Error> for TrainError {
    fn from(reason: std::io::Error) -> Self {
        Self::Failed(format!("what the site keeps of its examples on disk cannot be used: {reason}"))
    }
}

/// Whoever waits for the trainer: is told how far it is and may call it off.
pub trait Watch {
    /// So much is done; nobody here knows how long the rest will take.
    fn progress(&self, progress: Progress);
    /// Whether to give up at the next step.
    fn is_cancelled(&self) -> bool;
}

/// Nobody waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn progress(&self, _progress: Progress) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Trains and evaluates one run's model on one site's data.
pub trait Trainer: Send {
    /// Examples that it trains on: the site's weight in the mean.
    fn num_examples(&self) -> u64;

    /// Trains from the global parameters `params`. Same seed, machine, round and parameters: same bits.
    fn train(&mut self, params: Vec<f32>, round: Round, watch: &dyn Watch) -> Result<Trained, TrainError>;

    /// The model with `params` on the site's validation split; `None` when it has none.
    fn evaluate(&mut self, params: &[f32], watch: &dyn Watch) -> Result<Option<Counts>, TrainError>;

    /// What the site keeps to itself, as the last training left it.
    fn local(&self) -> Result<Local, TrainError> {
        Ok(Local::new())
    }

    /// Goes on with what the site has kept to itself; what is not there begins as in the imported model.
    fn set_local(&mut self, _kept: &Local) -> Result<(), TrainError> {
        Ok(())
    }
}
