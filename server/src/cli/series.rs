//! Runs that a command submits and waits for, each of them found by its name if it is there already.

use std::collections::BTreeSet;

use sheaf_common::id::RunId;
use sheaf_common::message::Request;
use sheaf_common::status::RunStatus;

use super::document::Document;
use super::session::SessionError;
use super::settings::Settings;
use super::source::Source;
use super::watch::{self, View};
use super::{CliError, output, runs};

/// The name of a run is in the way.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    /// There are runs of these names.
    #[error("there is a run {0} already: `--resume` goes on from it; or change the `name`, and start anew")]
    Taken(RunId),
    /// There is another run of this name.
    #[error(
        "the run {0} at the server is not what would be run now: its file has changed since; change the `name`, and start anew"
    )]
    Another(RunId),
    /// Somebody was quicker.
    #[error(
        "another run took the name {0} in this moment, and this one is queued as {1}: stop it (`sheaf run stop {1}`) and change the `name`"
    )]
    Renamed(RunId, RunId),
}

/// A connection on which one run after another is submitted and watched.
pub(super) struct Series<'a> {
    settings: &'a Settings,
    source: Source<'a>,
    warned: BTreeSet<String>,
}

impl<'a> Series<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self { settings, source: Source::new(settings), warned: BTreeSet::new() }
    }

    /// Looks whether runs with the names of `documents` are there already: none may be, unless the command is to
    /// `resume`, and then they must be the same.
    pub(super) async fn check<'d>(
        &mut self,
        documents: impl Iterator<Item = &'d Document>,
        resume: bool,
    ) -> Result<(), CliError> {
        let there = self.runs().await?;
        let taken: Vec<&Document> = documents.filter(|document| there.contains(&document.run)).collect();
        if let Some(first) = taken.first().filter(|_| !resume) {
            return Err(SeriesError::Taken(first.run.clone()).into());
        }
        for document in taken {
            let status = self.source.status(&document.run, &say).await?;
            if status.spec != document.spec {
                return Err(SeriesError::Another(document.run.clone()).into());
            }
        }
        Ok(())
    }

    /// Queues a run, unless it is there. Returns why the server would not take it, if so.
    pub(super) async fn submit(&mut self, document: &Document) -> Result<Option<String>, CliError> {
        // The server may have been restarted since the run before: this waits until it is there.
        if self.runs().await?.contains(&document.run) {
            return Ok(None);
        }
        let (file, text) = (format!("{}.toml", document.run), document.text.clone());
        let request = |author| Request::Submit { file, text, author };
        match runs::submit(self.settings, &document.spec, request).await {
            Ok((run, _)) if run != document.run => {
                Err(SeriesError::Renamed(document.run.clone(), run).into())
            }
            Ok((_, warnings)) => {
                self.warn(warnings);
                Ok(None)
            }
            Err(SessionError::Refused(why)) => Ok(Some(why)),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a run is over.
    pub(super) async fn follow(&mut self, run: &RunId) -> Result<Box<RunStatus>, CliError> {
        watch::follow(run, &mut self.source, &mut View::glimpse(run)).await
    }

    /// Says good-bye.
    pub(super) async fn close(self) {
        self.source.close().await;
    }

    async fn runs(&mut self) -> Result<BTreeSet<RunId>, SessionError> {
        let runs = self.source.runs(&say).await?;
        Ok(runs.into_iter().map(|run| run.run).collect())
    }

    /// What is said of many runs is said once.
    fn warn(&mut self, warnings: Vec<String>) {
        for warning in warnings {
            if !self.warned.contains(&warning) {
                output::notice(format_args!("warning: {warning}"));
                self.warned.insert(warning);
            }
        }
    }
}

fn say(text: &str) {
    output::notice(text);
}
