//! `sheaf audit verify`

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::json;
use sheaf_transport::audit::{self, Broken};

use super::CliError;
use super::output::Output;
use super::settings::Settings;

/// The log could not be checked, or does not hold.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It cannot be opened.
    #[error("cannot read {path}: {1}", path = .0.display())]
    Read(PathBuf, std::io::Error),
    /// It does not hold.
    #[error("{path} does not hold: {1}", path = .0.display())]
    Broken(PathBuf, Broken),
}

/// Checks a log from its first line to its last.
pub(super) fn verify(path: &Path, settings: &Settings, out: Output) -> Result<(), CliError> {
    let log = File::open(path).map_err(|e| AuditError::Read(path.to_owned(), e))?;
    let verified = audit::verify(log, settings.credentials.authority())
        .map_err(|why| AuditError::Broken(path.to_owned(), why))?;
    Ok(out.print(verified.to_string(), &json!(verified))?)
}
