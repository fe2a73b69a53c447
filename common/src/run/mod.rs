//! A run as the data scientist asked for it: the typed form of `run.toml`, complete and checked.
//!
//! [`file`] holds the written form. The typed form travels to the sites inside every task, so that a site knows
//! everything about what it is asked to do, and nothing in it is code.

mod augmentation;
mod file;
mod task;
#[cfg(test)]
mod tests;
pub(crate) mod trainable;
mod training;
mod validation;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::compression::Compression;
use crate::config::{self, ConfigError, Invalid};
use crate::id::{ClientId, Name};

pub use augmentation::Augmentation;
pub use task::{Feature, FeatureKind, NumberTarget, Target, Task, TaskInput};
pub use trainable::{BadPattern, Trainable};
pub use training::{
    AdagradSpec, AdamSpec, ClassWeights, DecayOn, LocalWork, Loss, Optimizer, Per, Precision, RmsPropSpec,
    Sampling, Schedule, ScheduleKind, Training,
};
pub use validation::{Best, Fold, HeldOut, Monitor, Validation};

/// Everything that a run is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Name, from which the `RunId` is made.
    pub name: Name,
    /// What it is for, in the words that sites know it by.
    pub purpose: Option<String>,
    /// Rounds to complete; none is a [survey](Self::parse_survey).
    pub rounds: u32,
    /// Seed of everything random in the run.
    pub seed: u64,
    /// Whether the server may see single updates.
    pub secure_aggregation: SecureAggregation,
    /// The model and which part of it is trained.
    pub model: ModelSpec,
    /// What is learned from which columns: the contract that a site's data must meet.
    pub task: Task,
    /// How a site trains.
    pub training: Training,
    /// What is done with validation metrics.
    pub validation: Validation,
    /// Which sites take part and when a round is over.
    pub cohort: CohortSpec,
    /// What the server does with the mean of the updates.
    pub server: ServerSpec,
    /// How updates travel.
    pub compression: Compression,
}

/// Whether updates are encrypted so that the server learns only their sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecureAggregation {
    /// The server sees each site's update. Must be written out.
    Off,
    /// The server sees the sum over at least `min_updates` sites, and nothing else.
    Required(SecAggSpec),
}

/// How updates are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecAggSpec {
    /// Bits of a value of an update.
    pub quantization_bits: u8,
    /// In the first round a value beyond plus or minus this is clamped; later ranges follow the updates.
    pub clipping_range: f32,
    /// So many sites may collude with the server without learning more than the sum; a third when not given.
    pub max_colluding: Option<u32>,
    /// How long a stage of the exchange waits for a site.
    pub stage_timeout: Duration,
    /// Who shares masks with whom.
    pub graph: GraphKind,
    /// Whether keys are agreed on by ML-KEM-768 beside X25519, so that what is recorded today stays closed to a
    /// quantum computer.
    pub post_quantum: bool,
}

/// Who shares masks with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphKind {
    /// Every site with every other: holds against a server that lies.
    Complete,
    /// Every site with a few: for large cohorts and a server that is curious but follows the protocol.
    Regular,
}

impl std::fmt::Display for SecureAggregation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Required(SecAggSpec { graph: GraphKind::Complete, .. }) => "required",
            Self::Required(SecAggSpec { graph: GraphKind::Regular, .. }) => {
                "required (regular graph: against a semi-honest server)"
            }
        })
    }
}

/// The model of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Where its weights come from.
    pub source: ModelSource,
    /// Which of its parameters are trained and travel, from the first round on; with `lora`, in which layers the
    /// adapters are.
    pub trainable: Trainable,
    /// Gradual unfreezing: what is trained from each of these rounds on, above 1. Always more than before.
    pub unfreeze: BTreeMap<u32, Trainable>,
    /// Low-rank adapters are trained in place of the layers' own parameters.
    pub lora: Option<Lora>,
    /// How a text encoder's token vectors become one vector.
    pub pooling: Pooling,
    /// Dropout probability while training, in [0, 1).
    pub dropout: f64,
    /// What becomes of the running statistics of batch normalisation in the layers that are trained.
    pub batch_norm: BatchNorm,
}

impl ModelSpec {
    /// What is trained, in words.
    pub fn trained(&self) -> String {
        let later = self.unfreeze.iter().map(|(round, part)| format!(", from round {round} {part}"));
        let counted = match self.batch_norm {
            BatchNorm::Frozen => "",
            BatchNorm::Averaged => "; batch normalisation averaged",
            BatchNorm::Local => "; batch normalisation local to each site",
        };
        std::iter::once(self.trainable.to_string()).chain(later).chain([counted.to_owned()]).collect()
    }
}

/// Where a model's weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelSource {
    /// A pretrained model imported with `sheaf model import`, by its name at the server.
    Imported(String),
    /// A model that starts from the run's seed.
    Fresh(Architecture),
}

/// A model small enough to be described in `run.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// A multi-layer perceptron with ReLU; the widths of its hidden layers.
    Mlp(Vec<u64>),
    /// Softmax regression in plain Rust, without libtorch.
    Softmax,
    /// No model: a vector of so many values, to each of which a site adds a constant. Measures everything but training.
    Constant(u64),
}

