//! Which tensors of a model a run trains: those that travel, in one order on which server and site agree.

use std::collections::BTreeSet;

use crate::config::Invalid;
use crate::params::{NotGrowing, ParamSpec, ParamTensor, Phases};
use crate::run::{
    Architecture, BadPattern, BatchNorm, Lora, LoraBias, ModelSource, RunSpec, Target, TaskInput, Trainable,
    trainable::compile,
};

use super::config::{EncoderConfig, MlpConfig, ModelConfig, ScriptConfig, ScriptInput};
use super::features::features_differ;
use super::lora;
use super::tensors::{self, Blocks};
use super::vision::{Image, is_statistic, statistics_of};

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
    /// Images of another size than those that the model has positions for.
    #[error("the model takes images of {only} pixels only, not {asked}; write {only}, or leave it out")]
    ImageSize {
        /// What `run.toml` says.
        asked: u64,
        /// What the model takes.
        only: u64,
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
    /// The head is to be trained alone, and is the embeddings.
    #[error(
        "the model's head is its token embeddings, which cannot be trained alone; write \"last:K\" or \"all\", or \
         train adapters with [model.lora]"
    )]
    NoHead,
    /// Patterns that cannot be used.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A pattern that is found in no name.
    #[error("`{pattern}` is found in no tensor's name; names are like {examples}")]
    Matchless {
        /// The pattern.
        pattern: String,
        /// Some names.
        examples: String,
    },
    /// No dense layer has this name.
    #[error("the model's layers have no `{target}`; adapters can be had for {known}")]
    Target {
        /// What `run.toml` says.
        target: String,
        /// What there is.
        known: String,
    },
    /// Adapters for a model of convolutions, or of layers that nobody knows.
    #[error("adapters are for dense layers, as text models and vision transformers have them: leave it out")]
    NoDense,
    /// Nothing is trained that counts.
    #[error(
        "no batch normalisation is trained, so there is nothing to count; leave it out, or train layers that have one"
    )]
    NoBatchNorm,
    /// A later phase does not fit the model.
    #[error("from round {round} on: {why}")]
    Phase {
        /// The round that it begins with.
        round: u32,
        /// Why.
        why: Box<Self>,
    },
    /// Later phases do not train more.
    #[error(transparent)]
    NotGrowing(#[from] NotGrowing),
    /// Something that a TorchScript module does not have, or not so.
    #[error("the TorchScript module {problem}")]
    Script {
        /// Where it is asked for.
        key: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
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
            Self::ImageSize { .. } => "task.image_size",
            Self::Layers { .. } | Self::NoHead | Self::Pattern(_) | Self::Matchless { .. } => {
                "model.trainable"
            }
            Self::Target { .. } => "model.lora.targets",
            Self::NoDense => "model.lora",
            Self::NoBatchNorm => "model.batch_norm",
            Self::Phase { .. } | Self::NotGrowing(_) => "model.unfreeze",
            Self::Script { key, .. } => key,
            Self::Features(_) => "task.features",
        };
        Invalid::new(key, self.to_string())
    }
}

/// The tensors that travel in each phase of a run. `config` is the imported model's, `None` for a fresh one.
pub fn phases(spec: &RunSpec, config: Option<&ModelConfig>) -> Result<Phases, PlanError> {
    let blocks = blocks(spec, config)?;
    let first = trained(spec, &spec.model.trainable, config, &blocks)?;
    let phases = spec.model.unfreeze.iter().try_fold(Phases::from(first), |phases, (round, trainable)| {
        let wrong = |why| PlanError::Phase { round: *round, why: Box::new(why) };
        Ok::<_, PlanError>(phases.then(*round, trained(spec, trainable, config, &blocks).map_err(wrong)?)?)
    })?;
    let counts = !counted(&blocks, &phases.after(spec.rounds).tensors).is_empty();
    if spec.model.batch_norm != BatchNorm::Frozen && !counts {
        return Err(PlanError::NoBatchNorm);
    }
    Ok(phases)
}

/// What stays at a site of what it trains with `params`: the running statistics, when the run keeps them local.
pub fn local(
    spec: &RunSpec,
    config: Option<&ModelConfig>,
    params: &ParamSpec,
) -> Result<ParamSpec, PlanError> {
    let tensors = match spec.model.batch_norm {
        BatchNorm::Local => counted(&blocks(spec, config)?, &params.tensors),
        BatchNorm::Frozen | BatchNorm::Averaged => Vec::new(),
    };
    Ok(ParamSpec { tensors })
}

