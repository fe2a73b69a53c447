//! `sheaf survey`: what the sites hold, pooled, before anything is trained; and the constants of a run filled in from it.

mod fill;
mod text;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use sheaf_common::author::Author;
use sheaf_common::config::ConfigError;
use sheaf_common::id::RunId;
use sheaf_common::message::Request;
use sheaf_common::metrics::{Report, SurveyReport};
use sheaf_common::run::RunSpec;
use sheaf_common::status::{RunState, RunStatus, RunSummary};
use tokio::time::sleep;

use super::output::{self, Output};
use super::session::SessionError;
use super::settings::Settings;
use super::source::Source;
use super::{CliError, json, runs};

use fill::{Wanted, fill};
pub(super) use text::text;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(300);

/// The survey gave nothing, or nothing that can be written.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// It did not come to its end.
    #[error("survey {0} {1}: {2}")]
    Ended(RunId, RunState, String),
    /// The run cannot be filled in.
    #[error(transparent)]
    Fill(#[from] fill::FillError),
    /// The run that would be written is none.
    #[error("with what the survey found the run is wrong, and was not written: {0}")]
    Wrong(ConfigError),
    /// It cannot be written.
    #[error("cannot write {0}: {1}")]
    Write(PathBuf, std::io::Error),
}

/// What was typed after `sheaf survey`.
#[derive(Debug, clap::Args)]
pub struct SurveyArgs {
    /// The run whose columns, labels and categories are counted: run.toml.
    pub file: PathBuf,
    /// Write the run with the mean and std of every number that it lacks filled in. May be the run's own file.
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Also write class_weights by which all labels count alike.
    #[arg(long, requires = "write")]
    pub class_weights: bool,
    /// Also take out the categories that fewer examples have, which `other` then stands for.
    #[arg(long, value_name = "EXAMPLES", requires = "write")]
    pub min_count: Option<u64>,
}

impl SurveyArgs {
    /// What is written.
    fn wanted(&self) -> Wanted {
        Wanted { numbers: true, class_weights: self.class_weights, min_count: self.min_count }
    }
}

pub(super) async fn execute(args: &SurveyArgs, settings: &Settings, out: Output) -> Result<(), CliError> {
    let file = args.file.display().to_string();
    let text = fs::read_to_string(&args.file).map_err(|e| CliError::RunFile(file.clone(), e))?;
    // A typing error is found without a server.
    let spec = RunSpec::parse_survey(&file, &text)?;
    let request = |author| Request::Survey { file, text: text.clone(), author };
    let status = conduct(settings, &spec, request).await?;
    let (run, report) = (&status.summary.run, found(&status)?);
    out.print(
        self::text(report),
        &json!({ "run": run, "survey": json::metrics(status.final_metrics.as_ref()) }),
    )?;
    if let Some(path) = &args.write {
        let filled = write(path, &text, report, args.wanted())?;
        output::notice(format_args!("wrote {}: {filled}", path.display()));
    }
    Ok(())
}

fn found(status: &RunStatus) -> Result<&SurveyReport, SurveyError> {
    let RunSummary { run, state, detail, .. } = &status.summary;
    let report = status.final_metrics.as_ref().and_then(Report::survey);
    report.ok_or_else(|| SurveyError::Ended(run.clone(), state.clone(), detail.clone()))
}

/// The run of `text`, if it asks for the weights by which the labels of all sites together count alike, with these weights:
/// a survey of its own, `NAME-survey`, counts the labels first. `None` if it does not ask for them.
pub(super) async fn balanced(
    file: &str,
    text: &str,
    settings: &Settings,
) -> Result<Option<String>, CliError> {
    let Some((survey, without)) = fill::without_balanced(text) else { return Ok(None) };
    // A typing error is found without a server.
    RunSpec::parse(file, &without)?;
    let spec = RunSpec::parse_survey(file, &survey)?;
    let request = |author| Request::Survey { file: file.to_owned(), text: survey, author };
    let status = conduct(settings, &spec, request).await?;
    let wanted = Wanted { numbers: false, class_weights: true, min_count: None };
    let (text, _) = fill(&without, found(&status)?, wanted).map_err(SurveyError::from)?;
    output::notice(format_args!("class_weights are balanced over the sites, by {}", status.summary.run));
    Ok(Some(text))
}

/// Queues the survey, and waits for its end. An operator who has enough of it leaves it to the server.
async fn conduct(
    settings: &Settings,
    spec: &RunSpec,
    request: impl FnOnce(Author) -> Request,
) -> Result<Box<RunStatus>, SessionError> {
    let (run, warnings) = runs::submit(settings, spec, request).await?;
    for warning in warnings {
        output::notice(format_args!("warning: {warning}"));
    }
    output::notice(format_args!("{run} waits for its sites; `sheaf run watch {run}` shows them"));
    let mut source = Source::new(settings);
    loop {
        let status = source.status(&run, &|text: &str| output::notice(text)).await?;
        if status.summary.state.is_final() {
            source.close().await;
            return Ok(status);
        }
        sleep(INTERVAL).await;
    }
}

/// Writes the run with what was found, and says what that is.
fn write(path: &Path, text: &str, report: &SurveyReport, wanted: Wanted) -> Result<String, SurveyError> {
    let (text, filled) = fill(text, report, wanted)?;
    RunSpec::parse(&path.display().to_string(), &text).map_err(SurveyError::Wrong)?;
    fs::write(path, text).map_err(|e| SurveyError::Write(path.to_owned(), e))?;
    Ok(if filled.is_empty() { "nothing was lacking".into() } else { filled.join(", ") })
}
