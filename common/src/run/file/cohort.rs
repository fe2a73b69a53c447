//! The table `[cohort]`.

use std::time::Duration;

use serde::Deserialize;

use super::{invalid, no_duplicates, within};
use crate::config::Invalid;
use crate::id::ClientId;
use crate::run::{CohortSpec, SecureAggregation, Selection};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct CohortFile {
    sites: Option<Vec<String>>,
    fraction: Option<f64>,
    count: Option<u32>,
    min_sites: Option<u32>,
    min_updates: Option<u32>,
    round_timeout: Option<String>,
    max_attempts: Option<u32>,
    max_examples: Option<u64>,
}

/// `left_out` is a site that belongs to the cohort and does not train.
pub(super) fn cohort(
    file: CohortFile,
    secure: SecureAggregation,
    left_out: Option<&ClientId>,
) -> Result<CohortSpec, Invalid> {
    let secure = secure != SecureAggregation::Off;
    let sites = file.sites.map(|sites| client_ids(&sites)).transpose()?;
    let selection = match (file.fraction, file.count) {
        (None, None) => Selection::All,
        (Some(_), Some(_)) => {
            return Err(Invalid::new("cohort.count", "give `fraction` or `count`, not both"));
        }
        (Some(fraction), None) if fraction > 0.0 && fraction <= 1.0 => Selection::Fraction(fraction),
        (Some(fraction), None) => {
            return Err(Invalid::new("cohort.fraction", format!("{fraction} is not in (0, 1]")));
        }
        (None, Some(count)) => {
            within("cohort.count", u64::from(count), 1, 1_000_000)?;
            Selection::Count(count)
        }
    };
    let named = sites.as_deref().map(|sites| trainers(sites, left_out)).transpose()?;
    let min_updates = file.min_updates.unwrap_or_else(|| named.unwrap_or(if secure { 3 } else { 1 }));
    within("cohort.min_updates", u64::from(min_updates), 1, u64::from(named.unwrap_or(1_000_000)))?;
    let min_sites = file.min_sites.unwrap_or_else(|| named.unwrap_or(min_updates));
    within(
        "cohort.min_sites",
        u64::from(min_sites),
        u64::from(min_updates),
        u64::from(named.unwrap_or(1_000_000)),
    )?;
    if let Selection::Count(count) = selection
        && count < min_updates
    {
        return Err(Invalid::new(
            "cohort.count",
            format!("{count} sites can never give min_updates = {min_updates}"),
        ));
    }
    let round_timeout = match &file.round_timeout {
        None => Duration::from_secs(3600),
        Some(text) => humantime::parse_duration(text).map_err(|_| {
            Invalid::new(
                "cohort.round_timeout",
                format!("`{text}` is no duration; write \"90s\", \"10m\" or \"2h\""),
            )
        })?,
    };
    if !(Duration::from_secs(1)..=Duration::from_secs(30 * 86_400)).contains(&round_timeout) {
        return Err(Invalid::new("cohort.round_timeout", "must be between 1 second and 30 days"));
    }
    let max_attempts = file.max_attempts.unwrap_or(3);
    within("cohort.max_attempts", u64::from(max_attempts), 1, 1000)?;
    // A hidden weight is encoded relative to the cap: one far above the sites' sizes costs precision.
    let max_examples = file.max_examples.unwrap_or(if secure { 10_000 } else { 10_000_000 });
    within("cohort.max_examples", max_examples, 1, 1 << 40)?;
    Ok(CohortSpec { sites, selection, min_sites, min_updates, round_timeout, max_attempts, max_examples })
}

/// How many of the sites train.
fn trainers(sites: &[ClientId], left_out: Option<&ClientId>) -> Result<u32, Invalid> {
    if let Some(site) = left_out.filter(|site| !sites.contains(site)) {
        return Err(Invalid::new(
            "validation.leave_out",
            format!("`{site}` is not among cohort.sites: name it there too"),
        ));
    }
    match sites.iter().filter(|site| Some(*site) != left_out).count() {
        0 => Err(Invalid::new(
            "validation.leave_out",
            "leaves nobody to train: name more sites in cohort.sites",
        )),
        count => Ok(u32::try_from(count).unwrap_or(u32::MAX)),
    }
}

fn client_ids(written: &[String]) -> Result<Vec<ClientId>, Invalid> {
    if written.is_empty() {
        return Err(Invalid::new("cohort.sites", "name at least one site, or leave it out for all"));
    }
    no_duplicates("cohort.sites", written.iter().map(String::as_str))?;
    written
        .iter()
        .enumerate()
        .map(|(index, name)| name.parse().map_err(|e| invalid(&format!("cohort.sites.{index}"), e)))
        .collect()
}
