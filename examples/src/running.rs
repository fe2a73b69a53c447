//! A program that has been started, and what it says.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use crate::line::Line;
use crate::mortal;

/// Lines of a log that are worth showing when its program failed.
const TAIL: usize = 20;

/// A program that has been started. It does not survive this value.
pub(crate) struct Running {
    /// What was run.
    pub(crate) line: Line,
    child: Child,
    log: Option<PathBuf>,
    started: Instant,
}

impl Running {
    /// A program that has just been started with its files in `folder`.
    pub(crate) fn new(line: Line, child: Child, folder: &Path) -> Self {
        let log = line.log.as_ref().map(|file| folder.join(file));
        Self { line, child, log, started: Instant::now() }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Asks it to stop.
    pub(crate) fn terminate(&self) {
        mortal::terminate(&self.child);
    }

    /// How long ago it was started.
    pub(crate) fn time(&self) -> Duration {
        self.started.elapsed()
    }

    /// The end of its log, to be put behind a sentence; empty when it has none.
    pub(crate) fn tail(&self) -> String {
        let Some(log) = &self.log else {
            return String::new();
        };
        let content = fs::read(log).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let lines: Vec<&str> = content.lines().collect();
        if lines.is_empty() {
            return String::new();
        }
        let last = &lines[lines.len().saturating_sub(TAIL)..];
        format!("; the end of {}:\n  {}", log.display(), last.join("\n  "))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Shows what a program writes into a file, line by line, each behind a name.
pub(crate) struct Follower {
    name: String,
    path: PathBuf,
    shown: u64,
}

impl Follower {
    /// Nothing is shown yet.
    pub(crate) fn new(name: String, path: PathBuf) -> Self {
        Self { name, path, shown: 0 }
    }

    /// Shows the whole lines that were not shown yet.
    pub(crate) fn show(&mut self) -> io::Result<()> {
        for line in self.fresh()?.lines() {
            println!("{}  {line}", self.name);
        }
        Ok(())
    }

    fn fresh(&mut self) -> io::Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.shown))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        content.truncate(content.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
        self.shown += content.len() as u64;
        Ok(String::from_utf8_lossy(&content).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_whole_lines_are_shown_and_each_once() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut follower = Follower::new("a".into(), file.path().to_owned());
        let mut after = |text: &str| {
            file.write_all(text.as_bytes()).unwrap();
            follower.fresh().unwrap()
        };
        assert_eq!(after("one\ntw"), "one\n");
        assert_eq!(after(""), "");
        assert_eq!(after("o\n"), "two\n");
    }
}
