//! `run.toml` as it is written, and how it becomes a [`RunSpec`] or one sentence: a file for each table.

mod augmentation;
mod cohort;
mod compression;
mod model;
mod secagg;
mod task;
mod training;
mod validation;

use std::collections::BTreeSet;

use serde::Deserialize;

use self::cohort::{CohortFile, cohort};
use self::compression::{CompressionFile, compression};
use self::model::{ModelFile, model};
use self::secagg::{SecAggFile, secure_aggregation};
use self::task::{TaskFile, task};
use self::training::{TrainingFile, training};
use self::validation::{ValidationFile, validation};
use super::{BatchNorm, RunSpec, ServerSpec};
use crate::config::Invalid;

/// Longest purpose in bytes.
const PURPOSE_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunFile {
    name: String,
    purpose: Option<String>,
    rounds: u32,
    #[serde(default)]
    seed: u64,
    secure_aggregation: Option<String>,
    secagg: Option<SecAggFile>,
    model: ModelFile,
    task: TaskFile,
    #[serde(default)]
    training: TrainingFile,
    #[serde(default)]
    validation: ValidationFile,
    #[serde(default)]
    cohort: CohortFile,
    #[serde(default)]
    server: ServerFile,
    compression: Option<CompressionFile>,
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
        file.purpose.as_deref().map_or(Ok(()), purpose)?;
        within("rounds", u64::from(file.rounds), 1, 100_000)?;
        let secure_aggregation = secure_aggregation(file.secure_aggregation.as_deref(), file.secagg)?;
        let task = task(file.task)?;
        let model = model(file.model, &task, file.rounds)?;
        let training = training(&file.training, task.labels().len())?;
        training::fits(&training, &model, &task)?;
        let validation = validation(&file.validation, file.training.validation_split, &task.target)?;
        let cohort = cohort(file.cohort, secure_aggregation, validation.leave_out.as_ref())?;
        let learning_rate = file.server.learning_rate.unwrap_or(1.0);
        positive("server.learning_rate", learning_rate)?;
        let compression = compression(file.compression, secure_aggregation)?;
        let run = Self {
            name,
            purpose: file.purpose,
            rounds: file.rounds,
            seed: file.seed,
            secure_aggregation,
            model,
            task,
            training,
            validation,
            cohort,
            server: ServerSpec { learning_rate },
            compression,
        };
        secagg::check(&run)?;
        batch_norm(&run)?;
        Ok(run)
    }
}

/// Statistics are no parameters: nothing may go beyond their mean, and a site has those of the newest round alone.
fn batch_norm(run: &RunSpec) -> Result<(), Invalid> {
    let kept = run.model.batch_norm;
    forbid(
        "server.learning_rate",
        kept == BatchNorm::Averaged && run.server.learning_rate > 1.0,
        "is at most 1 with batch_norm = \"averaged\": a variance beyond the sites' mean may be negative",
    )?;
    forbid(
        "model.batch_norm",
        kept == BatchNorm::Local && run.validation.restore_best,
        "\"local\" goes with the newest model only: set validation.restore_best to false",
    )
}

/// It is shown on terminals, and a site compares it with those that it agrees to.
fn purpose(written: &str) -> Result<(), Invalid> {
    if written.is_empty() || written.len() > PURPOSE_MAX || written.chars().any(char::is_control) {
        return Err(Invalid::new("purpose", format!("is not one line of 1 to {PURPOSE_MAX} bytes")));
    }
    Ok(())
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
