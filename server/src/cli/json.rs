//! What `--json` prints of runs, sites and models. Its field names are an interface: add to them, change none.
//!
//! Blobs are 64 hexadecimal digits, points in time RFC 3339 in UTC, durations seconds, metrics the fields of
//! [`sheaf_common::metrics::Report`].

use aws_lc_rs::digest;
use serde::Serialize;
use serde_json::{Value, json};
use sheaf_common::enrolment::Waiting;
use sheaf_common::metrics::Report;
use sheaf_common::model::ModelInfo;
use sheaf_common::params::VALUE_BYTES;
use sheaf_common::record::{Counted, MadeOf, SignedRecord};
use sheaf_common::run::RunSpec;
use sheaf_common::status::{
    Answer, MemberStatus, Participant, Progress, RoundOutcome, RoundRecord, RoundStatus, RunStatus,
    RunSummary, SecureSum, SiteStatus,
};

use super::units::rfc3339;
use crate::pki::SigningRequest;

/// A run in a list.
pub(super) fn summary(run: &RunSummary) -> Value {
    json!({
        "run": run.run,
        "state": run.state,
        "detail": run.detail,
        "completed_rounds": run.completed_rounds,
        "rounds": run.rounds,
        "submitted_by": run.submitted_by,
        "submitted_at": rfc3339(run.submitted_at),
    })
}

