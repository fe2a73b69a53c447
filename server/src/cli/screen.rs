//! Live progress on a terminal: a run and its members, or files on their way.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sheaf_common::id::{ClientId, RunId};
use sheaf_common::status::{Answer, MemberStatus, Progress, RoundOutcome, RunStatus};

use super::output;
use super::run_card::doing;
use super::units::coarse;

/// Completed rounds from which the time left is estimated: the first ones, in which models are fetched, fade out.
const RECENT_ROUNDS: usize = 5;

/// A run on a terminal.
pub(super) struct Screen {
    all: MultiProgress,
    rounds: ProgressBar,
    members: BTreeMap<ClientId, ProgressBar>,
}

impl Screen {
    /// A screen for a run; `None` when nobody would see it.
    pub(super) fn new(run: &RunId) -> Option<Self> {
        if !io::stdout().is_terminal() || !io::stderr().is_terminal() {
            return None;
        }
        let all = MultiProgress::new();
        let rounds = all.add(ProgressBar::no_length());
        rounds.set_style(style("{prefix}  [{bar:24}] {pos}/{len} rounds  {elapsed} {msg}"));
        rounds.set_prefix(run.to_string());
        Some(Self { all, rounds, members: BTreeMap::new() })
    }

    /// Shows the run as it is now.
    pub(super) fn show(&mut self, status: &RunStatus) {
        self.rounds.set_length(u64::from(status.summary.rounds));
        self.rounds.set_position(u64::from(status.summary.completed_rounds));
        self.rounds.set_message(headline(status));
        let members = status.current.as_ref().map_or(&[][..], |round| &round.members);
        let gone = |site: &ClientId| members.iter().all(|member| member.site != *site);
        for (_, bar) in self.members.extract_if(.., |site, _| gone(site)) {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
        let width = members.iter().map(|member| member.site.as_str().len()).max().unwrap_or(0);
        for member in members {
            let bar = self
                .members
                .entry(member.site.clone())
                .or_insert_with(|| self.all.add(ProgressBar::no_length()));
            show_member(bar, member, width);
        }
    }

    /// Prints a line above what is live.
    pub(super) fn line(&self, text: &str) -> io::Result<()> {
        self.all.suspend(|| output::line(text))
    }

    /// Prints a remark that is no result above what is live.
    pub(super) fn notice(&self, text: &str) {
        self.all.suspend(|| output::notice(text));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no tidying.
        let _ = self.all.clear();
    }
}

fn show_member(bar: &ProgressBar, member: &MemberStatus, width: usize) {
    let steps = match (&member.answer, member.progress) {
        (Answer::Pending, Some(Progress { done, total, .. })) if total > 1 => Some((done.min(total), total)),
        (
            Answer::Pending | Answer::Ready | Answer::Accepted | Answer::Rejected(_) | Answer::Declined(_),
            _,
        ) => None,
    };
    if let Some((done, total)) = steps {
        bar.set_style(style("  {prefix}  [{bar:24}] {wide_msg}"));
        bar.set_length(total);
        bar.set_position(done);
    } else {
        bar.set_style(style("  {prefix}  {wide_msg}"));
    }
    bar.set_prefix(format!("{:width$}", member.site));
    bar.set_message(doing(member));
}

/// What is said behind the bar of rounds.
fn headline(status: &RunStatus) -> String {
    if let Some(left) = time_left(status) {
        return format!("about {} left", coarse(left));
    }
    let summary = &status.summary;
    if summary.detail.is_empty() {
        summary.state.to_string()
    } else {
        format!("{}: {}", summary.state, summary.detail)
    }
}

/// The time until the last round is completed, from how long the last ones took. `None` before there are any.
///
/// Only the server's clock is read: how long the present round has taken follows from its deadline.
pub(super) fn time_left(status: &RunStatus) -> Option<Duration> {
    let current = status.current.as_ref()?;
    let completed =
        status.history.iter().rev().filter(|round| matches!(round.outcome, RoundOutcome::Completed(_)));
    let took: Vec<Duration> =
        completed.take(RECENT_ROUNDS).map(|round| round.ended.since(round.started)).collect();
    let count = u32::try_from(took.len()).ok().filter(|count| *count > 0)?;
    let mean = took.iter().sum::<Duration>() / count;
    let rounds = status.summary.rounds.saturating_sub(status.summary.completed_rounds);
    let spent = status.spec.cohort.round_timeout.saturating_sub(current.time_left).min(mean);
    Some(mean.saturating_mul(rounds).saturating_sub(spent))
}

/// A file on its way; shown only on a terminal.
pub(super) fn transfer_bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::no_length();
    bar.set_style(style(
        "{msg}  [{bar:24}] {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}",
    ));
    bar.set_message(what.to_owned());
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are written above").progress_chars("=> ")
}
