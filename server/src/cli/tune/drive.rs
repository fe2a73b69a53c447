//! A search against a server: one run after another, each found by its name if it is there already.

use std::collections::BTreeSet;
use std::path::Path;

use sheaf_common::id::RunId;

use super::outcome::Outcome;
use super::plan::{Document, Job, Plan, text_of};
use super::report::Report;
use super::{TuneError, folder};
use crate::cli::session::SessionError;
use crate::cli::settings::Settings;
use crate::cli::source::Source;
use crate::cli::units::plural;
use crate::cli::watch::{self, View};
use crate::cli::{CliError, output, runs};

/// A search that goes on.
pub(super) struct Drive<'a> {
    plan: &'a Plan,
    settings: &'a Settings,
    source: Source<'a>,
    folder: Option<&'a Path>,
    done: Vec<Outcome>,
    warned: BTreeSet<String>,
}

impl<'a> Drive<'a> {
    /// Looks whether the search can start, or go on if it is to `resume`.
    pub(super) async fn start(
        plan: &'a Plan,
        settings: &'a Settings,
        folder: Option<&'a Path>,
        resume: bool,
    ) -> Result<Self, CliError> {
        let source = Source::new(settings);
        let mut drive = Self { plan, settings, source, folder, done: Vec::new(), warned: BTreeSet::new() };
        let there = drive.runs().await?;
        let taken: Vec<&Document> =
            plan.documents().filter(|document| there.contains(&document.run)).collect();
        if let Some(first) = taken.first().filter(|_| !resume) {
            return Err(TuneError::Taken(first.run.clone()).into());
        }
        for document in taken {
            let status = drive.source.status(&document.run, &say).await?;
            if status.spec != document.spec {
                return Err(TuneError::Another(document.run.clone()).into());
            }
        }
        Ok(drive)
    }

    /// Goes on to the end, and says on standard error what happens.
    pub(super) async fn finish(mut self) -> Result<Vec<Outcome>, CliError> {
        while let Some(job) = self.plan.next(&self.done) {
            let Some(document) = self.plan.document(job) else { break };
            output::notice(format_args!(
                "{}: {}, with {}",
                document.run,
                plural(u64::from(document.spec.rounds), "round"),
                text_of(&self.plan.trials[job.trial]),
            ));
            let outcome = self.run(job, document).await?;
            output::notice(self.remark(&outcome));
            self.done.push(outcome);
            folder::write_results(self.folder, &Report { plan: self.plan, done: &self.done })?;
        }
        self.source.close().await;
        Ok(self.done)
    }

    async fn run(&mut self, job: Job, document: &Document) -> Result<Outcome, CliError> {
        // The server may have been restarted since the run before: this waits until it is there.
        if !self.runs().await?.contains(&document.run) {
            folder::write_run(self.folder, document)?;
            match runs::submit(self.settings, format!("{}.toml", document.run), document.text.clone()).await {
                Ok((run, warnings)) => {
                    self.warn(warnings);
                    if run != document.run {
                        return Err(TuneError::Renamed(document.run.clone(), run).into());
                    }
                }
                Err(SessionError::Refused(why)) => {
                    return Ok(Outcome::refused(job, document.run.clone(), document.spec.rounds, why));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut view = View::glimpse(&document.run);
        let status = watch::follow(&document.run, &mut self.source, &mut view).await?;
        Ok(Outcome::of(job, &status, self.plan.metric))
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

    fn remark(&self, outcome: &Outcome) -> String {
        let because = if outcome.detail.is_empty() { String::new() } else { format!(": {}", outcome.detail) };
        let score =
            outcome.score.map_or_else(String::new, |score| format!(", {} {score:.4}", self.plan.metric));
        format!("{} {}{because}{score}", outcome.run, outcome.state)
    }
}

fn say(text: &str) {
    output::notice(text);
}
