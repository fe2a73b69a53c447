//! The table `[validation]`.

use serde::Deserialize;

use super::within;
use crate::config::Invalid;
use crate::run::{Monitor, Target, Validation};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ValidationFile {
    every: Option<u32>,
    monitor: Option<Monitor>,
    min_delta: Option<f64>,
    patience: Option<u32>,
    restore_best: Option<bool>,
}

pub(super) fn validation(
    file: &ValidationFile,
    validation_split: f64,
    target: &Target,
) -> Result<Validation, Invalid> {
    let every = file.every.unwrap_or(1);
    within("validation.every", u64::from(every), 1, 100_000)?;
    let min_delta = file.min_delta.unwrap_or(0.0);
    if !(min_delta.is_finite() && min_delta >= 0.0) {
        return Err(Invalid::new("validation.min_delta", format!("{min_delta} is not 0 or above")));
    }
    if let Some(patience) = file.patience {
        within("validation.patience", u64::from(patience), 1, 100_000)?;
    }
    let restore_best = file.restore_best.unwrap_or(file.patience.is_some());
    for (key, given) in [("patience", file.patience.is_some()), ("restore_best", restore_best)] {
        if given && validation_split == 0.0 {
            return Err(Invalid::new(
                format!("validation.{key}"),
                "needs something to validate on: set training.validation_split above 0",
            ));
        }
    }
    let known = Monitor::of_task(target);
    let monitor = file.monitor.unwrap_or(known[0]);
    if !known.contains(&monitor) {
        let known: Vec<String> = known.iter().map(|monitor| format!("\"{monitor}\"")).collect();
        return Err(Invalid::new(
            "validation.monitor",
            format!("\"{monitor}\" is no metric of this task; use {}", known.join(", ")),
        ));
    }
    Ok(Validation { every, monitor, min_delta, patience: file.patience, restore_best })
}
