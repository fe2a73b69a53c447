//! Runs commands in the work folder and shows them. Programs that serve run in the background; when one of them
//! ends before it was asked to, the command that waits for it fails with the end of its log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::line::Line;
use crate::mortal;
use crate::work::Work;

/// Lines of a log that are worth showing when its program failed.
const TAIL: usize = 20;
/// How long a program may take to stop when it is asked to.
const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(20);

/// A place where commands are run.
pub(crate) struct Shell {
    programs: PathBuf,
    folder: PathBuf,
    background: Vec<Running>,
}

/// A program that has been started. It does not survive this value.
struct Running {
    line: Line,
    child: Child,
    log: Option<PathBuf>,
}

/// A command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    /// A program is not beside this one.
    #[error("{0} is missing: build all programs with `cargo build --workspace`")]
    Missing(PathBuf),
    /// It cannot be started.
    #[error("`{0}` cannot be started: {1}")]
    Start(String, io::Error),
    /// It said that it failed.
    #[error("`{line}` failed ({status}){tail}")]
    Failed {
        /// The command.
        line: String,
        /// What it said.
        status: ExitStatus,
        /// The end of its log.
        tail: String,
    },
    /// It ended although it should go on.
    #[error("`{line}` ended ({status}) while it was needed{tail}")]
    Ended {
        /// The command.
        line: String,
        /// What it said.
        status: ExitStatus,
        /// The end of its log.
        tail: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} seconds{tail}", seconds = .within.as_secs())]
    Late {
        /// What.
        what: String,
        /// In which time.
        within: Duration,
        /// The ends of the logs.
        tail: String,
    },
}

impl Shell {
    /// A shell in the work folder. All programs must be there.
    pub(crate) fn new(work: &Work) -> Result<Self, ShellError> {
        let programs = work.programs().to_owned();
        for program in ["sheaf", "sheaf-server", "sheaf-client"] {
            let path = programs.join(program);
            if !path.is_file() {
                return Err(ShellError::Missing(path));
            }
        }
        Ok(Self {
            programs,
            folder: work.root().to_owned(),
            background: Vec::new(),
        })
    }

    /// Runs a command to its end, which must be a good one.
    pub(crate) fn run(&mut self, line: Line) -> Result<(), ShellError> {
        println!("$ {line}");
        self.run_quietly(line)
    }

    /// Runs a command without showing it.
    pub(crate) fn run_quietly(&mut self, line: Line) -> Result<(), ShellError> {
        let mut running = self.start(line, Stdio::inherit())?;
        loop {
            if let Some(status) = running.ended()? {
                return if status.success() {
                    Ok(())
                } else {
                    Err(ShellError::Failed {
                        line: running.line.to_string(),
                        status,
                        tail: running.tail(),
                    })
                };
            }
            self.check()?;
            sleep(INTERVAL);
        }
    }

    /// Starts a program that goes on in the background.
    pub(crate) fn start_in_background(&mut self, line: Line) -> Result<(), ShellError> {
        println!("$ {line} &");
        let running = self.start(line, Stdio::null())?;
        self.background.push(running);
        Ok(())
    }

    /// Waits until `happened` gives something.
    pub(crate) fn wait_for<T, E: From<ShellError>>(
        &mut self,
        what: &str,
        within: Duration,
        mut happened: impl FnMut(&mut Self) -> Result<Option<T>, E>,
    ) -> Result<T, E> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(value) = happened(self)? {
                return Ok(value);
            }
            self.check()?;
            if Instant::now() > deadline {
                let tail = self.background.iter().map(Running::tail).collect();
                return Err(ShellError::Late {
                    what: what.to_owned(),
                    within,
                    tail,
                }
                .into());
            }
            sleep(INTERVAL * 5);
        }
    }

    /// Asks all programs in the background to stop, the last started first, and waits for them.
    pub(crate) fn stop_all(&mut self) -> Result<(), ShellError> {
        while let Some(mut running) = self.background.pop() {
            mortal::terminate(&running.child);
            let deadline = Instant::now() + PATIENCE;
            while running.ended()?.is_none() && Instant::now() < deadline {
                sleep(INTERVAL);
            }
            // One that takes longer is killed when it is dropped here.
        }
        Ok(())
    }

    /// Whether all programs in the background go on.
    fn check(&mut self) -> Result<(), ShellError> {
        for running in &mut self.background {
            if let Some(status) = running.ended()? {
                return Err(ShellError::Ended {
                    line: running.line.to_string(),
                    status,
                    tail: running.tail(),
                });
            }
        }
        Ok(())
    }

    fn start(&self, line: Line, output: Stdio) -> Result<Running, ShellError> {
        let failed = |error| ShellError::Start(line.to_string(), error);
        let output = line
            .output
            .as_ref()
            .map_or(Ok(output), |file| self.file(file))
            .map_err(failed)?;
        let log = line
            .log
            .as_ref()
            .map_or(Ok(Stdio::inherit()), |file| self.file(file))
            .map_err(failed)?;
        let mut command = Command::new(self.programs.join(line.program));
        command
            .args(&line.arguments)
            .envs(line.variables.iter().map(|(name, value)| (name, value)));
        command
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log);
        if line.log.is_some() {
            // Nobody wants a terminal's colours in a file.
            command.env("NO_COLOR", "1");
        }
        let child = mortal::spawn(&mut command).map_err(failed)?;
        let log = line.log.as_ref().map(|file| self.folder.join(file));
        Ok(Running { line, child, log })
    }

    fn file(&self, file: &str) -> io::Result<Stdio> {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        Ok(File::create(path)?.into())
    }
}

impl Running {
    fn ended(&mut self) -> Result<Option<ExitStatus>, ShellError> {
        self.child
            .try_wait()
            .map_err(|error| ShellError::Start(self.line.to_string(), error))
    }

    fn tail(&self) -> String {
        self.log.as_deref().map(tail).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only for a process that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The end of a log, to be put behind a sentence.
fn tail(log: &Path) -> String {
    let content = fs::read(log).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let lines: Vec<&str> = content.lines().collect();
    let last = lines.len().saturating_sub(TAIL);
    if lines.is_empty() {
        return String::new();
    }
    format!(
        "; the end of {}:\n{}",
        log.display(),
        lines[last..]
            .iter()
            .map(|l| format!("  {l}\n"))
            .collect::<String>()
    )
}
