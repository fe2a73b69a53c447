//! What was asked for in a run, as text.

use sheaf_common::compression::Compression;
use sheaf_common::params::VALUE_BYTES;
use sheaf_common::run::{
    Architecture, Fold, GraphKind, HeldOut, LocalWork, Lora, ModelSource, Optimizer, Pooling, Precision,
    RunSpec, SecureAggregation, Selection, Target, TaskInput, Trainable, Validation,
};
use sheaf_common::status::RunStatus;
use sheaf_common::time::Timestamp;

use super::table::card;
use super::units::{self, bytes, coarse, count, plural};

/// The upper part of `sheaf run show`.
pub(super) fn spec_card(status: &RunStatus, now: Timestamp) -> String {
    let (summary, spec) = (&status.summary, &status.spec);
    let mut state = match summary.rounds {
        0 => format!("{}, a survey", summary.state),
        rounds => format!("{}, {} of {rounds} rounds completed", summary.state, summary.completed_rounds),
    };
    if !summary.detail.is_empty() {
        state.push_str(&format!("\n{}", summary.detail));
    }
    let lines = [
        ("run", summary.run.to_string()),
        ("state", state),
        ("submitted", format!("by {}, {} ago", summary.submitted_by, units::age(summary.submitted_at, now))),
        ("model", model(spec)),
        ("travels", travels(status.num_params, &spec.compression)),
        ("task", task(spec)),
        ("training", training(spec)),
        ("cohort", cohort(spec)),
        ("held out", held_out(&spec.validation)),
        ("privacy", privacy(spec)),
        ("global", status.global.short()),
    ];
    // A survey has no model.
    let of_a_model = |key| matches!(key, "model" | "travels" | "training" | "global");
    let lines: Vec<_> =
        lines.into_iter().filter(|(key, _)| !(spec.is_survey() && of_a_model(*key))).collect();
    card(&lines)
}

fn model(spec: &RunSpec) -> String {
    let source = match &spec.model.source {
        ModelSource::Imported(name) => name.clone(),
        ModelSource::Fresh(Architecture::Mlp(hidden)) => {
            let hidden: Vec<String> = hidden.iter().map(ToString::to_string).collect();
            format!("mlp from the seed, hidden layers {}", hidden.join(", "))
        }
        ModelSource::Fresh(Architecture::Softmax) => "softmax regression from the seed".into(),
        ModelSource::Fresh(Architecture::Constant(values)) => format!("none: {} constants", count(*values)),
    };
    let trainable = match &spec.model.lora {
        Some(lora) => adapters(lora, &spec.model.trainable, &spec.task.target),
        None => spec.model.trained(),
    };
    let pooling = match (&spec.task.input, spec.model.pooling) {
        _ if matches!(spec.task.target, Target::NextToken { .. }) => "",
        (TaskInput::Text { .. }, Pooling::Mean) => ", mean pooling",
        (TaskInput::Text { .. }, Pooling::Cls) => ", CLS pooling",
        (TaskInput::Table { .. } | TaskInput::Image { .. } | TaskInput::Nothing, _) => "",
    };
    format!("{source}; trains {trainable}{pooling}")
}

fn adapters(lora: &Lora, layers: &Trainable, target: &Target) -> String {
    let whose = match layers {
        // A language model's head stays as it is.
        Trainable::All if matches!(target, Target::NextToken { .. }) => "of every layer".to_owned(),
        Trainable::All => "of every layer and the head".to_owned(),
        Trainable::Head | Trainable::Last(_) | Trainable::Matching(_) => format!("of {layers}"),
    };
    format!("LoRA adapters of rank {} {whose}", lora.rank)
}

/// What goes over the network.
fn travels(num_params: u64, compression: &Compression) -> String {
    let (parameters, size) = (count(num_params), bytes(num_params.saturating_mul(VALUE_BYTES)));
    if compression.is_off() {
        return format!("{parameters} parameters, {size} each way per site and round");
    }
    let up = bytes(compression.bytes(num_params));
    format!("{parameters} parameters, {size} to each site and at most {up} back ({compression}) per round")
}

