//! An event as a line, for people and for programs.

use std::fmt;

use serde_json::{Value, json};
use sheaf_common::id::ClientId;
use sheaf_common::message::TaskId;
use sheaf_common::status::{RoundOutcome, RoundRecord};

use super::super::json as as_json;
use super::super::run_card::answered;
use super::super::units::{coarse, duration, plural};
use super::{At, Event};

impl Event {
    /// The event for programs.
    pub(in super::super) fn json(&self) -> Value {
        match self {
            Self::Found { run, state, detail, completed, rounds } => json!({
                "event": "found", "run": run, "state": state, "detail": detail,
                "completed_rounds": completed, "rounds": rounds,
            }),
            Self::State { state, detail } => json!({ "event": "state", "state": state, "detail": detail }),
            Self::Started { at, sites } => json!({
                "event": "round_started", "round": at.round, "attempt": at.attempt, "sites": sites,
            }),
            Self::Epoch { at, site, epoch, epochs, time_left } => json!({
                "event": "epoch", "round": at.round, "attempt": at.attempt, "site": site,
                "epoch": epoch, "epochs": epochs, "seconds_left": time_left.map(|left| left.as_secs_f64()),
            }),
            Self::Answered { at, site, answered, of } => json!({
                "event": "answered", "round": at.round, "attempt": at.attempt, "site": site,
                "answered": answered, "of": of,
            }),
            Self::Refused { at, site, answer } => {
                let (answer, reason) = as_json::answer(answer);
                json!({
                    "event": "refused", "round": at.round, "attempt": at.attempt, "site": site,
                    "answer": answer, "reason": reason,
                })
            }
            Self::Over { record, .. } => {
                let mut value = as_json::record(record);
                value["event"] = "round_over".into();
                value
            }
            Self::Ended { run, state, detail, metrics, test } => json!({
                "event": "ended", "run": run, "state": state, "detail": detail,
                "final_metrics": as_json::metrics(metrics.as_deref()),
                "test_metrics": as_json::metrics(test.as_deref()),
            }),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round {}/{}", self.round, self.rounds)?;
        if self.attempt == TaskId::TEST {
            return f.write_str(", test");
        }
        if self.attempt > 1 { write!(f, ", attempt {}", self.attempt) } else { Ok(()) }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found { run, state, detail, completed, rounds } => {
                write!(f, "{run}: {state}, {completed} of {rounds} rounds completed{}", Because(detail))
            }
            Self::State { state, detail } => write!(f, "{state}{}", Because(detail)),
            Self::Started { at, sites } => {
                let names: Vec<&str> = sites.iter().map(ClientId::as_str).collect();
                write!(f, "{at}: started with {}: {}", plural(names.len() as u64, "site"), names.join(", "))
            }
            Self::Epoch { at, site, epoch, epochs, time_left } => {
                write!(f, "{at}: {site} is in epoch {epoch} of {epochs}")?;
                time_left.map_or(Ok(()), |left| write!(f, ", about {} left", coarse(left)))
            }
            Self::Answered { at, site, answered, of } => write!(f, "{at}: {site} answered ({answered}/{of})"),
            Self::Refused { at, site, answer } => {
                let (word, reason) = as_json::answer(answer);
                write!(f, "{at}: {site} {word}{}", Because(reason.unwrap_or_default()))
            }
            Self::Over { at, record } => over(f, *at, record),
            Self::Ended { run, state, detail, metrics, test } => {
                write!(f, "{run} {state}{}", Because(detail))?;
                metrics.as_ref().map_or(Ok(()), |metrics| write!(f, "; final model: {metrics}"))?;
                test.as_ref().map_or(Ok(()), |metrics| write!(f, "; test of the result: {metrics}"))
            }
        }
    }
}

fn over(f: &mut fmt::Formatter<'_>, at: At, record: &RoundRecord) -> fmt::Result {
    let took = duration(record.ended.since(record.started));
    let answered = answered(record);
    match &record.outcome {
        RoundOutcome::Completed(_) => write!(f, "{at}: completed in {took}, {answered} answered")?,
        RoundOutcome::Abandoned(why) => {
            return write!(f, "{at}: abandoned after {took}, {answered} answered: {why}");
        }
    }
    if let Some(loss) = record.train_loss {
        write!(f, ", train loss {loss:.4}")?;
    }
    record.global_metrics.as_ref().map_or(Ok(()), |metrics| write!(f, "; model before it: {metrics}"))
}

/// A reason behind a colon, or nothing.
struct Because<'a>(&'a str);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": {}", self.0) }
    }
}
