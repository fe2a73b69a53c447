//! `--out`: each trial's `run.toml` and the table as `results.csv`, in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::TuneError;
use super::report::Report;
use crate::cli::document::Document;

const RESULTS: &str = "results.csv";

/// Makes the folder, if one is asked for.
pub(super) fn make(folder: Option<&Path>) -> Result<(), TuneError> {
    folder.map_or(Ok(()), |folder| {
        fs::create_dir_all(folder).map_err(|e| TuneError::Write(folder.to_owned(), e))
    })
}

/// Writes a trial's run as `<run>.toml`.
pub(super) fn write_run(folder: Option<&Path>, document: &Document) -> Result<(), TuneError> {
    let path = folder.map(|folder| folder.join(format!("{}.toml", document.run)));
    path.map_or(Ok(()), |path| write(path, document.text.as_bytes()))
}

/// Writes the table as it is now. A search that is interrupted leaves what it has.
pub(super) fn write_results(folder: Option<&Path>, report: &Report<'_>) -> Result<(), TuneError> {
    let Some(path) = folder.map(|folder| folder.join(RESULTS)) else { return Ok(()) };
    let rows = report.csv().map_err(|e| TuneError::Write(path.clone(), std::io::Error::other(e)))?;
    write(path, &rows)
}

fn write(path: PathBuf, bytes: &[u8]) -> Result<(), TuneError> {
    fs::write(&path, bytes).map_err(|e| TuneError::Write(path, e))
}
