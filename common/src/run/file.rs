//! `run.toml` as it is written, and how it becomes a [`RunSpec`] or one sentence.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::{
    AdamSpec, Architecture, CohortSpec, Feature, FeatureKind, LocalWork, ModelSource, ModelSpec, Optimizer,
    Pooling, RunSpec, Schedule, ScheduleKind, SecureAggregation, Selection, ServerSpec, Task, TaskInput,
    Trainable, Training,
};
use crate::config::Invalid;
use crate::id::ClientId;

/// Most classes of a run: metrics hold a histogram per class, and a control message holds the metrics.
const LABELS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    name: String,
    rounds: u32,
    #[serde(default)]
    seed: u64,
    secure_aggregation: String,
    model: ModelFile,
    task: TaskFile,
    #[serde(default)]
    training: TrainingFile,
    #[serde(default)]
    cohort: CohortFile,
    #[serde(default)]
    server: ServerFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFile {
    name: Option<String>,
    architecture: Option<String>,
    hidden: Option<Vec<u64>>,
    parameters: Option<u64>,
    trainable: Option<String>,
    pooling: Option<Pooling>,
    dropout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    dataset: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    labels: Vec<String>,
    text: Option<String>,
    max_length: Option<u32>,
    features: Option<Vec<FeatureFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureFile {
    column: String,
    #[serde(rename = "type")]
    kind: String,
    mean: Option<f64>,
    std: Option<f64>,
    categories: Option<Vec<String>>,
    #[serde(default)]
    missing: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct TrainingFile {
    optimizer: Option<String>,
    learning_rate: Option<f64>,
    momentum: Option<f64>,
    nesterov: Option<bool>,
    beta1: Option<f64>,
    beta2: Option<f64>,
    epsilon: Option<f64>,
    weight_decay: Option<f64>,
    batch_size: Option<u32>,
    local_epochs: Option<u32>,
    local_steps: Option<u32>,
    schedule: Option<ScheduleKind>,
    warmup_steps: Option<u32>,
    max_grad_norm: Option<f64>,
    validation_split: Option<f64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CohortFile {
    sites: Option<Vec<String>>,
    fraction: Option<f64>,
    count: Option<u32>,
    min_sites: Option<u32>,
    min_updates: Option<u32>,
    round_timeout: Option<String>,
    max_attempts: Option<u32>,
    max_examples: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ServerFile {
    learning_rate: Option<f64>,
}

impl TryFrom<RunFile> for RunSpec {
    type Error = Invalid;

    fn try_from(file: RunFile) -> Result<Self, Invalid> {
        let name = file.name.parse().map_err(|e| invalid("name", e))?;
        within("rounds", u64::from(file.rounds), 1, 100_000)?;
        let secure_aggregation = secure_aggregation(&file.secure_aggregation)?;
        let task = task(file.task)?;
        let model = model(file.model, &task)?;
        let training = training(&file.training)?;
        let cohort = cohort(file.cohort)?;
        let learning_rate = file.server.learning_rate.unwrap_or(1.0);
        positive("server.learning_rate", learning_rate)?;
        Ok(Self {
            name,
            rounds: file.rounds,
            seed: file.seed,
            secure_aggregation,
            model,
            task,
            training,
            cohort,
            server: ServerSpec { learning_rate },
        })
    }
}

fn secure_aggregation(written: &str) -> Result<SecureAggregation, Invalid> {
    match written {
        "off" => Ok(SecureAggregation::Off),
        "required" => Err(Invalid::new(
            "secure_aggregation",
            "this version cannot encrypt updates yet; write \"off\" to let the server see each site's update",
        )),
        other => Err(Invalid::new("secure_aggregation", format!("`{other}` is unknown; write \"off\""))),
    }
}

fn model(file: ModelFile, task: &Task) -> Result<ModelSpec, Invalid> {
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
    let trainable = trainable(file.trainable.as_deref().unwrap_or("all"))?;
    if matches!(source, ModelSource::Fresh(_)) && trainable != Trainable::All {
        return Err(Invalid::new(
            "model.trainable",
            "a model that starts from the seed must be trained whole: write \"all\"",
        ));
    }
    let dropout = file.dropout.unwrap_or(match task.input {
        TaskInput::Text { .. } => 0.1,
        TaskInput::Table { .. } | TaskInput::Nothing => 0.0,
    });
    if !(0.0..1.0).contains(&dropout) {
        return Err(Invalid::new("model.dropout", format!("{dropout} is not in [0, 1)")));
    }
    Ok(ModelSpec { source, trainable, pooling: file.pooling.unwrap_or(Pooling::Mean), dropout })
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
        ModelSource::Fresh(Architecture::Mlp(_) | Architecture::Softmax) => {
            matches!(task.input, TaskInput::Table { .. })
        }
        ModelSource::Fresh(Architecture::Constant(_)) => matches!(task.input, TaskInput::Nothing),
    };
    if fits {
        Ok(())
    } else {
        Err(Invalid::new(
            "task.type",
            "does not fit the model: text-classification needs an imported encoder, tabular-classification an mlp or softmax, \
             none the \"constant\" architecture",
        ))
    }
}

fn trainable(written: &str) -> Result<Trainable, Invalid> {
    match written {
        "head" => Ok(Trainable::Head),
        "all" => Ok(Trainable::All),
        other => other
            .strip_prefix("last:")
            .and_then(|count| count.parse().ok())
            .filter(|count| *count >= 1)
            .map(Trainable::Last)
            .ok_or_else(|| {
                Invalid::new(
                    "model.trainable",
                    format!("`{other}` is unknown; use \"head\", \"last:K\" with K from 1, or \"all\""),
                )
            }),
    }
}

fn task(file: TaskFile) -> Result<Task, Invalid> {
    let input = match file.kind.as_str() {
        "text-classification" => {
            forbid("task.features", file.features.is_some(), "text-classification reads `text`")?;
            let column =
                file.text.ok_or_else(|| Invalid::new("task.text", "name the column that holds the text"))?;
            let max_length = file.max_length.unwrap_or(128);
            within("task.max_length", u64::from(max_length), 3, 8192)?;
            TaskInput::Text { column, max_length }
        }
        "tabular-classification" => {
            forbid("task.text", file.text.is_some(), "tabular-classification reads `features`")?;
            let written = file.features.unwrap_or_default();
            if written.is_empty() {
                return Err(Invalid::new("task.features", "list at least one [[task.features]]"));
            }
            let features =
                written.into_iter().enumerate().map(|(i, f)| feature(i, f)).collect::<Result<Vec<_>, _>>()?;
            no_duplicates("task.features", features.iter().map(|feature| feature.column.as_str()))?;
            TaskInput::Table { features }
        }
        "none" => {
            return Ok(Task {
                dataset: String::new(),
                label: String::new(),
                labels: Vec::new(),
                input: TaskInput::Nothing,
            });
        }
        other => {
            return Err(Invalid::new(
                "task.type",
                format!("`{other}` is unknown; use \"text-classification\" or \"tabular-classification\""),
            ));
        }
    };
    for (key, value) in [("task.dataset", &file.dataset), ("task.label", &file.label)] {
        if value.is_empty() {
            return Err(Invalid::new(key, "is missing"));
        }
    }
    if !(2..=LABELS_MAX).contains(&file.labels.len()) {
        return Err(Invalid::new("task.labels", format!("list 2 to {LABELS_MAX} labels")));
    }
    no_duplicates("task.labels", file.labels.iter().map(String::as_str))?;
    Ok(Task { dataset: file.dataset, label: file.label, labels: file.labels, input })
}

fn feature(index: usize, file: FeatureFile) -> Result<Feature, Invalid> {
    let key = |name: &str| format!("task.features.{index}.{name}");
    let kind = match file.kind.as_str() {
        "numeric" => {
            forbid(&key("categories"), file.categories.is_some(), "a numeric column has none")?;
            let mean = file.mean.unwrap_or(0.0);
            let std = file.std.unwrap_or(1.0);
            if !mean.is_finite() {
                return Err(Invalid::new(key("mean"), "must be a finite number"));
            }
            positive(&key("std"), std)?;
            FeatureKind::Numeric { mean, std }
        }
        "categorical" => {
            forbid(
                &key("mean"),
                file.mean.is_some() || file.std.is_some(),
                "a categorical column has no mean and std",
            )?;
            let categories = file.categories.unwrap_or_default();
            if categories.is_empty() {
                return Err(Invalid::new(key("categories"), "list the categories"));
            }
            no_duplicates(&key("categories"), categories.iter().map(String::as_str))?;
            FeatureKind::Categorical { categories }
        }
        other => {
            return Err(Invalid::new(
                key("type"),
                format!("`{other}` is unknown; use \"numeric\" or \"categorical\""),
            ));
        }
    };
    Ok(Feature { column: file.column, kind, missing: file.missing })
}

fn training(file: &TrainingFile) -> Result<Training, Invalid> {
    let optimizer = optimizer(file)?;
    let learning_rate = file.learning_rate.unwrap_or(match optimizer {
        Optimizer::Sgd { .. } => 0.01,
        Optimizer::Adam(_) | Optimizer::AdamW(_) => 1e-3,
    });
    positive("training.learning_rate", learning_rate)?;
    let weight_decay = file.weight_decay.unwrap_or(match optimizer {
        Optimizer::AdamW(_) => 0.01,
        Optimizer::Sgd { .. } | Optimizer::Adam(_) => 0.0,
    });
    if !(weight_decay.is_finite() && weight_decay >= 0.0) {
        return Err(Invalid::new("training.weight_decay", "must be 0 or above"));
    }
    let batch_size = file.batch_size.unwrap_or(16);
    within("training.batch_size", u64::from(batch_size), 1, 65_536)?;
    let local = match (file.local_epochs, file.local_steps) {
        (Some(_), Some(_)) => {
            return Err(Invalid::new(
                "training.local_steps",
                "give `local_epochs` or `local_steps`, not both",
            ));
        }
        (None, Some(steps)) => {
            within("training.local_steps", u64::from(steps), 1, 10_000_000)?;
            LocalWork::Steps(steps)
        }
        (epochs, None) => {
            let epochs = epochs.unwrap_or(1);
            within("training.local_epochs", u64::from(epochs), 1, 10_000)?;
            LocalWork::Epochs(epochs)
        }
    };
    if let Some(norm) = file.max_grad_norm {
        positive("training.max_grad_norm", norm)?;
    }
    let validation_split = file.validation_split.unwrap_or(0.1);
    if !(0.0..=0.9).contains(&validation_split) {
        return Err(Invalid::new(
            "training.validation_split",
            format!("{validation_split} is not in [0, 0.9]"),
        ));
    }
    Ok(Training {
        optimizer,
        learning_rate,
        weight_decay,
        batch_size,
        local,
        schedule: Schedule {
            kind: file.schedule.unwrap_or(ScheduleKind::Constant),
            warmup_steps: file.warmup_steps.unwrap_or(0),
        },
        max_grad_norm: file.max_grad_norm,
        validation_split,
    })
}

fn optimizer(file: &TrainingFile) -> Result<Optimizer, Invalid> {
    let name = file.optimizer.as_deref().unwrap_or("adamw");
    let adam = AdamSpec {
        beta1: file.beta1.unwrap_or(0.9),
        beta2: file.beta2.unwrap_or(0.999),
        epsilon: file.epsilon.unwrap_or(1e-8),
    };
    for (key, beta) in [("training.beta1", adam.beta1), ("training.beta2", adam.beta2)] {
        if !(0.0..1.0).contains(&beta) {
            return Err(Invalid::new(key, format!("{beta} is not in [0, 1)")));
        }
    }
    positive("training.epsilon", adam.epsilon)?;
    let adam_key = file.beta1.is_some() || file.beta2.is_some() || file.epsilon.is_some();
    let sgd_key = file.momentum.is_some() || file.nesterov.is_some();
    match name {
        "sgd" => {
            forbid("training.optimizer", adam_key, "\"sgd\" has no beta1, beta2 or epsilon")?;
            let momentum = file.momentum.unwrap_or(0.0);
            let nesterov = file.nesterov.unwrap_or(false);
            if !(0.0..1.0).contains(&momentum) {
                return Err(Invalid::new("training.momentum", format!("{momentum} is not in [0, 1)")));
            }
            forbid("training.nesterov", nesterov && momentum == 0.0, "needs a momentum above 0")?;
            Ok(Optimizer::Sgd { momentum, nesterov })
        }
        "adam" | "adamw" => {
            forbid("training.optimizer", sgd_key, "Adam has no momentum or nesterov; use beta1")?;
            Ok(if name == "adam" { Optimizer::Adam(adam) } else { Optimizer::AdamW(adam) })
        }
        other => Err(Invalid::new(
            "training.optimizer",
            format!("`{other}` is unknown; use \"sgd\", \"adam\" or \"adamw\""),
        )),
    }
}

fn cohort(file: CohortFile) -> Result<CohortSpec, Invalid> {
    let sites = file.sites.map(|sites| client_ids(&sites)).transpose()?;
    let selection = match (file.fraction, file.count) {
        (None, None) => Selection::All,
        (Some(_), Some(_)) => {
            return Err(Invalid::new("cohort.count", "give `fraction` or `count`, not both"));
        }
        (Some(fraction), None) if fraction > 0.0 && fraction <= 1.0 => Selection::Fraction(fraction),
        (Some(fraction), None) => {
            return Err(Invalid::new("cohort.fraction", format!("{fraction} is not in (0, 1]")));
        }
        (None, Some(count)) => {
            within("cohort.count", u64::from(count), 1, 1_000_000)?;
            Selection::Count(count)
        }
    };
    let named = sites.as_ref().map(|sites| u32::try_from(sites.len()).unwrap_or(u32::MAX));
    let min_updates = file.min_updates.unwrap_or_else(|| named.unwrap_or(1));
    within("cohort.min_updates", u64::from(min_updates), 1, u64::from(named.unwrap_or(1_000_000)))?;
    let min_sites = file.min_sites.unwrap_or_else(|| named.unwrap_or(min_updates));
    within(
        "cohort.min_sites",
        u64::from(min_sites),
        u64::from(min_updates),
        u64::from(named.unwrap_or(1_000_000)),
    )?;
    if let Selection::Count(count) = selection
        && count < min_updates
    {
        return Err(Invalid::new(
            "cohort.count",
            format!("{count} sites can never give min_updates = {min_updates}"),
        ));
    }
    let round_timeout = match &file.round_timeout {
        None => Duration::from_secs(3600),
        Some(text) => humantime::parse_duration(text).map_err(|_| {
            Invalid::new(
                "cohort.round_timeout",
                format!("`{text}` is no duration; write \"90s\", \"10m\" or \"2h\""),
            )
        })?,
    };
    if !(Duration::from_secs(1)..=Duration::from_secs(30 * 86_400)).contains(&round_timeout) {
        return Err(Invalid::new("cohort.round_timeout", "must be between 1 second and 30 days"));
    }
    let max_attempts = file.max_attempts.unwrap_or(3);
    within("cohort.max_attempts", u64::from(max_attempts), 1, 1000)?;
    let max_examples = file.max_examples.unwrap_or(10_000_000);
    within("cohort.max_examples", max_examples, 1, 1 << 40)?;
    Ok(CohortSpec { sites, selection, min_sites, min_updates, round_timeout, max_attempts, max_examples })
}

fn client_ids(written: &[String]) -> Result<Vec<ClientId>, Invalid> {
    if written.is_empty() {
        return Err(Invalid::new("cohort.sites", "name at least one site, or leave it out for all"));
    }
    no_duplicates("cohort.sites", written.iter().map(String::as_str))?;
    written
        .iter()
        .enumerate()
        .map(|(index, name)| name.parse().map_err(|e| invalid(&format!("cohort.sites.{index}"), e)))
        .collect()
}

fn invalid(key: &str, problem: impl ToString) -> Invalid {
    Invalid::new(key, problem.to_string())
}

fn within(key: &str, value: u64, least: u64, most: u64) -> Result<(), Invalid> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(Invalid::new(key, format!("{value} is not between {least} and {most}")))
    }
}

fn positive(key: &str, value: f64) -> Result<(), Invalid> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(Invalid::new(key, format!("{value} is not a finite number above 0")))
    }
}

fn forbid(key: &str, present: bool, why: &str) -> Result<(), Invalid> {
    if present { Err(Invalid::new(key, why)) } else { Ok(()) }
}

fn no_duplicates<'a>(key: &str, values: impl Iterator<Item = &'a str>) -> Result<(), Invalid> {
    let mut seen = BTreeSet::new();
    for value in values {
        if !seen.insert(value) {
            return Err(Invalid::new(key, format!("`{value}` is listed twice")));
        }
    }
    Ok(())
}