fn task(spec: &RunSpec) -> String {
    let task = &spec.task;
    let from = match &task.input {
        TaskInput::Text { column, max_length } => format!("text in `{column}`, up to {max_length} tokens"),
        TaskInput::Table { features } => plural(features.len() as u64, "column"),
        TaskInput::Image { size: Some(size), .. } => format!("images of {size} x {size}"),
        TaskInput::Image { size: None, .. } => "images".into(),
        TaskInput::Nothing => return "none".into(),
    };
    let what = match &task.target {
        Target::Label { column, labels } => format!("`{column}` ({} labels)", labels.len()),
        Target::Labels { column, labels, .. } => format!("`{column}` (any of {} labels)", labels.len()),
        Target::Number(number) => format!("`{}` (a number)", number.column),
        Target::NextToken { answer: Some(answer), .. } => format!("the answer in `{answer}`"),
        Target::NextToken { answer: None, .. } => "the next token".into(),
        Target::Nothing => return "none".into(),
    };
    format!("{what} from {from}; data set {}", task.dataset)
}

fn training(spec: &RunSpec) -> String {
    let training = &spec.training;
    let optimizer = match training.optimizer {
        Optimizer::Sgd { .. } => "SGD",
        Optimizer::Adam(_) => "Adam",
        Optimizer::AdamW(_) => "AdamW",
        Optimizer::RmsProp(_) => "RMSprop",
        Optimizer::Adagrad(_) => "Adagrad",
    };
    let work = match training.local {
        LocalWork::Epochs(epochs) => plural(u64::from(epochs), "epoch"),
        LocalWork::Steps(steps) => plural(u64::from(steps), "step"),
    };
    let precision = match training.precision {
        Precision::F32 => "",
        Precision::Bf16 => ", in bf16",
    };
    let deterministic = if training.deterministic { ", deterministic" } else { "" };
    format!(
        "{optimizer}, learning rate {}, batches of {}, {work} per round{precision}{deterministic}",
        training.learning_rate, training.batch_size
    )
}

fn cohort(spec: &RunSpec) -> String {
    let cohort = &spec.cohort;
    let chosen = match cohort.selection {
        Selection::All => "all connected sites".to_owned(),
        Selection::Fraction(share) => format!("{}% of the connected sites", share * 100.0),
        Selection::Count(sites) => format!("{sites} of the connected sites"),
    };
    let of = cohort.sites.as_ref().map_or_else(String::new, |sites| {
        let names: Vec<&str> = sites.iter().map(|site| site.as_str()).collect();
        format!(" of {}", names.join(", "))
    });
    format!(
        "{chosen}{of}; starts with {} connected, counts with {}, waits {}",
        plural(u64::from(cohort.min_sites), "site"),
        plural(u64::from(cohort.min_updates), "update"),
        coarse(cohort.round_timeout)
    )
}

/// What is held out, and where.
fn held_out(validation: &Validation) -> String {
    let everywhere = match validation.held_out {
        HeldOut::Share(0.0) => "nothing".to_owned(),
        HeldOut::Share(share) => format!("{}% of each site's examples", share * 100.0),
        HeldOut::Fold(Fold { number, of }) => format!("fold {number} of {of} at each site"),
    };
    let everywhere = match validation.test_split {
        0.0 => everywhere,
        share => format!("{everywhere}, after {}% for the test at the end", share * 100.0),
    };
    match &validation.leave_out {
        None => everywhere,
        Some(site) => format!("{everywhere}; {site} does not train, and evaluates the final model"),
    }
}

fn privacy(spec: &RunSpec) -> String {
    let summed = secure_aggregation(spec.secure_aggregation, spec.cohort.min_updates);
    match &spec.validation.leave_out {
        None => summed,
        Some(site) => format!("{summed}; and the final metrics of {site} alone"),
    }
}

/// What the server can see, said out loud.
fn secure_aggregation(how: SecureAggregation, least: u32) -> String {
    match how {
        SecureAggregation::Off => "secure aggregation is off: the server sees each site's update".into(),
        SecureAggregation::Required(spec) => {
            let graph = match spec.graph {
                GraphKind::Complete => "",
                GraphKind::Regular => "; regular graph: against a server that follows the protocol",
            };
            format!("secure aggregation: the server sees only sums over at least {least} sites{graph}")
        }
    }
}
