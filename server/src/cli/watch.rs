//! `sheaf run watch`: a run as it goes on, until it ends.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use sheaf_common::id::RunId;
use sheaf_common::status::{RunState, RunStatus};
use tokio::time::sleep;

use super::CliError;
use super::event::{Event, changes};
use super::output::{self, Output};
use super::screen::Screen;
use super::settings::Settings;
use super::source::Source;
use super::{sites, units};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(300);

/// What the shell is told after Ctrl-C, by custom.
pub(super) const INTERRUPTED: u8 = 130;

/// Shows `run` until it ends, or until Ctrl-C, which does not touch the run.
pub(super) async fn watch(run: RunId, settings: Settings, out: Output) -> Result<ExitCode, CliError> {
    let watched = run.clone();
    let watching = async move {
        let (mut source, mut view) = (Source::new(&settings), View::new(&watched, out));
        for site in source.sites(&|text| view.notice(text)).await? {
            if let Some(days) = sites::days_left(&site, units::now()).filter(|_| site.connection.is_some()) {
                let left = units::plural(days, "day");
                view.notice(&format!("the certificate of site {} ends in {left}", site.site));
            }
        }
        let status = follow(&watched, &mut source, &mut view).await?;
        source.close().await;
        Ok(verdict(&status.summary.state))
    };
    until_interrupted(watching).await.unwrap_or_else(|| {
        output::notice(format_args!(
            "stopped watching; {run} goes on: `sheaf run watch {run}` returns to it"
        ));
        Ok(ExitCode::from(INTERRUPTED))
    })
}

/// What comes of `work`; `None` when Ctrl-C ended it first, wherever it was.
pub(super) async fn until_interrupted<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let working = tokio::spawn(work);
    let handle = working.abort_handle();
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            handle.abort();
        }
    });
    let ended = working.await;
    interrupt.abort();
    match ended {
        Ok(result) => Some(result),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

/// Shows `run` until it ends, and returns it as it then is.
pub(super) async fn follow(
    run: &RunId,
    source: &mut Source<'_>,
    view: &mut View,
) -> Result<Box<RunStatus>, CliError> {
    let mut seen: Option<Box<RunStatus>> = None;
    loop {
        let status = source.status(run, &|text| view.notice(text)).await?;
        view.show(&changes(seen.as_deref(), &status), &status)?;
        if status.summary.state.is_final() {
            return Ok(status);
        }
        seen = Some(status);
        sleep(INTERVAL).await;
    }
}

fn verdict(state: &RunState) -> ExitCode {
    if *state == RunState::Completed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Who looks on.
pub(super) enum View {
    /// A person at a terminal.
    Screen(Box<Screen>),
    /// A file, a pipe or a program: one line for each thing that happens.
    Lines(Output),
    /// Somebody to whom the run is one of many: live at a terminal, and no lines that stay.
    Glimpse(Option<Box<Screen>>),
}

impl View {
    fn new(run: &RunId, out: Output) -> Self {
        match Screen::new(run) {
            Some(screen) if !out.is_json() => Self::Screen(Box::new(screen)),
            Some(_) | None => Self::Lines(out),
        }
    }

    /// A run of which only the end matters.
    pub(super) fn glimpse(run: &RunId) -> Self {
        Self::Glimpse(Screen::new(run).map(Box::new))
    }

    fn show(&mut self, events: &[Event], status: &RunStatus) -> io::Result<()> {
        match self {
            Self::Screen(screen) => {
                screen.show(status);
                let lasting = events.iter().filter(|event| event.is_lasting());
                lasting.map(ToString::to_string).try_for_each(|line| screen.line(&line))
            }
            Self::Lines(out) => events.iter().try_for_each(|event| out.print_line(event, &event.json())),
            Self::Glimpse(screen) => {
                screen.iter_mut().for_each(|screen| screen.show(status));
                Ok(())
            }
        }
    }

    fn notice(&self, text: &str) {
        match self {
            Self::Screen(screen) | Self::Glimpse(Some(screen)) => screen.notice(text),
            Self::Lines(_) | Self::Glimpse(None) => output::notice(text),
        }
    }
}
