//! The table `[validation]`, and `training.validation_split`.

use serde::Deserialize;

use super::{invalid, within};
use crate::config::Invalid;
use crate::id::ClientId;
use crate::run::{Fold, HeldOut, Monitor, Target, Validation};

/// More folds than this are no cross-validation that anybody waits for.
const FOLDS_MAX: u64 = 1000;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ValidationFile {
    every: Option<u32>,
    monitor: Option<Monitor>,
    min_delta: Option<f64>,
    patience: Option<u32>,
    restore_best: Option<bool>,
    test_split: Option<f64>,
    folds: Option<u32>,
    fold: Option<u32>,
    leave_out: Option<String>,
}

pub(super) fn validation(
    file: &ValidationFile,
    validation_split: Option<f64>,
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
    let held_out = held_out(file, validation_split, target)?;
    let restore_best = file.restore_best.unwrap_or(file.patience.is_some());
    for (key, given) in [("patience", file.patience.is_some()), ("restore_best", restore_best)] {
        if given && held_out.is_nothing() {
            return Err(Invalid::new(
                format!("validation.{key}"),
                "needs something to validate on: set training.validation_split above 0",
            ));
        }
    }
    Ok(Validation {
        every,
        monitor: monitor(file, target)?,
        min_delta,
        patience: file.patience,
        restore_best,
        held_out,
        test_split: test_split(file, target)?,
        leave_out: leave_out(file, restore_best, target)?,
    })
}

fn monitor(file: &ValidationFile, target: &Target) -> Result<Monitor, Invalid> {
    let known = Monitor::of_task(target);
    let monitor = file.monitor.unwrap_or(known[0]);
    if !known.contains(&monitor) {
        let known: Vec<String> = known.iter().map(|monitor| format!("\"{monitor}\"")).collect();
        return Err(Invalid::new(
            "validation.monitor",
            format!("\"{monitor}\" is no metric of this task; use {}", known.join(", ")),
        ));
    }
    Ok(monitor)
}

fn held_out(
    file: &ValidationFile,
    validation_split: Option<f64>,
    target: &Target,
) -> Result<HeldOut, Invalid> {
    let split = |problem: String| Err(Invalid::new("training.validation_split", problem));
    match (file.folds, file.fold) {
        (None, None) => match validation_split.unwrap_or(0.1) {
            share if (0.0..=0.9).contains(&share) => Ok(HeldOut::Share(share)),
            share => split(format!("{share} is not in [0, 0.9]")),
        },
        (Some(_), Some(_)) if validation_split.is_some() => {
            split("give it or `validation.folds`, not both: of folds, one is what is held out".into())
        }
        (Some(of), Some(number)) => {
            something_to_learn("validation.folds", target)?;
            within("validation.folds", u64::from(of), 2, FOLDS_MAX)?;
            within("validation.fold", u64::from(number), 1, u64::from(of))?;
            Ok(HeldOut::Fold(Fold { number, of }))
        }
        (Some(of), None) => Err(Invalid::new(
            "validation.folds",
            format!(
                "say with `fold`, from 1 to {of}, which is held out; `sheaf cross-validate` makes a run of each"
            ),
        )),
        (None, Some(_)) => Err(Invalid::new("validation.fold", "say with `folds` of how many")),
    }
}

fn test_split(file: &ValidationFile, target: &Target) -> Result<f64, Invalid> {
    const KEY: &str = "validation.test_split";
    let share = file.test_split.unwrap_or(0.0);
    if !(0.0..=0.9).contains(&share) {
        return Err(Invalid::new(KEY, format!("{share} is not in [0, 0.9]")));
    }
    if share > 0.0 {
        something_to_learn(KEY, target)?;
        let other = [("folds", file.folds.is_some()), ("leave_out", file.leave_out.is_some())];
        if let Some((other, _)) = other.iter().find(|(_, given)| *given) {
            return Err(Invalid::new(
                KEY,
                format!("give it or `{other}`, not both: each measures the model on data of its own"),
            ));
        }
    }
    Ok(share)
}

fn leave_out(
    file: &ValidationFile,
    restore_best: bool,
    target: &Target,
) -> Result<Option<ClientId>, Invalid> {
    const KEY: &str = "validation.leave_out";
    let Some(written) = &file.leave_out else { return Ok(None) };
    let site = written.parse().map_err(|e| invalid(KEY, e))?;
    something_to_learn(KEY, target)?;
    if file.folds.is_some() {
        return Err(Invalid::new(KEY, "give it or `folds`, not both"));
    }
    if restore_best {
        return Err(Invalid::new(
            "validation.restore_best",
            "with `leave_out` it is the last model that is evaluated: write restore_best = false",
        ));
    }
    Ok(Some(site))
}

fn something_to_learn(key: &str, target: &Target) -> Result<(), Invalid> {
    if *target == Target::Nothing {
        return Err(Invalid::new(key, "a run that learns nothing has nothing to validate"));
    }
    Ok(())
}
