//! A run in full as text: what was asked for, its rounds, who does what, and what went wrong.

use sheaf_common::message::TaskId;
use sheaf_common::record::MadeOf;
use sheaf_common::status::{
    Answer, MemberStatus, Phase, Progress, RoundOutcome, RoundRecord, RoundStatus, RunStatus,
};
use sheaf_common::time::Timestamp;

use super::json::answer;
use super::metrics;
use super::spec_card::spec_card;
use super::table::{Align, table};
use super::units::{self, bytes, coarse, count};

/// The text for `sheaf run show`.
pub(super) fn run_card(status: &RunStatus, now: Timestamp) -> String {
    let parts = [
        Some(spec_card(status, now)),
        rounds(status),
        best(status),
        metrics::metrics(status),
        metrics::test(status),
        records(&status.history),
        status.current.as_ref().map(members),
        troubles(
            "sites that hold the run",
            status.held.iter().map(|(site, why)| format!("{site}: {why}")).collect(),
        ),
        (status.earlier_records > 0)
            .then(|| format!("{} older rounds and attempts are not shown", status.earlier_records)),
        troubles("abandoned attempts", abandoned(&status.history)),
        troubles("updates that were not counted", refusals(&status.history)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

fn rounds(status: &RunStatus) -> Option<String> {
    let completed =
        status.history.iter().filter(|record| matches!(record.outcome, RoundOutcome::Completed(_)));
    let mut rows: Vec<Vec<String>> = completed.map(|record| round(status, record)).collect();
    if rows.is_empty() {
        return None;
    }
    if let Some(report) = &status.final_metrics {
        let nothing = || "-".to_owned();
        let start = ["end".into(), nothing(), nothing(), nothing()];
        rows.push(start.into_iter().chain(metrics::cells(status, Some(report))).collect());
    }
    let names = metrics::columns(status);
    let columns: Vec<(&str, Align)> = ["ROUND", "TIME", "ANSWERED", "TRAIN LOSS"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .map(|name| (name, Align::Right))
        .collect();
    let table = table(&columns, rows);
    match names.last() {
        None => Some(table),
        Some(last) => Some(format!(
            "{table}\n{} to {last}: the global model that a round started from, on the sites' validation splits",
            names[0]
        )),
    }
}

/// Which model is the run's result, when it is not simply the last.
fn best(status: &RunStatus) -> Option<String> {
    let (best, validation) = (status.best?, &status.spec.validation);
    let what = if validation.restore_best { "the result" } else { "the best" };
    (validation.restore_best || validation.patience.is_some()).then(|| {
        format!(
            "{what} is the model after round {}: {} {:.4}; {} evaluations since",
            best.round, validation.monitor, best.value, best.since
        )
    })
}

/// The newest record; the whole chain is in the JSON.
fn records(history: &[RoundRecord]) -> Option<String> {
    let newest = history.iter().rev().find_map(|round| round.record.as_ref())?;
    let body = &newest.body;
    let after = match body.previous {
        Some(previous) => format!("after {}", short(&previous.to_string())),
        None => "the first".to_owned(),
    };
    let made_of = match &body.made_of {
        MadeOf::Sum(sum) => format!("sum {} over {} sites makes", sum.blob.short(), sum.survivors.len()),
        MadeOf::Updates(updates) => format!("the updates of {} sites make", updates.len()),
        MadeOf::Listed { sites, .. } => format!("the updates of {sites} sites make"),
    };
    Some(format!(
        "record of round {}: {}, {after}; {made_of} model {} of {}",
        body.task.round,
        short(&body.digest().to_string()),
        body.model_out.short(),
        body.model_in.short(),
    ))
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn round(status: &RunStatus, record: &RoundRecord) -> Vec<String> {
    let start = [
        record.round.to_string(),
        units::duration(record.ended.since(record.started)),
        answered(record),
        metrics::number(record.train_loss),
    ];
    start.into_iter().chain(metrics::cells(status, record.global_metrics.as_ref())).collect()
}

/// `3/4`: updates counted, of those that were asked.
pub(super) fn answered(record: &RoundRecord) -> String {
    let counted = record.participants.iter().filter(|member| member.answer == Answer::Accepted).count();
    format!("{counted}/{}", record.participants.len())
}

fn members(round: &RoundStatus) -> String {
    let again = if (2..TaskId::TEST).contains(&round.attempt) {
        format!(" (attempt {})", round.attempt)
    } else {
        String::new()
    };
    let columns = [("SITE", Align::Left), ("DOES", Align::Left)];
    let rows = round.members.iter().map(|member| [member.site.to_string(), doing(member)]);
    let left = coarse(round.time_left);
    format!(
        "round {}{again}, {}, {left} until its deadline\n{}",
        round.round,
        round.stage,
        table(&columns, rows)
    )
}

/// What a member does, in a few words.
pub(super) fn doing(member: &MemberStatus) -> String {
    let does = match (&member.answer, member.progress) {
        (Answer::Accepted, _) => "answered".to_owned(),
        (Answer::Ready, _) => "ready to be summed".to_owned(),
        (Answer::Rejected(reason), _) => format!("its update was refused: {reason}"),
        (Answer::Declined(reason), _) => format!("declined: {reason}"),
        (Answer::Pending, Some(progress)) => far(&progress),
        (Answer::Pending, None) if member.connected => "has its task".to_owned(),
        (Answer::Pending, None) => return "away".to_owned(),
    };
    if member.connected { does } else { format!("{does} (away)") }
}

fn far(progress: &Progress) -> String {
    let Progress { phase, done, total, time_left, .. } = *progress;
    let (word, in_bytes) = match phase {
        Phase::Fetching => ("fetching", true),
        Phase::Preparing => ("preparing", false),
        Phase::Evaluating => ("evaluating", false),
        Phase::Training => ("training", false),
        Phase::Uploading => ("uploading", true),
    };
    let steps = match (total, in_bytes) {
        (0, _) | (1, false) => return word.to_owned(),
        (_, true) => format!("{word} {} of {}", bytes(done), bytes(total)),
        (_, false) => format!("{word} {} of {}", count(done), count(total)),
    };
    let epoch = progress.epoch().map(|(epoch, epochs)| format!(", epoch {epoch} of {epochs}"));
    let left = time_left.map(|left| format!(", about {} left", coarse(left)));
    [Some(steps), epoch, left].into_iter().flatten().collect()
}

fn abandoned(history: &[RoundRecord]) -> Vec<String> {
    let lines = history.iter().filter_map(|record| match &record.outcome {
        RoundOutcome::Abandoned(reason) => Some(format!(
            "round {}, attempt {} ({} answered): {reason}",
            record.round,
            record.attempt,
            answered(record)
        )),
        RoundOutcome::Completed(_) => None,
    });
    lines.collect()
}

fn refusals(history: &[RoundRecord]) -> Vec<String> {
    let of_round = |record: &RoundRecord| {
        let round = record.round;
        let lines = record.participants.iter().filter_map(move |member| {
            let (word, reason) = answer(&member.answer);
            Some(format!("round {round}, {} {word}: {}", member.site, reason?))
        });
        lines.collect::<Vec<_>>()
    };
    history.iter().flat_map(of_round).collect()
}

fn troubles(title: &str, lines: Vec<String>) -> Option<String> {
    (!lines.is_empty()).then(|| format!("{title}\n  {}", lines.join("\n  ")))
}
