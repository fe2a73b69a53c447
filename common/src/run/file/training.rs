//! The table `[training]`.

use serde::Deserialize;

use super::{augmentation, forbid, positive, within};
use crate::config::Invalid;
use crate::run::{
    AdagradSpec, AdamSpec, Architecture, Augmentation, ClassWeights, DecayOn, LocalWork, Loss, ModelSource,
    ModelSpec, Optimizer, Per, Precision, RmsPropSpec, Sampling, Schedule, ScheduleKind, Target, Task,
    Training,
};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TrainingFile {
    optimizer: Option<String>,
    learning_rate: Option<f64>,
    momentum: Option<f64>,
    nesterov: Option<bool>,
    beta1: Option<f64>,
    beta2: Option<f64>,
    epsilon: Option<f64>,
    alpha: Option<f64>,
    centered: Option<bool>,
    lr_decay: Option<f64>,
    initial_accumulator_value: Option<f64>,
    weight_decay: Option<f64>,
    weight_decay_on: Option<DecayOn>,
    batch_size: Option<u32>,
    accumulation_steps: Option<u32>,
    local_epochs: Option<u32>,
    local_steps: Option<u32>,
    schedule: Option<String>,
    schedule_per: Option<Per>,
    step_size: Option<u32>,
    gamma: Option<f64>,
    power: Option<f64>,
    warmup_steps: Option<u32>,
    layer_decay: Option<f64>,
    max_grad_value: Option<f64>,
    max_grad_norm: Option<f64>,
    label_smoothing: Option<f64>,
    focal_gamma: Option<f64>,
    class_weights: Option<ClassWeightsFile>,
    proximal_mu: Option<f64>,
    sampling: Option<Sampling>,
    max_examples_per_class: Option<u32>,
    augmentation: Option<Augmentation>,
    precision: Precision,
    deterministic: bool,
    /// What is held out is not trained on, but belongs to [`crate::run::Validation`].
    pub(super) validation_split: Option<f64>,
}

/// A number for each label, or a word.
#[derive(Deserialize)]
#[serde(untagged)]
enum ClassWeightsFile {
    Given(Vec<f64>),
    Word(String),
}

/// `labels` is the number of the run's labels.
pub(super) fn training(file: &TrainingFile, labels: usize) -> Result<Training, Invalid> {
    let optimizer = optimizer(file)?;
    let learning_rate = file.learning_rate.unwrap_or(match optimizer {
        Optimizer::Sgd { .. } | Optimizer::RmsProp(_) | Optimizer::Adagrad(_) => 0.01,
        Optimizer::Adam(_) | Optimizer::AdamW(_) => 1e-3,
    });
    positive("training.learning_rate", learning_rate)?;
    let weight_decay = file.weight_decay.unwrap_or(match optimizer {
        Optimizer::AdamW(_) => 0.01,
        Optimizer::Sgd { .. } | Optimizer::Adam(_) | Optimizer::RmsProp(_) | Optimizer::Adagrad(_) => 0.0,
    });
    not_negative("training.weight_decay", weight_decay)?;
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
    let accumulation_steps = file.accumulation_steps.unwrap_or(1);
    within("training.accumulation_steps", u64::from(accumulation_steps), 1, 65_536)?;
    for (key, limit) in
        [("training.max_grad_norm", file.max_grad_norm), ("training.max_grad_value", file.max_grad_value)]
    {
        limit.map_or(Ok(()), |limit| positive(key, limit))?;
    }
    if let Some(most) = file.max_examples_per_class {
        within("training.max_examples_per_class", u64::from(most), 1, 1_000_000_000)?;
    }
    let layer_decay = file.layer_decay.unwrap_or(1.0);
    if !(layer_decay > 0.0 && layer_decay <= 1.0) {
        return Err(Invalid::new("training.layer_decay", format!("{layer_decay} is not in (0, 1]")));
    }
    let proximal_mu = file.proximal_mu.unwrap_or(0.0);
    not_negative("training.proximal_mu", proximal_mu)?;
    Ok(Training {
        optimizer,
        learning_rate,
        weight_decay,
        weight_decay_on: file.weight_decay_on.unwrap_or(DecayOn::Weights),
        batch_size,
        accumulation_steps,
        local,
        schedule: schedule(file)?,
        layer_decay,
        max_grad_value: file.max_grad_value,
        max_grad_norm: file.max_grad_norm,
        loss: loss(file, labels)?,
        proximal_mu,
        sampling: file.sampling.unwrap_or(Sampling::Shuffle),
        max_examples_per_class: file.max_examples_per_class,
        augmentation: file.augmentation.filter(|given| *given != Augmentation::default()),
        precision: file.precision,
        deterministic: file.deterministic,
    })
}

