//! `sheaf run …`

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use sheaf_common::author::{self, Author};
use sheaf_common::id::RunId;
use sheaf_common::message::{Reply, Request};
use sheaf_common::run::{ModelSource, RunSpec};
use sheaf_common::status::RunSummary;
use sheaf_common::time::Timestamp;

use super::args::RunCommand;
use super::output::Output;
use super::session::{Session, SessionError};
use super::settings::Settings;
use super::table::{Align, table};
use super::{CliError, json, run_card, survey, units, watch};

pub(super) async fn execute(
    command: RunCommand,
    settings: Settings,
    out: Output,
) -> Result<ExitCode, CliError> {
    match command {
        RunCommand::Submit { file, watch } => {
            let run = submit_file(&file, &settings).await?;
            if watch {
                return watch::watch(run, settings, out).await;
            }
            let text = format!("{run} is queued: `sheaf run watch {run}` shows how it goes");
            out.print(text, &json!({ "run": run }))?;
        }
        RunCommand::List => {
            let mut session = Session::open(&settings).await?;
            let expect = |reply| {
                if let Reply::Runs(runs) = reply { Some(runs) } else { None }
            };
            let runs = session.ask(&Request::Runs, expect).await?;
            session.close().await;
            out.print(list(&runs, units::now()), &runs.iter().map(json::summary).collect())?;
        }
        RunCommand::Show { run } => {
            let mut session = Session::open(&settings).await?;
            let expect = |reply| {
                if let Reply::Run(status) = reply { Some(status) } else { None }
            };
            let status = session.ask(&Request::Run(run), expect).await?;
            session.close().await;
            out.print(run_card::run_card(&status, units::now()), &json::status(&status))?;
        }
        RunCommand::Watch { run } => return watch::watch(run, settings, out).await,
        RunCommand::Stop { run } => {
            let mut session = Session::open(&settings).await?;
            let expect = |reply| {
                if let Reply::Stopping(run) = reply { Some(run) } else { None }
            };
            let run = session.ask(&Request::Stop(run), expect).await?;
            session.close().await;
            out.print(
                format!("{run} is stopping; the rounds it has completed stay"),
                &json!({ "run": run }),
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Queues the run in a file. It is checked here first, so that a typing error is found without a server.
async fn submit_file(path: &Path, settings: &Settings) -> Result<RunId, CliError> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|e| CliError::RunFile(file.clone(), e))?;
    let text = survey::balanced(&file, &text, settings).await?.unwrap_or(text);
    let spec = RunSpec::parse(&file, &text)?;
    let request = |author| Request::Submit { file, text, author };
    let (run, warnings) = submit(settings, &spec, request).await?;
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    Ok(run)
}

/// Queues a run or a survey, signed. Returns its name, and what whoever submits it should know of its privacy.
pub async fn submit(
    settings: &Settings,
    spec: &RunSpec,
    request: impl FnOnce(Author) -> Request,
) -> Result<(RunId, Vec<String>), SessionError> {
    let mut session = Session::open(settings).await?;
    let model = match &spec.model.source {
        ModelSource::Fresh(_) => None,
        ModelSource::Imported(name) => {
            let expect = |reply| {
                if let Reply::Models(models) = reply { Some(models) } else { None }
            };
            let models = session.ask(&Request::Models, expect).await?;
            // A model that is not there is the server's to refuse, which knows the line in the file.
            models.into_iter().find(|model| model.name == *name).map(|model| model.manifest)
        }
    };
    let credentials = &settings.credentials;
    let signed_at = units::now();
    let signature =
        credentials.sign(&author::statement(spec, model, signed_at)).map_err(SessionError::Key)?;
    let author = Author { certificate: credentials.certificate(), signed_at, signature: signature.into() };
    let expect = |reply| {
        if let Reply::Submitted { run, warnings } = reply { Some((run, warnings)) } else { None }
    };
    let submitted = session.ask(&request(author), expect).await?;
    session.close().await;
    Ok(submitted)
}

/// The runs as a table.
pub(super) fn list(runs: &[RunSummary], now: Timestamp) -> String {
    if runs.is_empty() {
        return "no runs yet: `sheaf run submit run.toml` queues one".into();
    }
    let columns = [
        ("RUN", Align::Left),
        ("STATE", Align::Left),
        ("ROUNDS", Align::Right),
        ("BY", Align::Left),
        ("AGE", Align::Right),
        ("DETAIL", Align::Left),
    ];
    let rows = runs.iter().map(|run| {
        [
            run.run.to_string(),
            run.state.to_string(),
            if run.rounds == 0 {
                "survey".into()
            } else {
                format!("{}/{}", run.completed_rounds, run.rounds)
            },
            run.submitted_by.to_string(),
            units::age(run.submitted_at, now),
            run.detail.clone(),
        ]
    });
    table(&columns, rows)
}
