//! Who trains in a round: chosen from the run's seed among the sites that are connected.

use std::collections::BTreeSet;

use rand::seq::SliceRandom;
use sheaf_common::id::ClientId;
use sheaf_common::message::TaskId;
use sheaf_common::run::{CohortSpec, Selection};
use sheaf_common::seed;

/// The cohort of an attempt: never fewer than `min_updates` when so many are connected.
pub(super) fn select(
    cohort: &CohortSpec,
    seed: u64,
    task: &TaskId,
    connected: &BTreeSet<ClientId>,
) -> BTreeSet<ClientId> {
    let wanted = match cohort.selection {
        Selection::All => return connected.clone(),
        Selection::Fraction(fraction) => (fraction * connected.len() as f64).ceil() as usize,
        Selection::Count(count) => count as usize,
    };
    let mut sites: Vec<&ClientId> = connected.iter().collect();
    let labels = ["cohort", &task.round.to_string(), &task.attempt.to_string()];
    sites.shuffle(&mut seed::stream(seed, &labels));
    sites.into_iter().take(wanted.max(cohort.min_updates as usize)).cloned().collect()
}
