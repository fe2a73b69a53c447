//! What a site engineer does without a server.
//!
//! * [`check`] verifies that everything is in order and says what a run would cost.
//! * [`train`] makes the site's own baseline: the same run without the other sites.
//! * [`evaluate`] scores models on one data set.
//!
//! The first three read the very files that the daemon and the server read: `site.toml`, `run.toml`, model folders.
//! `run` makes a job of them, as the server would; `folder` and `export` read and write models.

pub mod check;
pub mod evaluate;
mod export;
mod folder;
mod run;
#[cfg(test)]
mod tests;
pub mod train;
pub(crate) mod units;

use std::io::{self, Write};
use std::path::Path;

use crate::approval::{self, ApproveArgs, ApproveError};
use crate::audit::{AuditCommand, VerifyError};
pub use check::CheckArgs;
pub use evaluate::EvaluateArgs;
pub use export::ExportFailed;
pub use folder::FolderError;
pub use run::RunError;
pub use train::TrainArgs;

/// A command that needs no server.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Verify certificate, data, device and, with --run, everything that a run needs
    Check(CheckArgs),
    /// Train a run's model on this site's data alone, without a server
    Train(TrainArgs),
    /// Score models on one of this site's data sets
    Evaluate(EvaluateArgs),
    /// Say yes to a run that waits for it, or list what was asked for and what would leave the site
    Approve(ApproveArgs),
    /// The log of what the site was asked, what left it, and what it refused
    #[command(subcommand)]
    Audit(AuditCommand),
}

/// A command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// Training.
    #[error(transparent)]
    Train(#[from] train::BaselineError),
    /// Evaluating.
    #[error(transparent)]
    Evaluate(#[from] evaluate::EvaluateError),
    /// Approving.
    #[error(transparent)]
    Approve(#[from] ApproveError),
    /// Checking the audit log.
    #[error(transparent)]
    Audit(#[from] VerifyError),
    /// Printing.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl Command {
    /// Does it as the site of `site_toml` and prints what came of it. Whether all is well: only `check` can find
    /// that it is not.
    pub fn execute(&self, site_toml: &Path, out: &mut dyn Write) -> Result<bool, OfflineError> {
        match self {
            Self::Check(args) => {
                let report = check::check(site_toml, args);
                report.print(args.json, out)?;
                Ok(report.passed)
            }
            Self::Train(args) => {
                train::train_and_print(site_toml, args, out)?;
                Ok(true)
            }
            Self::Evaluate(args) => {
                evaluate::evaluate(site_toml, args)?.print(args.json, out)?;
                Ok(true)
            }
            Self::Approve(args) => {
                approval::approve(site_toml, args, out)?;
                Ok(true)
            }
            Self::Audit(command) => {
                command.execute(site_toml, out)?;
                Ok(true)
            }
        }
    }
}
