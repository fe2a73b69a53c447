//! `sheaf cross-validate`: the same run once for each fold, or for each site that is left out, and what the models score.
//!
//! * `plan`: the runs; `report`: what is told of them. Both are free of IO.

mod plan;
mod report;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use sheaf_common::config::ConfigError;

use self::plan::{Part, Plan, Scheme};
use self::report::{Findings, Outcome};
use super::CliError;
use super::args::CrossArgs;
use super::output::{self, Output};
use super::series::Series;
use super::settings::{Settings, SettingsError};
use super::watch::{INTERRUPTED, until_interrupted};

/// The cross-validation did not take place.
#[derive(Debug, thiserror::Error)]
pub enum CrossError {
    /// The run cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// The run is wrong, or cannot be cross-validated.
    #[error(transparent)]
    Wrong(#[from] ConfigError),
}

/// Submits all runs, waits for them, and tells what they found.
pub(super) async fn execute(
    args: CrossArgs,
    settings: &dyn Fn() -> Result<Settings, SettingsError>,
    out: Output,
) -> Result<ExitCode, CliError> {
    let text = fs::read_to_string(&args.file).map_err(|e| CrossError::Read(args.file.clone(), e))?;
    let scheme = args.folds.map_or(Scheme::Sites, Scheme::Folds);
    let file = args.file.display().to_string();
    let plan = Plan::new(scheme, &file, &text).map_err(CrossError::Wrong)?;
    if let Some(warning) = plan.warning() {
        output::notice(format_args!("warning: {warning}"));
    }
    let settings = settings()?;
    let validating = async move {
        let outcomes = outcomes(plan.parts, &settings, args.resume).await?;
        let findings = Findings { scheme: plan.scheme, name: plan.name, outcomes };
        out.print(findings.text(), &findings.json())?;
        Ok(if findings.are_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    };
    until_interrupted(validating).await.unwrap_or_else(|| {
        output::notice("the runs go on at the server; the same command with --resume waits for them again");
        Ok(ExitCode::from(INTERRUPTED))
    })
}

/// What becomes of the runs. All of them are queued before the first is waited for.
async fn outcomes(parts: Vec<Part>, settings: &Settings, resume: bool) -> Result<Vec<Outcome>, CliError> {
    let mut series = Series::new(settings);
    series.check(parts.iter().map(|part| &part.document), resume).await?;
    let mut refused = Vec::new();
    for part in &parts {
        refused.push(series.submit(&part.document).await?);
    }
    let mut outcomes = Vec::new();
    for (Part { held_out, document }, refused) in parts.into_iter().zip(refused) {
        let outcome = match refused {
            Some(why) => Outcome::refused(held_out, document.run, why),
            None => Outcome::of(held_out, &*series.follow(&document.run).await?),
        };
        output::notice(format_args!("{} {}", outcome.run, outcome.state));
        outcomes.push(outcome);
    }
    series.close().await;
    Ok(outcomes)
}
