//! `sheaf tune`: a seeded search over named keys of a run, for so many rounds.
//!
//! * `file`: what `search.toml` says; `domain` the values of a key, `keys` which keys may be searched.
//! * `trials`: what is tried; `schedule`: for how many rounds; `plan`: both as runs, and which comes next.
//! * `drive`: the search against a server; `outcome`: what became of a run, and which is best.
//! * `report`: how it is told; `folder`: what is kept of it.
//!
//! All but `drive`, `folder` and this file are free of IO.

mod domain;
mod drive;
mod file;
mod folder;
mod keys;
mod outcome;
mod plan;
mod report;
mod schedule;
#[cfg(test)]
mod tests;
mod trials;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sheaf_common::config::ConfigError;

use self::drive::Drive;
use self::file::Search;
use self::plan::{Plan, Source};
use self::report::Report;
use super::CliError;
use super::args::TuneArgs;
use super::output::{self, Output};
use super::settings::{Settings, SettingsError};
use super::watch::{INTERRUPTED, until_interrupted};

/// The search did not take place, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// The search or its run is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigError),
    /// A file cannot be written.
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, io::Error),
}

/// Searches, or says what would be searched.
pub(super) async fn execute(
    args: TuneArgs,
    settings: &dyn Fn() -> Result<Settings, SettingsError>,
    out: Output,
) -> Result<ExitCode, CliError> {
    let plan = read(&args.file)?;
    folder::make(args.out.as_deref())?;
    if args.dry_run {
        plan.documents().try_for_each(|document| folder::write_run(args.out.as_deref(), document))?;
        let report = Report { plan: &plan, done: &[] };
        out.print(report.planned(), &report.json())?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = settings()?;
    output::notice(&plan);
    let again = format!("`sheaf tune {} --resume` goes on with it", args.file.display());
    let stopped = again.clone();
    let searching = async move {
        let folder = args.out.as_deref();
        let drive = Drive::start(&plan, &settings, folder, args.resume).await?;
        let done = drive.finish().await;
        if done.is_err() {
            output::notice(format_args!("the search stops here; {stopped}"));
        }
        let done = done?;
        let report = Report { plan: &plan, done: &done };
        out.print(report.text(), &report.json())?;
        Ok(if report.best().is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    };
    until_interrupted(searching).await.unwrap_or_else(|| {
        output::notice(format_args!(
            "the search stops here, the run under way goes on at the server; {again}"
        ));
        Ok(ExitCode::from(INTERRUPTED))
    })
}

/// Reads `search.toml` and the run beside it, and plans.
fn read(path: &Path) -> Result<Plan, TuneError> {
    let read = |path: &Path| fs::read_to_string(path).map_err(|e| TuneError::Read(path.to_owned(), e));
    let (file, text) = (path.display().to_string(), read(path)?);
    let search = Search::parse(&file, &text)?;
    let run = path.parent().unwrap_or(Path::new("")).join(&search.run);
    let (run_file, run_text) = (run.display().to_string(), read(&run)?);
    let source = Source { file: &file, text: &text };
    Ok(Plan::new(&search, source, Source { file: &run_file, text: &run_text })?)
}
