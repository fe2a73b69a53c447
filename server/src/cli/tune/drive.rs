//! A search against a server: one run after another, each found by its name if it is there already.

use std::path::Path;

use super::folder;
use super::outcome::Outcome;
use super::plan::{Job, Plan, text_of};
use super::report::Report;
use crate::cli::document::Document;
use crate::cli::series::Series;
use crate::cli::settings::Settings;
use crate::cli::units::plural;
use crate::cli::{CliError, output};

/// A search that goes on.
pub(super) struct Drive<'a> {
    plan: &'a Plan,
    series: Series<'a>,
    folder: Option<&'a Path>,
    done: Vec<Outcome>,
}

impl<'a> Drive<'a> {
    /// Looks whether the search can start, or go on if it is to `resume`.
    pub(super) async fn start(
        plan: &'a Plan,
        settings: &'a Settings,
        folder: Option<&'a Path>,
        resume: bool,
    ) -> Result<Self, CliError> {
        let mut series = Series::new(settings);
        series.check(plan.documents(), resume).await?;
        Ok(Self { plan, series, folder, done: Vec::new() })
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
        self.series.close().await;
        Ok(self.done)
    }

    async fn run(&mut self, job: Job, document: &Document) -> Result<Outcome, CliError> {
        folder::write_run(self.folder, document)?;
        if let Some(why) = self.series.submit(document).await? {
            return Ok(Outcome::refused(job, document.run.clone(), document.spec.rounds, why));
        }
        let status = self.series.follow(&document.run).await?;
        Ok(Outcome::of(job, &status, self.plan.metric))
    }

    fn remark(&self, outcome: &Outcome) -> String {
        let because = if outcome.detail.is_empty() { String::new() } else { format!(": {}", outcome.detail) };
        let score =
            outcome.score.map_or_else(String::new, |score| format!(", {} {score:.4}", self.plan.metric));
        format!("{} {}{because}{score}", outcome.run, outcome.state)
    }
}
