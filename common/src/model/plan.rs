//! Which tensors of a model a run trains: those that travel, in one order on which server and site agree.

use std::collections::BTreeSet;

use crate::config::Invalid;
use crate::params::ParamSpec;
use crate::run::{Architecture, Lora, ModelSource, Pooling, RunSpec, TaskInput, Trainable};

use super::config::{BertConfig, MlpConfig, ModelConfig};
use super::features::features_differ;
use super::lora;
use super::tensors::{self, Blocks};

/// A run that does not fit its model: one sentence, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The run names an imported model, and none was given.
    #[error("the run needs the imported model `{0}`")]
    NoModel(String),
    /// A text model for a table, or the reverse.
    #[error("a model of the type \"{model_type}\" cannot do this task; use {instead}")]
    Task {
        /// The model's type.
        model_type: &'static str,
        /// A task that it can do.
        instead: &'static str,
    },
    /// Texts longer than the model has positions.
    #[error("{asked} tokens are more than the model's {most}; write at most {most}")]
    MaxLength {
        /// What `run.toml` says.
        asked: u64,
        /// Positions of the model.
        most: u64,
    },
    /// More layers to train than there are.
    #[error(
        "the model has {has} layers between inputs and head, not {asked}; write \"last:K\" with K up to {has}, \
         or \"all\""
    )]
    Layers {
        /// What `run.toml` says.
        asked: u32,
        /// Layers of the model.
        has: usize,
    },
    /// No dense layer has this name.
    #[error("the model's layers have no `{target}`; adapters can be had for {known}")]
    Target {
        /// What `run.toml` says.
        target: String,
        /// What there is.
        known: String,
    },
    /// Columns other than those that the model was trained on.
    #[error("{0}")]
    Features(String),
}

impl PlanError {
    /// The error as a wrong value in `run.toml`, to be located there.
    pub fn invalid(&self) -> Invalid {
        let key = match self {
            Self::NoModel(_) => "model.name",
            Self::Task { .. } => "task.type",
            Self::MaxLength { .. } => "task.max_length",
            Self::Layers { .. } => "model.trainable",
            Self::Target { .. } => "model.lora.targets",
            Self::Features(_) => "task.features",
        };
        Invalid::new(key, self.to_string())
    }
}

/// The tensors that travel, in the order of the model. `config` is the imported model's, `None` for a fresh
/// one.
///
/// The pooler belongs to the encoder: with `pooling = "cls"` it is trained with its last layers, not with the
/// head alone, and otherwise it is not part of the model.
pub fn plan(spec: &RunSpec, config: Option<&ModelConfig>) -> Result<ParamSpec, PlanError> {
    let blocks = blocks(spec, config)?;
    if let Some(lora) = &spec.model.lora {
        return adapters(lora, spec.model.trainable, blocks);
    }
    let tensors = match spec.model.trainable {
        Trainable::Head => blocks.head,
        Trainable::Last(asked) => {
            let has = blocks.layers.len();
            let count = usize::try_from(asked).ok().filter(|count| *count <= has);
            blocks.last(count.ok_or(PlanError::Layers { asked, has })?).cloned().collect()
        }
        Trainable::All => blocks.all().cloned().collect(),
    };
    Ok(ParamSpec { tensors })
}

/// The adapters of the last layers, then the head.
fn adapters(spec: &Lora, trainable: Trainable, blocks: Blocks) -> Result<ParamSpec, PlanError> {
    let has = blocks.layers.len();
    let count = match trainable {
        Trainable::Head => 0,
        Trainable::All => has,
        Trainable::Last(asked) => {
            let count = usize::try_from(asked).ok().filter(|count| *count <= has);
            count.ok_or(PlanError::Layers { asked, has })?
        }
    };
    let mut tensors = Vec::new();
    for target in &spec.targets {
        let found = blocks.layers.iter().flatten().any(|tensor| lora::is_target(target, tensor));
        if !found {
            let names = blocks.layers.iter().flatten().filter_map(lora::target_of);
            let known: BTreeSet<String> = names.map(|name| format!("\"{name}\"")).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(PlanError::Target { target: target.clone(), known });
        }
    }
    for tensor in blocks.layers[has - count..].iter().flatten() {
        if spec.targets.iter().any(|target| lora::is_target(target, tensor)) {
            tensors.extend(lora::adapter(spec, tensor));
        }
    }
    tensors.extend(blocks.head);
    Ok(ParamSpec { tensors })
}

/// All tensors of a run's model, trained or not. `config` is the imported model's, `None` for a fresh one.
pub fn blocks(spec: &RunSpec, config: Option<&ModelConfig>) -> Result<Blocks, PlanError> {
    match (&spec.model.source, config) {
        (ModelSource::Imported(_), Some(ModelConfig::Bert(config))) => bert_blocks(spec, config),
        (ModelSource::Imported(_), Some(ModelConfig::Mlp(config))) => mlp_blocks(spec, config),
        (ModelSource::Imported(name), None) => Err(PlanError::NoModel(name.clone())),
        (ModelSource::Fresh(architecture), _) => Ok(fresh_blocks(spec, architecture)),
    }
}

fn bert_blocks(spec: &RunSpec, config: &BertConfig) -> Result<Blocks, PlanError> {
    let TaskInput::Text { max_length, .. } = &spec.task.input else {
        return Err(PlanError::Task { model_type: "bert", instead: "\"text-classification\"" });
    };
    let (asked, most) = (u64::from(*max_length), config.max_position_embeddings);
    if asked > most {
        return Err(PlanError::MaxLength { asked, most });
    }
    let pooler = spec.model.pooling == Pooling::Cls;
    Ok(tensors::bert(config, pooler, Some(spec.num_labels() as u64)))
}

fn mlp_blocks(spec: &RunSpec, config: &MlpConfig) -> Result<Blocks, PlanError> {
    let TaskInput::Table { features } = &spec.task.input else {
        return Err(PlanError::Task { model_type: "mlp", instead: "\"tabular-classification\"" });
    };
    match features_differ(&config.features, features) {
        Some(difference) => Err(PlanError::Features(difference)),
        None => Ok(tensors::mlp(config.num_inputs(), &config.hidden, spec.num_labels() as u64)),
    }
}

fn fresh_blocks(spec: &RunSpec, architecture: &Architecture) -> Blocks {
    let (inputs, labels) = (spec.num_inputs(), spec.num_labels() as u64);
    match architecture {
        Architecture::Mlp(hidden) => tensors::mlp(inputs, hidden, labels),
        Architecture::Softmax => tensors::softmax(inputs, labels),
        Architecture::Constant(values) => tensors::constant(*values),
    }
}