/// The tensors that travel from the first round on, in the order of the model; running statistics, when they are averaged,
/// come behind all that a gradient moves.
///
/// A BERT's pooler belongs to the encoder: with `pooling = "cls"` it is trained with its last layers, not with the
/// head alone, and otherwise it is not part of the model.
pub fn plan(spec: &RunSpec, config: Option<&ModelConfig>) -> Result<ParamSpec, PlanError> {
    trained(spec, &spec.model.trainable, config, &blocks(spec, config)?)
}

fn trained(
    spec: &RunSpec,
    trainable: &Trainable,
    config: Option<&ModelConfig>,
    blocks: &Blocks,
) -> Result<ParamSpec, PlanError> {
    let chosen = chosen(trainable, blocks)?;
    let mut tensors = match &spec.model.lora {
        Some(lora) => adapters(lora, &chosen, config, blocks)?,
        None => chosen.into_iter().cloned().collect(),
    };
    if spec.model.batch_norm == BatchNorm::Averaged {
        tensors.extend(counted(blocks, &tensors));
    }
    Ok(ParamSpec { tensors })
}

/// The running statistics of the batch normalisations whose weights are among these tensors.
fn counted(blocks: &Blocks, trained: &[ParamTensor]) -> Vec<ParamTensor> {
    let weights = trained.iter().filter_map(|tensor| tensor.name.strip_suffix(".weight"));
    let names: BTreeSet<String> = weights.flat_map(statistics_of).collect();
    blocks.all().filter(|tensor| names.contains(&tensor.name)).cloned().collect()
}

/// The tensors that `trainable` speaks of, in the order of the model.
fn chosen<'a>(trainable: &Trainable, blocks: &'a Blocks) -> Result<Vec<&'a ParamTensor>, PlanError> {
    let mut chosen: Vec<_> = match trainable {
        Trainable::Head if blocks.head.is_empty() => return Err(PlanError::NoHead),
        Trainable::Head => blocks.head.iter().collect(),
        Trainable::Last(asked) => {
            let (asked, has) = (*asked, blocks.layers.len());
            let count = usize::try_from(asked).ok().filter(|count| *count <= has);
            blocks.last(count.ok_or(PlanError::Layers { asked, has })?).collect()
        }
        Trainable::All => blocks.all().collect(),
        Trainable::Matching(patterns) => matching(patterns, blocks)?,
    };
    // No gradient changes what batch normalisation has counted.
    chosen.retain(|tensor| !is_statistic(&tensor.name));
    Ok(chosen)
}

/// The tensors in whose names a pattern is found. A pattern that is found in none is a slip of the pen.
fn matching<'a>(patterns: &[String], blocks: &'a Blocks) -> Result<Vec<&'a ParamTensor>, PlanError> {
    let set = compile(patterns)?;
    let mut found = vec![false; patterns.len()];
    let is_chosen = |tensor: &&ParamTensor| {
        let matches = set.matches(tensor.name.as_bytes());
        matches.iter().for_each(|pattern| found[pattern] = true);
        matches.matched_any()
    };
    let chosen = blocks.all().filter(is_chosen).collect();
    match patterns.iter().zip(found).find(|(_, found)| !found) {
        Some((pattern, _)) => {
            Err(PlanError::Matchless { pattern: pattern.clone(), examples: examples(blocks) })
        }
        None => Ok(chosen),
    }
}

/// A name of each block, for whoever has to write a pattern.
fn examples(blocks: &Blocks) -> String {
    let layers = blocks.layers.first().into_iter().chain(blocks.layers.last());
    let each = [&blocks.embeddings].into_iter().chain(layers).chain([&blocks.pooler, &blocks.head]);
    let mut names: Vec<String> =
        each.filter_map(|block| block.first()).map(|tensor| format!("`{}`", tensor.name)).collect();
    names.dedup();
    names.join(", ")
}

