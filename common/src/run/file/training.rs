//! The table `[training]`.

use serde::Deserialize;

use super::{forbid, positive, within};
use crate::config::Invalid;
use crate::run::{AdamSpec, LocalWork, Optimizer, Schedule, ScheduleKind, Training};

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
    weight_decay: Option<f64>,
    batch_size: Option<u32>,
    local_epochs: Option<u32>,
    local_steps: Option<u32>,
    schedule: Option<ScheduleKind>,
    warmup_steps: Option<u32>,
    max_grad_norm: Option<f64>,
    validation_split: Option<f64>,
}

pub(super) fn training(file: &TrainingFile) -> Result<Training, Invalid> {
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