/// Low-rank adapters (Hu et al. 2021): a dense layer's weight `W` acts as `W + alpha / rank * B A`, of which `A` and
/// `B` are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lora {
    /// Rows of `A`, columns of `B`.
    pub rank: u32,
    /// Scale, divided by the rank.
    pub alpha: f64,
    /// The dense layers that get one, by the last part of their names; when there are none, those that PEFT takes for
    /// the model.
    pub targets: Vec<String>,
    /// Probability with which a value that goes into an adapter is dropped while training, in [0, 1).
    pub dropout: f64,
    /// Which biases are trained beside the adapters.
    pub bias: LoraBias,
}

/// Which biases are trained beside the adapters, in PEFT's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoraBias {
    /// None.
    #[default]
    None,
    /// Those of all that `trainable` speaks of, normalisations among them.
    All,
    /// Those of the layers that have an adapter.
    LoraOnly,
}

impl LoraBias {
    /// Its name in `run.toml` and in PEFT.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::All => "all",
            Self::LoraOnly => "lora_only",
        }
    }
}

/// How token vectors become one vector for the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean over the tokens that are not padding.
    Mean,
    /// The first token, as the family's `ForSequenceClassification` in Hugging Face's transformers takes it to the
    /// classifier: BERT through its pooler, others through a dense layer of the head.
    Cls,
}

/// What batch normalisation does in the layers that are trained: by what it normalises in training, and what becomes of the
/// means and variances that it counts there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchNorm {
    /// It normalises by the pretrained model's, which stay as they are.
    #[default]
    Frozen,
    /// It normalises by the batch and counts; what is counted travels and is averaged like parameters.
    Averaged,
    /// It normalises by the batch and counts; every site keeps what it has counted (FedBN, Li et al. 2021; SiloBN, Andreux
    /// et al. 2020).
    Local,
}

/// Which sites take part and when a round is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CohortSpec {
    /// The sites that may take part; `None` is every site of the federation.
    pub sites: Option<Vec<ClientId>>,
    /// How many of those that are connected train in a round.
    pub selection: Selection,
    /// A round starts when so many of them are connected.
    pub min_sites: u32,
    /// A round counts with at least so many updates.
    pub min_updates: u32,
    /// How long a round waits for updates.
    pub round_timeout: Duration,
    /// How often a round is tried before the run fails.
    pub max_attempts: u32,
    /// A site's `num_examples` counts as at most this, which bounds its influence.
    pub max_examples: u64,
}

/// How many of the connected sites train in a round. Chosen from the run's seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Selection {
    /// All of them.
    All,
    /// This share, in (0, 1], rounded up.
    Fraction(f64),
    /// So many.
    Count(u32),
}

/// What the server does with the mean of the updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Factor on the mean update; 1 is FedAvg.
    pub learning_rate: f64,
}

impl RunSpec {
    /// Reads `run.toml`. `file` is its name for the message.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        config::read::<file::RunFile, Self>(file, text)
    }

    /// How many sites may train, when they are named.
    pub fn num_trainers(&self) -> Option<u32> {
        let sites = self.cohort.sites.as_ref()?;
        let training = sites.iter().filter(|site| !self.validation.leaves_out(site.as_str()));
        Some(u32::try_from(training.count()).unwrap_or(u32::MAX))
    }

    /// Reads `run.toml` as a survey: no round is trained, and what the sites hold is counted and pooled as metrics are. No
    /// model is needed for that, so none travels.
    pub fn parse_survey(file: &str, text: &str) -> Result<Self, ConfigError> {
        let survey = Self::parse(file, text)?.into_survey();
        survey.map_err(|invalid| ConfigError::locate(file, text, &invalid))
    }

    fn into_survey(self) -> Result<Self, Invalid> {
        match self.task.input {
            TaskInput::Table { .. } | TaskInput::Text { .. } => {}
            TaskInput::Image { .. } | TaskInput::Nothing => {
                return Err(Invalid::new("task.type", "a survey is of tables or texts"));
            }
        }
        let model = ModelSpec {
            source: ModelSource::Fresh(Architecture::Constant(1)),
            trainable: Trainable::All,
            unfreeze: BTreeMap::new(),
            lora: None,
            ..self.model
        };
        // Whoever a run leaves out counts all the same.
        let validation = Validation { leave_out: None, test_split: 0.0, ..self.validation };
        Ok(Self { rounds: 0, model, validation, ..self })
    }

    /// Whether nothing is trained, and only counted what sites hold.
    pub fn is_survey(&self) -> bool {
        self.rounds == 0
    }

    /// Whether sites have something to count: examples held out while the run goes on, or all of them in a survey.
    pub fn validates(&self) -> bool {
        self.task.input != TaskInput::Nothing && (self.is_survey() || !self.validation.held_out.is_nothing())
    }

    /// Whether the run's result is tested at its end.
    pub fn tests(&self) -> bool {
        self.task.input != TaskInput::Nothing && self.validation.test_split > 0.0
    }

    /// What whoever submits the run should know of its privacy.
    pub fn warnings(&self) -> Vec<String> {
        let named = self.num_trainers();
        match self.secure_aggregation {
            SecureAggregation::Off => {
                let sees = if self.is_survey() { "counts" } else { "update" };
                vec![format!("secure_aggregation is \"off\": the server sees each site's {sees}")]
            }
            SecureAggregation::Required(_) if named == Some(2) || self.cohort.min_updates == 2 => vec![
                "with two sites in a sum each learns the other's update: both must agree to it with policy.min_updates = 2 in site.toml".into(),
            ],
            SecureAggregation::Required(_) => Vec::new(),
        }
    }
}