/// The adapters of the chosen layers and the biases that go with them, then the head, if it is the task's; a language
/// model's is pretrained.
fn adapters(
    spec: &Lora,
    chosen: &[&ParamTensor],
    config: Option<&ModelConfig>,
    blocks: &Blocks,
) -> Result<Vec<ParamTensor>, PlanError> {
    let targets = lora::targets(spec, config);
    if config.is_none_or(|config| config.lora_targets().is_empty()) {
        return Err(PlanError::NoDense);
    }
    let mut tensors = Vec::new();
    for target in &targets {
        let found = blocks.layers.iter().flatten().any(|tensor| lora::is_target(target, tensor));
        if !found {
            let names = blocks.layers.iter().flatten().filter_map(lora::target_of);
            let known: BTreeSet<String> = names.map(|name| format!("\"{name}\"")).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(PlanError::Target { target: target.clone(), known });
        }
    }
    let is_adapted = |tensor: &ParamTensor| targets.iter().any(|target| lora::is_target(target, tensor));
    let adapted: Vec<&ParamTensor> =
        blocks.layers.iter().flatten().filter(|tensor| is_adapted(tensor)).collect();
    let is_trained = |bias: &ParamTensor| match (spec.bias, bias.name.strip_suffix(".bias")) {
        (LoraBias::All, layer) => layer.is_some(),
        (LoraBias::LoraOnly, Some(layer)) => {
            adapted.iter().any(|weight| weight.name.strip_suffix(".weight") == Some(layer))
        }
        (LoraBias::LoraOnly, None) | (LoraBias::None, _) => false,
    };
    let has_own_head = !config.is_some_and(ModelConfig::is_decoder);
    for tensor in chosen.iter().filter(|tensor| !has_own_head || !blocks.head.contains(tensor)) {
        if adapted.contains(tensor) {
            tensors.extend(lora::adapter(spec, tensor, blocks.inputs_first));
        } else if is_trained(tensor) {
            tensors.push((*tensor).clone());
        }
    }
    if has_own_head {
        tensors.extend(blocks.head.iter().cloned());
    }
    Ok(tensors)
}

/// All tensors of a run's model, trained or not. `config` is the imported model's, `None` for a fresh one.
pub fn blocks(spec: &RunSpec, config: Option<&ModelConfig>) -> Result<Blocks, PlanError> {
    match (&spec.model.source, config) {
        (ModelSource::Imported(_), Some(ModelConfig::Encoder(config))) => encoder_blocks(spec, config),
        (ModelSource::Imported(_), Some(ModelConfig::Gpt2(config))) => {
            decoder_blocks(spec, "gpt2", config.n_positions, tensors::gpt2(config))
        }
        (ModelSource::Imported(_), Some(ModelConfig::Llama(config))) => {
            decoder_blocks(spec, "llama", config.max_position_embeddings, tensors::llama(config))
        }
        (ModelSource::Imported(_), Some(ModelConfig::Mlp(config))) => mlp_blocks(spec, config),
        (ModelSource::Imported(_), Some(ModelConfig::Image(image))) => image_blocks(spec, image),
        (ModelSource::Imported(_), Some(ModelConfig::Script(script))) => script_blocks(spec, script),
        (ModelSource::Imported(name), None) => Err(PlanError::NoModel(name.clone())),
        (ModelSource::Fresh(architecture), _) => Ok(fresh_blocks(spec, architecture)),
    }
}

fn encoder_blocks(spec: &RunSpec, config: &EncoderConfig) -> Result<Blocks, PlanError> {
    let (TaskInput::Text { max_length, .. }, false) = (&spec.task.input, is_language(spec)) else {
        return Err(PlanError::Task {
            model_type: config.family.model_type(),
            instead: "\"text-classification\" or \"text-regression\"",
        });
    };
    let (asked, most) = (u64::from(*max_length), config.max_length());
    if asked > most {
        return Err(PlanError::MaxLength { asked, most });
    }
    Ok(tensors::encoder(config, spec.model.pooling, Some(spec.task.num_outputs())))
}

fn is_language(spec: &RunSpec) -> bool {
    matches!(spec.task.target, Target::NextToken { .. })
}

fn decoder_blocks(
    spec: &RunSpec,
    model_type: &'static str,
    most: u64,
    blocks: Blocks,
) -> Result<Blocks, PlanError> {
    let (TaskInput::Text { max_length, .. }, true) = (&spec.task.input, is_language(spec)) else {
        return Err(PlanError::Task { model_type, instead: "\"causal-lm\"" });
    };
    let asked = u64::from(*max_length);
    if asked > most { Err(PlanError::MaxLength { asked, most }) } else { Ok(blocks) }
}