/// A run in full: [`summary`] and more.
pub(super) fn status(status: &RunStatus) -> Value {
    let mut value = summary(&status.summary);
    let more = json!({
        "spec": spec(&status.spec),
        "secure_aggregation": status.spec.secure_aggregation.to_string(),
        "num_params": status.num_params,
        "bytes_per_transfer": status.num_params.saturating_mul(VALUE_BYTES),
        "bytes_per_update": status.spec.compression.bytes(status.num_params),
        "global": status.global.to_string(),
        "held": status.held.iter().map(|(site, why)| json!({ "site": site, "why": why })).collect::<Value>(),
        "current": status.current.as_ref().map(current),
        "history": status.history.iter().map(record).collect::<Value>(),
        "final_metrics": metrics(status.final_metrics.as_ref()),
        "test_metrics": metrics(status.test_metrics.as_ref()),
        "best": status.best.map(|best| json!({ "round": best.round, "value": best.value, "since": best.since })),
        "result": status.result,
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

/// An attempt at a round that is over.
pub(super) fn record(record: &RoundRecord) -> Value {
    let (outcome, global, reason) = match &record.outcome {
        RoundOutcome::Completed(global) => ("completed", Some(global.to_string()), None),
        RoundOutcome::Abandoned(reason) => ("abandoned", None, Some(reason)),
    };
    json!({
        "round": record.round,
        "attempt": record.attempt,
        "started": rfc3339(record.started),
        "ended": rfc3339(record.ended),
        "seconds": record.ended.since(record.started).as_secs_f64(),
        "outcome": outcome,
        "global": global,
        "reason": reason,
        "participants": record.participants.iter().map(participant).collect::<Value>(),
        "train_loss": record.train_loss,
        "global_metrics": metrics(record.global_metrics.as_ref()),
        "local_metrics": metrics(record.local_metrics.as_ref()),
        "secure": record.secure.as_ref().map(secure),
        "record": record.record.as_deref().map(signed),
    })
}

/// A secure sum.
fn secure(sum: &SecureSum) -> Value {
    json!({
        "sites": sum.sites,
        "num_examples": sum.num_examples,
        "clamped": sum.clamped,
        "rounding_error": sum.rounding_error,
    })
}

/// The signed record that chains the rounds.
fn signed(SignedRecord { body, certificate, signature }: &SignedRecord) -> Value {
    let made_of = match &body.made_of {
        MadeOf::Sum(sum) => json!({
            "transcript": sum.t2.to_string(),
            "survivors": sum.survivors,
            "sum": sum.blob.to_string(),
        }),
        MadeOf::Listed { sites, list } => json!({ "sites": sites, "updates_digest": list.to_string() }),
        MadeOf::Updates(updates) => {
            let update = |counted: &Counted| {
                json!({
                    "site": counted.site,
                    "update": counted.update.to_string(),
                    "num_examples": counted.num_examples,
                })
            };
            json!({ "updates": updates.iter().map(update).collect::<Value>() })
        }
    };
    json!({
        "digest": body.digest().to_string(),
        "previous": body.previous.map(|digest| digest.to_string()),
        "origin": body.origin.to_string(),
        "software": body.software,
        "made_of": made_of,
        "model_in": body.model_in.to_string(),
        "model_out": body.model_out.to_string(),
        "certificate": hex::encode(certificate),
        "signature": signature.to_string(),
    })
}

/// Metrics, or null.
pub(super) fn metrics(report: Option<&Report>) -> Value {
    report.map_or(Value::Null, plain)
}

/// A site in a list.
pub(super) fn site(site: &SiteStatus) -> Value {
    json!({
        "site": site.site,
        "connected": site.connection.is_some(),
        "transport": site.connection.map(|connection| connection.transport),
        "silent_seconds": site.connection.map(|connection| connection.silent_secs),
        "standing": site.standing,
        "address": site.address,
        "software": site.software,
        "since": rfc3339(site.since),
        "run": site.run,
        "bytes_down": site.bytes_down,
        "bytes_up": site.bytes_up,
        "certificate_expires": rfc3339(site.expires),
    })
}

/// A request for a certificate.
pub(super) fn waiting(waiting: &Waiting) -> Value {
    json!({
        "site": waiting.site,
        "renewal": waiting.renewal,
        "since": rfc3339(waiting.since),
        "address": waiting.address,
        "key": key(waiting),
    })
}

/// SHA-256 of a request's public key, by which two people can compare what they see; empty of a request that is none.
pub(super) fn key(waiting: &Waiting) -> String {
    let key = SigningRequest::parse(&waiting.request).map(|request| request.public_key());
    key.map_or_else(|_| String::new(), |key| hex::encode(digest::digest(&digest::SHA256, &key)))
}

/// A model in a list.
pub(super) fn model(model: &ModelInfo) -> Value {
    json!({
        "name": model.name,
        "id": model.manifest.to_string(),
        "model_type": model.model_type,
        "num_params": model.num_params,
        "bytes": model.bytes,
    })
}

/// The word for an answer, and the reason if it has one.
pub(super) fn answer(answer: &Answer) -> (&'static str, Option<&str>) {
    match answer {
        Answer::Pending => ("pending", None),
        Answer::Accepted => ("accepted", None),
        Answer::Ready => ("ready", None),
        Answer::Rejected(reason) => ("rejected", Some(reason)),
        Answer::Declined(reason) => ("declined", Some(reason)),
    }
}

fn current(round: &RoundStatus) -> Value {
    json!({
        "round": round.round,
        "attempt": round.attempt,
        "started": rfc3339(round.started),
        "seconds_left": round.time_left.as_secs_f64(),
        "members": round.members.iter().map(member).collect::<Value>(),
    })
}

fn member(member: &MemberStatus) -> Value {
    let (answer, reason) = answer(&member.answer);
    let progress = member.progress.as_ref();
    let epoch = progress.and_then(Progress::epoch);
    json!({
        "site": member.site,
        "connected": member.connected,
        "answer": answer,
        "reason": reason,
        "phase": progress.map(|progress| progress.phase),
        "done": progress.map(|progress| progress.done),
        "total": progress.map(|progress| progress.total),
        "epoch": epoch.map(|(epoch, _)| epoch),
        "epochs": epoch.map(|(_, epochs)| epochs),
        "seconds_left": progress.and_then(|progress| progress.time_left).map(|left| left.as_secs_f64()),
    })
}

fn participant(participant: &Participant) -> Value {
    let (answer, reason) = answer(&participant.answer);
    json!({
        "site": participant.site,
        "answer": answer,
        "reason": reason,
        "num_examples": participant.num_examples,
    })
}

fn spec(spec: &RunSpec) -> Value {
    let mut value = plain(spec);
    if let Some(timeout) = value.pointer_mut("/cohort/round_timeout") {
        *timeout = spec.cohort.round_timeout.as_secs_f64().into();
    }
    value
}

/// A value without blobs or times, as it is.
fn plain(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
