//! Runs commands in the work folder and shows them. Programs that serve run in the background; when one of them
//! ends before it was asked to, whatever waits for it fails with the end of its log.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::line::Line;
use crate::mortal;
use crate::running::{Follower, Running};
use crate::work::Work;

/// How long a program may take to stop when it is asked to.
const PATIENCE: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(20);

/// A place where commands are run.
pub(crate) struct Shell {
    programs: PathBuf,
    folder: PathBuf,
    background: Vec<Running>,
}

/// A command that runs beside others, and the name that its output is shown with.
pub(crate) struct Job {
    /// The name.
    pub(crate) name: String,
    /// The command. Its output must go to a file.
    pub(crate) line: Line,
}

/// A command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    /// A program is not beside this one.
    #[error("{0} is missing: build all programs with `cargo build --workspace`")]
    Missing(PathBuf),
    /// It cannot be started or looked after.
    #[error("`{0}` cannot be run: {1}")]
    Run(String, io::Error),
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
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} seconds{tail}", seconds = .within.as_secs())]
    Late {
        /// What.
        what: String,
        /// In which time.
        within: Duration,
        /// The ends of all logs.
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
        Ok(Self { programs, folder: work.root().to_owned(), background: Vec::new() })
    }

    /// Runs a command to its end, which must be a good one.
    pub(crate) fn run(&mut self, line: Line) -> Result<(), ShellError> {
        println!("$ {line}");
        self.run_quietly(line)
    }

    /// Runs a command without showing it.
    pub(crate) fn run_quietly(&mut self, line: Line) -> Result<(), ShellError> {
        let mut running = self.start(line, Stdio::inherit())?;
        while !succeeded(&mut running).map_err(|error| self.with_logs(error))? {
            self.check()?;
            sleep(INTERVAL);
        }
        Ok(())
    }

    /// Runs commands side by side, so many at a time and in their order, and returns how long each took.
    pub(crate) fn run_together(
        &mut self,
        jobs: Vec<Job>,
        at_a_time: usize,
    ) -> Result<Vec<Duration>, ShellError> {
        let mut times = vec![Duration::ZERO; jobs.len()];
        let mut waiting = jobs.into_iter().enumerate();
        let mut active = Vec::<(usize, Running, Follower)>::new();
        loop {
            for (number, job) in waiting.by_ref().take(at_a_time.saturating_sub(active.len())) {
                let output = self.folder.join(job.line.output.as_deref().unwrap_or_default());
                active.push((number, self.start_beside(job.line)?, Follower::new(job.name, output)));
            }
            if active.is_empty() {
                return Ok(times);
            }
            sleep(INTERVAL);
            let mut going_on = Vec::new();
            for (number, mut running, mut follower) in active {
                let ended = succeeded(&mut running)?;
                follower.show().map_err(|error| ShellError::Run(running.line.to_string(), error))?;
                if ended {
                    times[number] = running.time();
                } else {
                    going_on.push((number, running, follower));
                }
            }
            active = going_on;
        }
    }

    /// Starts a program that goes on in the background.
    pub(crate) fn start_in_background(&mut self, line: Line) -> Result<(), ShellError> {
        let running = self.start_beside(line)?;
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
                return Err(ShellError::Late { what: what.to_owned(), within, tail }.into());
            }
            sleep(INTERVAL * 5);
        }
    }

    /// Asks all programs in the background to stop, the last started first, and waits for them.
    pub(crate) fn stop_all(&mut self) -> Result<(), ShellError> {
        while let Some(mut running) = self.background.pop() {
            running.terminate();
            let deadline = Instant::now() + PATIENCE;
            while ended(&mut running)?.is_none() && Instant::now() < deadline {
                sleep(INTERVAL);
            }
            // One that takes longer is killed when it is dropped here.
        }
        Ok(())
    }

    /// Whether all programs in the background go on.
    fn check(&mut self) -> Result<(), ShellError> {
        for running in &mut self.background {
            if let Some(status) = ended(running)? {
                return Err(failed(running, status));
            }
        }
        Ok(())
    }

    /// A command that has no log itself may have failed for what a program in the background met.
    fn with_logs(&self, mut error: ShellError) -> ShellError {
        if let ShellError::Failed { tail, .. } = &mut error
            && tail.is_empty()
        {
            *tail = self.background.iter().map(Running::tail).collect();
        }
        error
    }

    fn start_beside(&self, line: Line) -> Result<Running, ShellError> {
        println!("$ {line} &");
        self.start(line, Stdio::null())
    }

    fn start(&self, line: Line, output: Stdio) -> Result<Running, ShellError> {
        let cannot = |error| ShellError::Run(line.to_string(), error);
        let file =
            |file: &Option<String>, otherwise| file.as_ref().map_or(Ok(otherwise), |file| self.file(file));
        let mut command = Command::new(self.programs.join(line.program));
        command
            .args(&line.arguments)
            .envs(line.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(file(&line.output, output).map_err(cannot)?)
            .stderr(file(&line.log, Stdio::inherit()).map_err(cannot)?);
        if line.log.is_some() {
            // Nobody wants a terminal's colours in a file.
            command.env("NO_COLOR", "1");
        }
        let child = mortal::spawn(&mut command).map_err(cannot)?;
        Ok(Running::new(line, child, &self.folder))
    }

    fn file(&self, file: &str) -> io::Result<Stdio> {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().unwrap_or(&self.folder))?;
        Ok(File::create(path)?.into())
    }
}

/// Whether a program has come to a good end; an error if to a bad one.
fn succeeded(running: &mut Running) -> Result<bool, ShellError> {
    match ended(running)? {
        None => Ok(false),
        Some(status) if status.success() => Ok(true),
        Some(status) => Err(failed(running, status)),
    }
}

fn ended(running: &mut Running) -> Result<Option<ExitStatus>, ShellError> {
    running.ended().map_err(|error| ShellError::Run(running.line.to_string(), error))
}

fn failed(running: &Running, status: ExitStatus) -> ShellError {
    ShellError::Failed { line: running.line.to_string(), status, tail: running.tail() }
}
