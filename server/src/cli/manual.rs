//! `sheaf completions` and `sheaf man`: made from what can be typed, so that they are never out of date.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

use super::output::{self, Output};
use super::{Args, CliError};

pub(super) fn completions(shell: Shell, out: Output) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "sheaf", &mut script);
    let script = String::from_utf8_lossy(&script);
    if out.is_json() {
        return Ok(out.print("", &json!({ "shell": shell.to_string(), "script": script }))?);
    }
    Ok(output::line(script.trim_end())?)
}

pub(super) fn man(dir: &Path, out: Output) -> Result<(), CliError> {
    let failed = |e| CliError::Manual(dir.display().to_string(), e);
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), dir).map_err(failed)?;
    let text = format!("wrote the manual: man -l {}", dir.join("sheaf.1").display());
    Ok(out.print(text, &json!({ "dir": dir }))?)
}