fn mlp_blocks(spec: &RunSpec, config: &MlpConfig) -> Result<Blocks, PlanError> {
    let TaskInput::Table { features } = &spec.task.input else {
        return Err(PlanError::Task {
            model_type: "mlp",
            instead: "\"tabular-classification\" or \"tabular-regression\"",
        });
    };
    match features_differ(&config.features, features) {
        Some(difference) => Err(PlanError::Features(difference)),
        None => Ok(tensors::mlp(config.num_inputs(), &config.hidden, spec.task.num_outputs())),
    }
}

fn image_blocks(spec: &RunSpec, image: &Image) -> Result<Blocks, PlanError> {
    let TaskInput::Image { size, .. } = &spec.task.input else {
        let model_type = image.architecture.model_type();
        return Err(PlanError::Task { model_type, instead: "\"image-classification\"" });
    };
    match size.map(u64::from) {
        Some(asked) if image.architecture.has_fixed_size() && asked != image.image_size => {
            Err(PlanError::ImageSize { asked, only: image.image_size })
        }
        Some(_) | None => Ok(image.architecture.tensors(Some(spec.task.num_outputs()))),
    }
}

fn script_blocks(spec: &RunSpec, script: &ScriptConfig) -> Result<Blocks, PlanError> {
    let wrong = |key, problem| Err(PlanError::Script { key, problem });
    match (&spec.task.input, &script.input) {
        (TaskInput::Table { .. }, ScriptInput::Table { width }) if spec.task.num_inputs() != *width => {
            let problem = format!(
                "takes {width} values, and the run's features make {}: two for a number (itself, and whether it is \
                 missing), and one for each category",
                spec.task.num_inputs()
            );
            return wrong("task.features", problem);
        }
        (TaskInput::Image { size: Some(asked), .. }, ScriptInput::Image { size, .. })
            if u64::from(*asked) != *size =>
        {
            return Err(PlanError::ImageSize { asked: (*asked).into(), only: *size });
        }
        (TaskInput::Table { .. }, ScriptInput::Table { .. })
        | (TaskInput::Image { .. }, ScriptInput::Image { .. }) => {}
        (_, ScriptInput::Table { .. }) => {
            let instead = "\"tabular-classification\" or \"tabular-regression\"";
            return Err(PlanError::Task { model_type: "torchscript", instead });
        }
        (_, ScriptInput::Image { .. }) => {
            let instead = "\"image-classification\" or \"image-regression\"";
            return Err(PlanError::Task { model_type: "torchscript", instead });
        }
    }
    let outputs = spec.task.num_outputs();
    if outputs != script.outputs {
        let problem = format!("gives {} values, and the run learns {outputs}", script.outputs);
        return wrong("task.label", problem);
    }
    if !script.labels.is_empty() && script.labels != spec.task.labels() {
        let problem = format!("was trained on labels = {:?}; write the same", script.labels);
        return wrong("task.labels", problem);
    }
    let trainable = [&spec.model.trainable].into_iter().chain(spec.model.unfreeze.values());
    for part in trainable {
        if matches!(part, Trainable::Head | Trainable::Last(_)) {
            let problem =
                "is not parted into layers and head: write \"all\", or regular expressions over its names";
            let key = if spec.model.unfreeze.is_empty() { "model.trainable" } else { "model.unfreeze" };
            return wrong(key, problem.into());
        }
    }
    if spec.model.dropout > 0.0 {
        return wrong("model.dropout", "has its own dropout: leave `dropout` out".into());
    }
    if spec.model.batch_norm != BatchNorm::Frozen {
        return wrong("model.batch_norm", "keeps what it has counted: leave `batch_norm` out".into());
    }
    if spec.training.layer_decay < 1.0 {
        return wrong("training.layer_decay", "is not parted into layers: leave `layer_decay` out".into());
    }
    Ok(script.blocks())
}

fn fresh_blocks(spec: &RunSpec, architecture: &Architecture) -> Blocks {
    let (inputs, labels) = (spec.task.num_inputs(), spec.task.num_outputs());
    match architecture {
        Architecture::Mlp(hidden) => tensors::mlp(inputs, hidden, labels),
        Architecture::Softmax => tensors::softmax(inputs, labels),
        Architecture::Constant(values) => tensors::constant(*values),
    }
}
