//! Everything behind the program `sheaf`: the operator's command line.
//!
//! Most commands are one question to a running server, asked over the same QUIC port that the sites use, with an
//! operator's (or a viewer's) certificate. What is read here:
//!
//! * `args`: what can be typed; `settings`: which server, and with which certificate.
//! * `session`: a connection on which questions are asked and answered; `source`: one for long, made anew when lost.
//! * `runs`, `sites`, `models`, `audit`, `pki`, `manual`: the commands.
//! * `survey`: what the sites hold, and a run filled in from it.
//! * `tune`: a search over the keys of a run; `cross`: the same run with one part after another held out. Both make
//!   runs of a run (`document`), submit them and wait (`series`).
//! * `watch`: a run as it goes on: `event` is what happened, `screen` how a terminal shows it.
//! * `import` and `export`: models as folders on this machine (`folder`).
//! * `run_card` (its upper half is `spec_card`), `table`, `units`, `json`: how values are written, for
//!   people and for programs.

mod args;
mod audit;
mod cross;
mod document;
mod event;
mod export;
mod folder;
mod import;
mod json;
mod manual;
mod metrics;
mod models;
mod output;
mod pki;
mod run_card;
mod runs;
mod screen;
mod series;
mod session;
mod settings;
mod sites;
mod source;
mod spec_card;
mod survey;
mod table;
#[cfg(test)]
mod tests;
mod tune;
mod units;
mod watch;

use std::process::ExitCode;

use args::AuditCommand;
pub use args::{Args, Command};
pub use import::{ImportError, PutError, put_model};
use output::Output;
pub use runs::submit;
pub use session::{Session, SessionError};
pub use settings::Settings;

/// The command was not carried out, and why: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No server or no certificate to speak to it with.
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    /// The server was not reached, or did not do it.
    #[error(transparent)]
    Session(#[from] session::SessionError),
    /// No certificate was made.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    /// No certificate was read.
    #[error(transparent)]
    Certificate(#[from] crate::pki::ReadError),
    /// The request names nobody.
    #[error("{0} does not say who it is for (its CN is no name of Sheaf's): give --name")]
    Nameless(std::path::PathBuf),
    /// The server trusts other authorities than the one that is to sign.
    #[error(transparent)]
    Approve(#[from] sites::ApproveError),
    /// The run's description was not read.
    #[error("cannot read {0}: {1}")]
    RunFile(String, std::io::Error),
    /// The run's description is wrong.
    #[error(transparent)]
    Run(#[from] sheaf_common::config::ConfigError),
    /// The folder is not a model that can be imported, or did not arrive.
    #[error(transparent)]
    Import(#[from] import::ImportError),
    /// The model was not put together.
    #[error(transparent)]
    Export(#[from] export::ExportFailed),
    /// The sites were not surveyed, or nothing was written of it.
    #[error(transparent)]
    Survey(#[from] survey::SurveyError),
    /// The search did not take place, or not to its end.
    #[error(transparent)]
    Tune(#[from] tune::TuneError),
    /// The cross-validation did not take place.
    #[error(transparent)]
    Cross(#[from] cross::CrossError),
    /// Runs of these names are there already.
    #[error(transparent)]
    Series(#[from] series::SeriesError),
    /// An audit log does not hold, or cannot be checked.
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
    /// Manual pages were not written.
    #[error("cannot write manual pages to {0}: {1}")]
    Manual(String, std::io::Error),
    /// Nobody reads what is printed.
    #[error("cannot print: {0}")]
    Print(#[from] std::io::Error),
}

impl CliError {
    /// Whether it only means that the reader has seen enough, as in `sheaf run list | head`.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Print(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Carries out what was typed. Returns what the shell is told; a failure of the run that is watched is no error.
pub async fn execute(args: Args) -> Result<ExitCode, CliError> {
    let out = Output::new(args.json);
    let settings = || Settings::find(&args.connection);
    match args.command {
        Command::Run(command) => return runs::execute(command, settings()?, out).await,
        Command::CrossValidate(args) => return cross::execute(args, &settings, out).await,
        Command::Survey(args) => survey::execute(&args, &settings()?, out).await?,
        Command::Tune(args) => return tune::execute(args, &settings, out).await,
        Command::Site(command) => sites::execute(&command, &settings()?, out).await?,
        Command::Model(command) => models::execute(command, &settings, out).await?,
        Command::Audit(AuditCommand::Verify { file }) => audit::verify(&file, &settings()?, out)?,
        Command::Pki(command) => pki::execute(command, out)?,
        Command::Completions { shell } => manual::completions(shell, out)?,
        Command::Man { out: dir } => manual::man(&dir, out)?,
    }
    Ok(ExitCode::SUCCESS)
}
