//! Printing, for people or for programs.

use std::fmt;
use std::io::{self, Write};

use serde_json::Value;

/// How results are printed: text, or JSON after `--json`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) fn is_json(self) -> bool {
        self.json
    }

    /// Prints a result: `text` for people, `json` for programs.
    pub(super) fn print(self, text: impl fmt::Display, json: &Value) -> io::Result<()> {
        if self.json { line(format_args!("{json:#}")) } else { line(text) }
    }

    /// Prints one of many results as they come: one line of text, or of JSON.
    pub(super) fn print_line(self, text: impl fmt::Display, json: &Value) -> io::Result<()> {
        if self.json { line(json) } else { line(text) }
    }
}

/// A line on standard output; unlike `println!`, a reader that has gone is an error and no panic.
pub(super) fn line(text: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// A remark on standard error; whether anybody reads it changes nothing.
pub(super) fn notice(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
