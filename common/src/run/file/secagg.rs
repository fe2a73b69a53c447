//! The key `secure_aggregation` and the table `[secagg]`.

use std::time::Duration;

use serde::Deserialize;

use super::{forbid, invalid, positive, within};
use crate::config::Invalid;
use crate::run::{GraphKind, RunSpec, SecAggSpec, SecureAggregation, Selection};
use crate::secagg::graph::{COMPLETE_MAX, roster_max};
use crate::secagg::quantize::Encoding;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SecAggFile {
    quantization_bits: Option<u8>,
    clipping_range: Option<f32>,
    max_colluding: Option<u32>,
    stage_timeout: Option<String>,
    graph: Option<String>,
    post_quantum: Option<bool>,
}

/// Whether updates are encrypted: yes, unless `"off"` is written out.
pub(super) fn secure_aggregation(
    written: Option<&str>,
    file: Option<SecAggFile>,
) -> Result<SecureAggregation, Invalid> {
    match written {
        None | Some("required") => Ok(SecureAggregation::Required(spec(&file.unwrap_or_default())?)),
        Some("off") => {
            forbid("secagg", file.is_some(), "sets up what `secure_aggregation = \"off\"` turns off")?;
            Ok(SecureAggregation::Off)
        }
        Some(other) => Err(Invalid::new(
            "secure_aggregation",
            format!(
                "`{other}` is unknown; write \"required\", or \"off\" to let the server see each site's update"
            ),
        )),
    }
}

fn spec(file: &SecAggFile) -> Result<SecAggSpec, Invalid> {
    let quantization_bits = file.quantization_bits.unwrap_or(16);
    within("secagg.quantization_bits", u64::from(quantization_bits), 8, 24)?;
    let clipping_range = file.clipping_range.unwrap_or(1.0);
    positive("secagg.clipping_range", f64::from(clipping_range))?;
    let stage_timeout = match &file.stage_timeout {
        None => Duration::from_secs(60),
        Some(text) => humantime::parse_duration(text).map_err(|_| {
            invalid("secagg.stage_timeout", format!("`{text}` is no duration; write \"60s\" or \"5m\""))
        })?,
    };
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&stage_timeout) {
        return Err(Invalid::new("secagg.stage_timeout", "must be between 1 second and 1 day"));
    }
    let graph = match file.graph.as_deref() {
        None | Some("complete") => GraphKind::Complete,
        Some("regular") => GraphKind::Regular,
        Some(other) => {
            return Err(Invalid::new(
                "secagg.graph",
                format!(
                    "`{other}` is unknown; write \"complete\", or \"regular\" for large cohorts and an honest server"
                ),
            ));
        }
    };
    Ok(SecAggSpec {
        quantization_bits,
        clipping_range,
        max_colluding: file.max_colluding,
        stage_timeout,
        graph,
        post_quantum: file.post_quantum.unwrap_or(false),
    })
}

/// Whether the run's cohort can be summed securely at all.
pub(super) fn check(run: &RunSpec) -> Result<(), Invalid> {
    let SecureAggregation::Required(spec) = run.secure_aggregation else { return Ok(()) };
    let cohort = &run.cohort;
    if cohort.min_updates < 2 {
        return Err(Invalid::new(
            "cohort.min_updates",
            "must be at least 2 with secure aggregation: the sum over one site is its update; name more sites, or write secure_aggregation = \"off\"",
        ));
    }
    let named = run.num_trainers();
    let most = match cohort.selection {
        Selection::Count(count) => Some(named.map_or(count, |named| named.min(count))),
        Selection::All | Selection::Fraction(_) => named,
    };
    // Without a bound it is known at least that a sum is over `min_updates` sites.
    let roster = most.unwrap_or(cohort.min_updates);
    if roster > COMPLETE_MAX && spec.graph == GraphKind::Complete {
        return Err(Invalid::new(
            "secagg.graph",
            format!(
                "a complete graph is for up to {COMPLETE_MAX} sites, not {roster}: write graph = \"regular\", which trusts the server to follow the protocol"
            ),
        ));
    }
    let most_keys = roster_max(spec.post_quantum);
    if roster > most_keys {
        return Err(Invalid::new(
            "cohort.count",
            format!(
                "the keys of {roster} sites do not fit in a message, only those of {most_keys}: write count = {most_keys} or fewer, or secure_aggregation = \"off\""
            ),
        ));
    }
    Encoding::new(spec.quantization_bits, roster.max(2))
        .map_err(|e| invalid("secagg.quantization_bits", e))?;
    if let (Some(colluding), Some(most)) = (spec.max_colluding, most)
        && colluding >= most
    {
        return Err(Invalid::new(
            "secagg.max_colluding",
            format!("{colluding} is not below the {most} sites of the cohort"),
        ));
    }
    Ok(())
}
