//! The table `[model]`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{forbid, invalid, no_duplicates, positive, within};
use crate::config::Invalid;
use crate::run::trainable::compile;
use crate::run::{
    Architecture, BatchNorm, Lora, LoraBias, ModelSource, ModelSpec, Pooling, Target, Task, TaskInput,
    Trainable,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    name: Option<String>,
    architecture: Option<String>,
    hidden: Option<Vec<u64>>,
    parameters: Option<u64>,
    trainable: Option<TrainableFile>,
    unfreeze: Option<Vec<PhaseFile>>,
    lora: Option<LoraFile>,
    pooling: Option<Pooling>,
    dropout: Option<f64>,
    batch_norm: Option<BatchNorm>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "trainable is \"head\", \"last:K\", \"all\" or a list of regular expressions")]
enum TrainableFile {
    Part(String),
    Patterns(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PhaseFile {
    round: u32,
    trainable: TrainableFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoraFile {
    rank: Option<u32>,
    alpha: Option<f64>,
    targets: Option<Vec<String>>,
    dropout: Option<f64>,
    #[serde(default)]
    bias: LoraBias,
}

pub(super) fn model(file: ModelFile, task: &Task, rounds: u32) -> Result<ModelSpec, Invalid> {
    let source = match (file.name, file.architecture.as_deref()) {
        (Some(name), None) => {
            forbid("model.hidden", file.hidden.is_some(), "an imported model brings its own layers")?;
            ModelSource::Imported(name)
        }
        (None, Some(architecture)) => ModelSource::Fresh(fresh(architecture, file.hidden, file.parameters)?),
        (Some(_), Some(_)) => {
            return Err(Invalid::new(
                "model",
                "give either `name` (an imported model) or `architecture`, not both",
            ));
        }
        (None, None) => {
            return Err(Invalid::new(
                "model",
                "give `name` (an imported model) or `architecture` (\"mlp\", \"softmax\")",
            ));
        }
    };
    check_model_fits_task(&source, task)?;
    let (trainable, unfreeze) = match (file.trainable, file.unfreeze) {
        (Some(_), Some(_)) => {
            return Err(Invalid::new(
                "model.unfreeze",
                "says what is trained in every round: leave `trainable` out",
            ));
        }
        (None, Some(phases)) => unfreezing(phases, rounds)?,
        (Some(part), None) => (trainable("model.trainable", part)?, BTreeMap::new()),
        (None, None) => (Trainable::All, BTreeMap::new()),
    };
    if matches!(source, ModelSource::Fresh(_)) && (trainable != Trainable::All || !unfreeze.is_empty()) {
        return Err(Invalid::new(
            "model.trainable",
            "a model that starts from the seed must be trained whole: write \"all\"",
        ));
    }
    let lora = file.lora.map(lora).transpose()?;
    if lora.is_some() {
        let can_have = matches!(task.input, TaskInput::Text { .. } | TaskInput::Image { .. });
        forbid("model.lora", !can_have, "is for pretrained models of texts and images")?;
        forbid(
            "model.unfreeze",
            !unfreeze.is_empty(),
            "goes without adapters: leave `lora` or `unfreeze` out",
        )?;
        forbid(
            "model.trainable",
            matches!(trainable, Trainable::Head | Trainable::Matching(_)),
            "says in which layers adapters are: write \"all\" or \"last:K\"",
        )?;
    }
    let is_language = matches!(task.target, Target::NextToken { .. });
    forbid("model.pooling", file.pooling.is_some() && is_language, "is not for \"causal-lm\"")?;
    let dropout = file.dropout.unwrap_or(match task.input {
        TaskInput::Text { .. } if !is_language => 0.1,
        TaskInput::Text { .. } | TaskInput::Table { .. } | TaskInput::Image { .. } | TaskInput::Nothing => {
            0.0
        }
    });
    let dropout = probability("model.dropout", dropout)?;
    let pooling = file.pooling.unwrap_or(Pooling::Mean);
    let is_of_images = matches!(task.input, TaskInput::Image { .. });
    forbid("model.batch_norm", file.batch_norm.is_some() && !is_of_images, "is for models of images")?;
    let batch_norm = file.batch_norm.unwrap_or_default();
    Ok(ModelSpec { source, trainable, unfreeze, lora, pooling, dropout, batch_norm })
}

/// Of dropping a value.
fn probability(key: &str, value: f64) -> Result<f64, Invalid> {
    if (0.0..1.0).contains(&value) {
        Ok(value)
    } else {
        Err(Invalid::new(key, format!("{value} is not in [0, 1)")))
    }
}

fn lora(file: LoraFile) -> Result<Lora, Invalid> {
    let rank = file.rank.unwrap_or(8);
    within("model.lora.rank", u64::from(rank), 1, 1024)?;
    let alpha = file.alpha.unwrap_or_else(|| f64::from(rank));
    positive("model.lora.alpha", alpha)?;
    forbid("model.lora.targets", file.targets.as_ref().is_some_and(Vec::is_empty), "names no layer")?;
    let targets = file.targets.unwrap_or_default();
    no_duplicates("model.lora.targets", targets.iter().map(String::as_str))?;
    let dropout = probability("model.lora.dropout", file.dropout.unwrap_or(0.0))?;
    Ok(Lora { rank, alpha, targets, dropout, bias: file.bias })
}

fn fresh(
    architecture: &str,
    hidden: Option<Vec<u64>>,
    parameters: Option<u64>,
) -> Result<Architecture, Invalid> {
    forbid("model.hidden", hidden.is_some() && architecture != "mlp", "only \"mlp\" has hidden layers")?;
    forbid(
        "model.parameters",
        parameters.is_some() && architecture != "constant",
        "only \"constant\" has it",
    )?;
    match architecture {
        "mlp" => {
            let hidden = hidden.unwrap_or_else(|| vec![64]);
            if hidden.len() > 16 || hidden.iter().any(|width| !(1..=65_536).contains(width)) {
                return Err(Invalid::new("model.hidden", "give at most 16 layers of 1 to 65536 units each"));
            }
            Ok(Architecture::Mlp(hidden))
        }
        "softmax" => Ok(Architecture::Softmax),
        "constant" => {
            let parameters =
                parameters.ok_or_else(|| Invalid::new("model.parameters", "say how many values"))?;
            within("model.parameters", parameters, 1, 1 << 36)?;
            Ok(Architecture::Constant(parameters))
        }
        other => Err(Invalid::new(
            "model.architecture",
            format!(
                "`{other}` is unknown; use \"mlp\", \"softmax\" or \"constant\", or `name` for an imported model"
            ),
        )),
    }
}

fn check_model_fits_task(source: &ModelSource, task: &Task) -> Result<(), Invalid> {
    let fits = match source {
        ModelSource::Imported(_) => !matches!(task.input, TaskInput::Nothing),
        ModelSource::Fresh(Architecture::Mlp(_)) => matches!(task.input, TaskInput::Table { .. }),
        ModelSource::Fresh(Architecture::Softmax) => {
            let is_table = matches!(task.input, TaskInput::Table { .. });
            is_table && matches!(task.target, Target::Label { .. })
        }
        ModelSource::Fresh(Architecture::Constant(_)) => matches!(task.input, TaskInput::Nothing),
    };
    if fits {
        Ok(())
    } else {
        Err(Invalid::new(
            "task.type",
            "does not fit the model: texts and images need an imported model, tables an mlp, or softmax for one label an \
             example; \"none\" is for the \"constant\" architecture",
        ))
    }
}

/// What is trained from the first round on, and what from each later one. That it grows is seen with the model.
fn unfreezing(phases: Vec<PhaseFile>, rounds: u32) -> Result<(Trainable, BTreeMap<u32, Trainable>), Invalid> {
    let (mut first, mut later, mut before) = (None, BTreeMap::new(), 0);
    for (index, phase) in phases.into_iter().enumerate() {
        let key = |field: &str| format!("model.unfreeze.{index}.{field}");
        let wrong = |problem: String| Err(Invalid::new(key("round"), problem));
        let part = trainable(&key("trainable"), phase.trainable)?;
        match (index, phase.round) {
            (0, 1) => first = Some(part),
            (0, round) => return wrong(format!("{round} is not 1: the first phase begins with the run")),
            (_, round) if round <= before => return wrong(format!("{round} does not come after {before}")),
            (_, round) if round > rounds => return wrong(format!("the run has only {rounds} rounds")),
            (_, round) => _ = later.insert(round, part),
        }
        before = phase.round;
    }
    let first = first.ok_or_else(|| Invalid::new("model.unfreeze", "lists no phase"))?;
    Ok((first, later))
}

fn trainable(key: &str, written: TrainableFile) -> Result<Trainable, Invalid> {
    let part = match written {
        TrainableFile::Part(part) => part,
        TrainableFile::Patterns(patterns) => {
            compile(&patterns).map_err(|e| invalid(key, e))?;
            return Ok(Trainable::Matching(patterns));
        }
    };
    match part.as_str() {
        "head" => Ok(Trainable::Head),
        "all" => Ok(Trainable::All),
        other => other
            .strip_prefix("last:")
            .and_then(|count| count.parse().ok())
            .filter(|count| *count >= 1)
            .map(Trainable::Last)
            .ok_or_else(|| {
                Invalid::new(
                    key,
                    format!(
                        "`{other}` is unknown; use \"head\", \"last:K\" with K from 1, \"all\", or a list of regular expressions"
                    ),
                )
            }),
    }
}
