//! `sheaf run watch`: a run as it goes on, until it ends.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use sheaf_common::id::RunId;
use sheaf_common::message::{Reply, Request};
use sheaf_common::status::{RunState, RunStatus};
use tokio::time::sleep;

use super::CliError;
use super::event::{Event, changes};
use super::output::{self, Output};
use super::screen::Screen;
use super::session::{Session, SessionError};
use super::settings::Settings;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(300);
/// A server that does not answer so long was probably restarted: a new connection finds it sooner than the old one.
const PATIENCE: Duration = Duration::from_secs(5);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What the shell is told after Ctrl-C, by custom.
const INTERRUPTED: u8 = 130;

/// Shows `run` until it ends, or until Ctrl-C, which does not touch the run.
pub(super) async fn watch(run: RunId, settings: Settings, out: Output) -> Result<ExitCode, CliError> {
    let watching = tokio::spawn(follow(run.clone(), settings, out));
    let handle = watching.abort_handle();
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.abort();
        }
    });
    let ended = watching.await;
    interrupt.abort();
    match ended {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {
            output::notice(format_args!(
                "stopped watching; {run} goes on: `sheaf run watch {run}` returns to it"
            ));
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

async fn follow(run: RunId, settings: Settings, out: Output) -> Result<ExitCode, CliError> {
    let mut view = View::new(&run, out);
    let mut source = Source { run, settings, session: None };
    let mut seen: Option<Box<RunStatus>> = None;
    loop {
        let status = source.look(&view, seen.is_some()).await?;
        view.show(&changes(seen.as_deref(), &status), &status)?;
        if status.summary.state.is_final() {
            source.close().await;
            return Ok(verdict(&status.summary.state));
        }
        seen = Some(status);
        sleep(INTERVAL).await;
    }
}

fn verdict(state: &RunState) -> ExitCode {
    if *state == RunState::Completed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Where the statuses come from: one connection, made anew when it is lost.
struct Source {
    run: RunId,
    settings: Settings,
    session: Option<Session>,
}

impl Source {
    /// The run as it is now. After a first success, a server that is away is waited for.
    async fn look(&mut self, view: &View, patiently: bool) -> Result<Box<RunStatus>, SessionError> {
        let mut backoff = BACKOFF_FIRST;
        let mut away = false;
        loop {
            match self.try_look().await {
                Ok(status) => {
                    if away {
                        view.notice("the server is back");
                    }
                    return Ok(status);
                }
                Err(error) if patiently && error.is_passing() => {
                    self.session = None;
                    if !away {
                        view.notice(&format!("{error}; waiting for it to come back"));
                    }
                    away = true;
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_look(&mut self) -> Result<Box<RunStatus>, SessionError> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Session::open(&self.settings).await?.with_patience(PATIENCE)),
        };
        let expect = |reply| {
            if let Reply::Run(status) = reply { Some(status) } else { None }
        };
        session.ask(&Request::Run(self.run.clone()), expect).await
    }

    async fn close(self) {
        if let Some(session) = self.session {
            session.close().await;
        }
    }
}

/// Who looks on.
enum View {
    /// A person at a terminal.
    Screen(Box<Screen>),
    /// A file, a pipe or a program: one line for each thing that happens.
    Lines(Output),
}

impl View {
    fn new(run: &RunId, out: Output) -> Self {
        match Screen::new(run) {
            Some(screen) if !out.is_json() => Self::Screen(Box::new(screen)),
            Some(_) | None => Self::Lines(out),
        }
    }

    fn show(&mut self, events: &[Event], status: &RunStatus) -> io::Result<()> {
        match self {
            Self::Screen(screen) => {
                screen.show(status);
                let lasting = events.iter().filter(|event| event.is_lasting());
                lasting.map(ToString::to_string).try_for_each(|line| screen.line(&line))
            }
            Self::Lines(out) => events.iter().try_for_each(|event| out.print_line(event, &event.json())),
        }
    }

    fn notice(&self, text: &str) {
        match self {
            Self::Screen(screen) => screen.notice(text),
            Self::Lines(_) => output::notice(text),
        }
    }
}