/// Whether the model's trainer can do all that is asked: some of it needs one label an example, and softmax regression
/// is kept small.
pub(super) fn fits(training: &Training, model: &ModelSpec, task: &Task) -> Result<(), Invalid> {
    if let Some(augmentation) = &training.augmentation {
        augmentation::check(augmentation, model, task)?;
    }
    if !matches!(task.target, Target::Label { .. } | Target::Nothing) {
        let keys = [
            ("label_smoothing", training.loss.label_smoothing > 0.0),
            ("focal_gamma", training.loss.focal_gamma > 0.0),
            ("class_weights", training.loss.class_weights != ClassWeights::Equal),
            ("sampling", training.sampling == Sampling::Balanced),
            ("max_examples_per_class", training.max_examples_per_class.is_some()),
        ];
        for (key, given) in keys {
            let why = "needs examples of one label each: leave it out for this task";
            forbid(&format!("training.{key}"), given, why)?;
        }
    }
    if model.source != ModelSource::Fresh(Architecture::Softmax) {
        return Ok(());
    }
    let keys = [
        ("accumulation_steps", training.accumulation_steps > 1),
        ("layer_decay", training.layer_decay != 1.0),
        ("label_smoothing", training.loss.label_smoothing > 0.0),
        ("focal_gamma", training.loss.focal_gamma > 0.0),
        ("class_weights", training.loss.class_weights != ClassWeights::Equal),
        ("precision", training.precision != Precision::F32),
    ];
    for (key, given) in keys {
        let why = "is not for softmax regression: use architecture = \"mlp\", hidden = []";
        forbid(&format!("training.{key}"), given, why)?;
    }
    Ok(())
}

fn not_negative(key: &str, value: f64) -> Result<(), Invalid> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(Invalid::new(key, "must be 0 or above")) }
}

fn below_one(key: &str, value: f64) -> Result<(), Invalid> {
    if (0.0..1.0).contains(&value) {
        Ok(())
    } else {
        Err(Invalid::new(key, format!("{value} is not in [0, 1)")))
    }
}

fn schedule(file: &TrainingFile) -> Result<Schedule, Invalid> {
    let name = file.schedule.as_deref().unwrap_or("constant");
    let falls = matches!(name, "step" | "exponential");
    forbid(
        "training.gamma",
        file.gamma.is_some() && !falls,
        "only the schedules \"step\" and \"exponential\" have it",
    )?;
    forbid(
        "training.step_size",
        file.step_size.is_some() && name != "step",
        "only the schedule \"step\" has it",
    )?;
    forbid(
        "training.power",
        file.power.is_some() && name != "polynomial",
        "only the schedule \"polynomial\" has it",
    )?;
    let gamma = |otherwise: Option<f64>| {
        let gamma = file.gamma.or(otherwise);
        let gamma =
            gamma.ok_or_else(|| Invalid::new("training.gamma", "say by which factor the rate falls"))?;
        positive("training.gamma", gamma).map(|()| gamma)
    };
    let kind = match name {
        "constant" => ScheduleKind::Constant,
        "linear" => ScheduleKind::Linear,
        "cosine" => ScheduleKind::Cosine,
        "one-cycle" => ScheduleKind::OneCycle,
        "step" => {
            let step_size = file.step_size;
            let step_size = step_size.ok_or_else(|| {
                Invalid::new("training.step_size", "say after how many steps the rate falls")
            })?;
            within("training.step_size", u64::from(step_size), 1, 1_000_000_000)?;
            ScheduleKind::Step { step_size, gamma: gamma(Some(0.1))? }
        }
        "exponential" => ScheduleKind::Exponential { gamma: gamma(None)? },
        "polynomial" => {
            let power = file.power.unwrap_or(1.0);
            positive("training.power", power)?;
            ScheduleKind::Polynomial { power }
        }
        other => {
            return Err(Invalid::new(
                "training.schedule",
                format!(
                    "`{other}` is unknown; use \"constant\", \"linear\", \"cosine\", \"one-cycle\", \"step\", \"exponential\" or \"polynomial\""
                ),
            ));
        }
    };
    let warmup_steps = file.warmup_steps.unwrap_or(0);
    forbid(
        "training.warmup_steps",
        warmup_steps > 0 && kind == ScheduleKind::OneCycle,
        "the schedule \"one-cycle\" warms up by itself",
    )?;
    Ok(Schedule { kind, per: file.schedule_per.unwrap_or(Per::Step), warmup_steps })
}

