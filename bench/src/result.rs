//! What the turns of a contestant came to, as `result.json` has it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::case::{Case, Sample};

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) contestant: &'static str,
    pub(crate) size_mb: f64,
    pub(crate) clients: u32,
    /// The median over all rounds of all turns.
    pub(crate) seconds: Option<f64>,
    pub(crate) min: Option<f64>,
    pub(crate) max: Option<f64>,
    /// The largest of all turns.
    pub(crate) server_rss_mb: Option<f64>,
    /// The median over the turns.
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) ok: bool,
    /// The median over the turns; see [`Sample::wire`].
    #[serde(skip)]
    pub(crate) wire: Option<f64>,
    /// Why it failed.
    #[serde(skip)]
    pub(crate) failure: Option<String>,
}

impl Row {
    pub(crate) fn of(case: &Case, samples: Result<Vec<Sample>>) -> Self {
        let failure = samples.as_ref().err().map(|error| format!("{error:#}"));
        let samples = samples.unwrap_or_default();
        let seconds: Vec<f64> = samples.iter().flat_map(|sample| sample.seconds.iter().copied()).collect();
        let of_turns =
            |value: fn(&Sample) -> Option<f64>| samples.iter().filter_map(value).collect::<Vec<_>>();
        Self {
            workload: case.workload,
            contestant: case.contestant,
            size_mb: case.size_mb,
            clients: case.clients,
            seconds: median(&seconds),
            min: seconds.iter().copied().reduce(f64::min),
            max: seconds.iter().copied().reduce(f64::max),
            server_rss_mb: of_turns(|sample| sample.server_rss_mb).into_iter().reduce(f64::max),
            cpu_seconds: median(&of_turns(|sample| sample.cpu_seconds)),
            ok: failure.is_none(),
            wire: median(&of_turns(|sample| sample.wire)),
            failure,
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

pub(crate) fn write(rows: &[Row], path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(rows)?;
    fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn a_contestant_that_failed_has_no_figures() {
        let case = Case {
            workload: "round",
            contestant: "other",
            size_mb: 1.0,
            clients: 4,
            run: Box::new(|| Ok(Sample::default())),
        };
        let row = Row::of(&case, Err(anyhow::anyhow!("it stopped")));
        assert_eq!(row.failure.as_deref(), Some("it stopped"));
        let json = serde_json::to_value(&row).unwrap();
        let expected = serde_json::json!({
            "workload": "round", "contestant": "other", "size_mb": 1.0, "clients": 4, "seconds": null, "min": null,
            "max": null, "server_rss_mb": null, "cpu_seconds": null, "ok": false,
        });
        assert_eq!(json, expected);
    }
}
