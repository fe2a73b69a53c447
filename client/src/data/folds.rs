//! Which of a site's examples are in which fold, when a run holds out one of several.
//!
//! All folds of one seed and site are one division, whichever of them is held out: together they are every example
//! exactly once, so that what the runs of a cross-validation count can be added up.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use sheaf_common::run::Fold;
use sheaf_common::seed;

use super::split::{by_class, largest_first, tally};

/// The places of the examples in `fold`. Each fold has an equal number of examples, and of each class, to within one.
pub(super) fn dealt(labels: &[u32], fold: Fold, seed: u64, site_label: &str) -> BTreeSet<usize> {
    let shuffled = by_class(labels).into_iter().flat_map(|(label, mut places)| {
        places.shuffle(&mut seed::stream(seed, &["validation folds", site_label, &label.to_string()]));
        places
    });
    // A class is dealt on where the one before ended: each starting anew would give the first folds all that is over.
    let dealt = shuffled.zip(order(fold, seed, site_label).into_iter().cycle());
    dealt.filter(|(_, number)| *number == fold.number).map(|(place, _)| place).collect()
}

/// The same with groups that stay whole, one number per example: each, those with the larger part of a class first, goes
/// to the fold that has least of its classes, and of these to the one with fewest examples. So no fold is empty while
/// there are as many groups as folds.
pub(super) fn dealt_groups(
    labels: &[u32],
    groups: &[u32],
    fold: Fold,
    seed: u64,
    site_label: &str,
) -> BTreeSet<usize> {
    let sizes = tally(labels, 0..labels.len());
    let mut random = seed::stream(seed, &["validation folds of groups", site_label]);
    let mut folds: Vec<Part> = order(fold, seed, site_label).into_iter().map(Part::new).collect();
    for places in largest_first(labels, groups, &sizes, &mut random) {
        let counts = tally(labels, places.iter().copied());
        // What the squared differences between the folds' shares of the classes grow by, without what is the same for all.
        let cost = |part: &Part| {
            let of_class = |(label, count): (&u32, &f64)| part.of(*label) * count / sizes[label].powi(2);
            counts.iter().map(of_class).sum::<f64>()
        };
        let best = folds.iter_mut().min_by(|one, other| {
            cost(one).total_cmp(&cost(other)).then_with(|| one.places.len().cmp(&other.places.len()))
        });
        if let Some(part) = best {
            part.take(places, counts);
        }
    }
    folds.into_iter().find(|part| part.number == fold.number).map(|part| part.places).unwrap_or_default()
}

/// The folds in the order in which they are dealt to: another one at every site, or the first would be the largest
/// everywhere.
fn order(fold: Fold, seed: u64, site_label: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = (1..=fold.of).collect();
    numbers.shuffle(&mut seed::stream(seed, &["order of folds", site_label]));
    numbers
}

/// A fold that fills.
struct Part {
    number: u32,
    counts: BTreeMap<u32, f64>,
    places: BTreeSet<usize>,
}

impl Part {
    fn new(number: u32) -> Self {
        Self { number, counts: BTreeMap::new(), places: BTreeSet::new() }
    }

    /// Its examples of a class.
    fn of(&self, label: u32) -> f64 {
        self.counts.get(&label).copied().unwrap_or(0.0)
    }

    fn take(&mut self, places: Vec<usize>, counts: BTreeMap<u32, f64>) {
        for (label, count) in counts {
            *self.counts.entry(label).or_default() += count;
        }
        self.places.extend(places);
    }
}