fn loss(file: &TrainingFile, labels: usize) -> Result<Loss, Invalid> {
    let label_smoothing = file.label_smoothing.unwrap_or(0.0);
    below_one("training.label_smoothing", label_smoothing)?;
    let focal_gamma = file.focal_gamma.unwrap_or(0.0);
    not_negative("training.focal_gamma", focal_gamma)?;
    forbid(
        "training.label_smoothing",
        label_smoothing > 0.0 && focal_gamma > 0.0,
        "cannot be had with focal_gamma, which needs one true label",
    )?;
    let class_weights = match &file.class_weights {
        None => ClassWeights::Equal,
        Some(ClassWeightsFile::Word(word)) if word == "balanced-local" => ClassWeights::BalancedLocal,
        Some(ClassWeightsFile::Word(word)) if word == "balanced" => {
            return Err(Invalid::new(
                "training.class_weights",
                "takes the sites' pooled counts to be balanced, which `sheaf run submit` asks them for: write numbers here, as `sheaf survey --class-weights` does, or \"balanced-local\", by each site's own counts",
            ));
        }
        Some(ClassWeightsFile::Word(word)) => {
            return Err(Invalid::new(
                "training.class_weights",
                format!("`{word}` is unknown; give a number for each label, or \"balanced-local\""),
            ));
        }
        Some(ClassWeightsFile::Given(weights)) => {
            if weights.len() != labels {
                return Err(Invalid::new(
                    "training.class_weights",
                    format!("has {} numbers for {labels} labels", weights.len()),
                ));
            }
            weights.iter().try_for_each(|weight| positive("training.class_weights", *weight))?;
            ClassWeights::Given(weights.clone())
        }
    };
    Ok(Loss { label_smoothing, focal_gamma, class_weights })
}

fn optimizer(file: &TrainingFile) -> Result<Optimizer, Invalid> {
    let name = file.optimizer.as_deref().unwrap_or("adamw");
    let keys = [
        ("momentum", file.momentum.is_some(), &["sgd", "rmsprop"][..]),
        ("nesterov", file.nesterov.is_some(), &["sgd"]),
        ("beta1", file.beta1.is_some(), &["adam", "adamw"]),
        ("beta2", file.beta2.is_some(), &["adam", "adamw"]),
        ("epsilon", file.epsilon.is_some(), &["adam", "adamw", "rmsprop", "adagrad"]),
        ("alpha", file.alpha.is_some(), &["rmsprop"]),
        ("centered", file.centered.is_some(), &["rmsprop"]),
        ("lr_decay", file.lr_decay.is_some(), &["adagrad"]),
        ("initial_accumulator_value", file.initial_accumulator_value.is_some(), &["adagrad"]),
    ];
    const NAMES: [&str; 5] = ["sgd", "adam", "adamw", "rmsprop", "adagrad"];
    if !NAMES.contains(&name) {
        return Err(Invalid::new(
            "training.optimizer",
            format!("`{name}` is unknown; use \"sgd\", \"adam\", \"adamw\", \"rmsprop\" or \"adagrad\""),
        ));
    }
    for (key, given, has_it) in keys {
        forbid(
            &format!("training.{key}"),
            given && !has_it.contains(&name),
            &format!("\"{name}\" has none"),
        )?;
    }
    let momentum = file.momentum.unwrap_or(0.0);
    let (beta1, beta2) = (file.beta1.unwrap_or(0.9), file.beta2.unwrap_or(0.999));
    let alpha = file.alpha.unwrap_or(0.99);
    for (key, value) in [("momentum", momentum), ("beta1", beta1), ("beta2", beta2), ("alpha", alpha)] {
        below_one(&format!("training.{key}"), value)?;
    }
    let epsilon = file.epsilon.unwrap_or(if name == "adagrad" { 1e-10 } else { 1e-8 });
    positive("training.epsilon", epsilon)?;
    let lr_decay = file.lr_decay.unwrap_or(0.0);
    let initial_accumulator_value = file.initial_accumulator_value.unwrap_or(0.0);
    not_negative("training.lr_decay", lr_decay)?;
    not_negative("training.initial_accumulator_value", initial_accumulator_value)?;
    let adam = AdamSpec { beta1, beta2, epsilon };
    Ok(match name {
        "sgd" => {
            let nesterov = file.nesterov.unwrap_or(false);
            forbid("training.nesterov", nesterov && momentum == 0.0, "needs a momentum above 0")?;
            Optimizer::Sgd { momentum, nesterov }
        }
        "rmsprop" => {
            let centered = file.centered.unwrap_or(false);
            Optimizer::RmsProp(RmsPropSpec { alpha, epsilon, momentum, centered })
        }
        "adagrad" => Optimizer::Adagrad(AdagradSpec { lr_decay, initial_accumulator_value, epsilon }),
        "adam" => Optimizer::Adam(adam),
        _ => Optimizer::AdamW(adam),
    })
}
