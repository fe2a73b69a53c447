//! Which of a site's examples are held out, for the test at the end and for validation.
//!
//! The division is drawn from the run's seed and the site's name, so that it is the same in every round and
//! after every restart, and differs from site to site. It is stratified: every class gives its share. Examples that
//! belong together, such as those of one patient, stay together.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::seq::SliceRandom;
use sheaf_common::run::HeldOut;
use sheaf_common::seed;

use super::{Dataset, Inputs, Split, folds};

/// Divides `dataset`: holds out a share (in [0, 0.9]) of the examples, rounded, and of every class as near to its share
/// as whole examples allow; the last example of a class is always trained on. Or holds out one of several folds.
///
/// With `groups`, one number per example, a group is held out whole or not at all, so that the shares are met only as
/// nearly as whole groups allow.
pub fn split(dataset: Dataset, groups: Option<&[u32]>, what: HeldOut, seed: u64, site_label: &str) -> Split {
    let labels = &dataset.targets.classes();
    let held_out = match (what, groups) {
        (HeldOut::Share(share), groups) => {
            held_out_share(labels, groups, share, "validation", (seed, site_label))
        }
        (HeldOut::Fold(fold), None) => folds::dealt(labels, fold, seed, site_label),
        (HeldOut::Fold(fold), Some(groups)) => folds::dealt_groups(labels, groups, fold, seed, site_label),
    };
    let (train, validation) = part(dataset, &held_out);
    Split { train, validation }
}

/// A site's examples without those that are for the test at the end, and these.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// What is trained and validated on.
    pub rest: Dataset,
    /// The groups of the rest, when the run has groups.
    pub groups: Option<Vec<u32>>,
    /// What the run's result is tested on; may be empty.
    pub test: Dataset,
}

/// Holds out a share of the examples for the test, by the rules of [`split`] and before it.
pub fn hold_out_test(
    dataset: Dataset,
    groups: Option<Vec<u32>>,
    share: f64,
    seed: u64,
    site_label: &str,
) -> Parts {
    if share == 0.0 {
        return Parts { test: dataset.empty_like(), rest: dataset, groups };
    }
    let labels = dataset.targets.classes();
    let places = held_out_share(&labels, groups.as_deref(), share, "test", (seed, site_label));
    let groups = groups.map(|groups| divide(groups, &places).0);
    let (rest, test) = part(dataset, &places);
    Parts { rest, groups, test }
}

/// At most `most` examples of each class, drawn once for the whole run.
pub fn few(dataset: Dataset, most: usize, seed: u64, site_label: &str) -> Dataset {
    let mut left_out = BTreeSet::new();
    for (label, mut places) in by_class(&dataset.targets.classes()) {
        places.shuffle(&mut seed::stream(seed, &["examples per class", site_label, &label.to_string()]));
        left_out.extend(places.into_iter().skip(most));
    }
    part(dataset, &left_out).0
}

/// The examples that are not at these places, and those that are.
fn part(dataset: Dataset, places: &BTreeSet<usize>) -> (Dataset, Dataset) {
    let (rest, taken): (Vec<usize>, Vec<usize>) =
        (0..dataset.len()).partition(|place| !places.contains(place));
    let (targets, other_targets) = (dataset.targets.select(&rest), dataset.targets.select(&taken));
    let (inputs, other_inputs) = match dataset.inputs {
        Inputs::Text(texts) => {
            let (texts, others) = divide(texts, places);
            (Inputs::Text(texts), Inputs::Text(others))
        }
        Inputs::Table { width, values } => {
            let [rows, others] = divide_rows(values, width, places);
            (Inputs::Table { width, values: rows }, Inputs::Table { width, values: others })
        }
        Inputs::StoredText(texts) => {
            let [texts, others] = texts.divided(places);
            (Inputs::StoredText(texts), Inputs::StoredText(others))
        }
        Inputs::StoredTable { width, rows } => {
            let [rows, others] = rows.divided(places);
            (Inputs::StoredTable { width, rows }, Inputs::StoredTable { width, rows: others })
        }
        Inputs::Images { size, values } => {
            let [rows, others] = divide_rows(values, 3 * size * size, places);
            (Inputs::Images { size, values: rows }, Inputs::Images { size, values: others })
        }
        Inputs::StoredImages { size, images } => {
            let [rows, others] = images.divided(places);
            (Inputs::StoredImages { size, images: rows }, Inputs::StoredImages { size, images: others })
        }
    };
    (Dataset { inputs, targets }, Dataset { inputs: other_inputs, targets: other_targets })
}

impl Dataset {
    /// The examples at these places, in this order.
    pub fn select(&self, places: &[usize]) -> Self {
        let rows = |width: usize| places.iter().map(move |place| place * width..(place + 1) * width);
        let inputs = match &self.inputs {
            Inputs::Text(texts) => Inputs::Text(places.iter().map(|place| texts[*place].clone()).collect()),
            Inputs::Table { width, values } => {
                let values = rows(*width).flat_map(|row| &values[row]).copied().collect();
                Inputs::Table { width: *width, values }
            }
            Inputs::StoredText(texts) => Inputs::StoredText(texts.select(places)),
            Inputs::StoredTable { width, rows } => {
                Inputs::StoredTable { width: *width, rows: rows.select(places) }
            }
            Inputs::Images { size, values } => {
                let values = rows(3 * size * size).flat_map(|row| &values[row]).copied().collect();
                Inputs::Images { size: *size, values }
            }
            Inputs::StoredImages { size, images } => {
                Inputs::StoredImages { size: *size, images: images.select(places) }
            }
        };
        Self { inputs, targets: self.targets.select(places) }
    }
}

/// The places of each class's examples.
pub(super) fn by_class(labels: &[u32]) -> BTreeMap<u32, Vec<usize>> {
    let mut classes = BTreeMap::<u32, Vec<usize>>::new();
    for (place, label) in labels.iter().enumerate() {
        classes.entry(*label).or_default().push(place);
    }
    classes
}

/// Takes the groups in a random order, those with the larger part of a class first, and holds out each that brings
/// every class nearer to its share, unless it would leave nothing of a class to train on. So at most half a group too
/// many is held out of a class.
fn held_out_groups(
    labels: &[u32],
    groups: &[u32],
    share: f64,
    purpose: &str,
    (seed, site_label): (u64, &str),
) -> BTreeSet<usize> {
    let mut left = tally(labels, 0..labels.len());
    let mut wanted: BTreeMap<u32, f64> = left.iter().map(|(label, count)| (*label, count * share)).collect();
    let mut random = seed::stream(seed, &[&format!("{purpose} groups"), site_label]);
    let mut held_out = BTreeSet::new();
    for places in largest_first(labels, groups, &left.clone(), &mut random) {
        let counts = tally(labels, places.iter().copied());
        let overshoots = |(label, count): (&u32, &f64)| 2.0 * wanted[label] < *count;
        if counts.iter().any(overshoots) || counts.iter().any(|(label, count)| left[label] <= *count) {
            continue;
        }
        for (label, count) in counts {
            *left.entry(label).or_default() -= count;
            *wanted.entry(label).or_default() -= count;
        }
        held_out.extend(places);
    }
    held_out
}

/// How many of the examples at these places are of each class.
pub(super) fn tally(labels: &[u32], places: impl Iterator<Item = usize>) -> BTreeMap<u32, f64> {
    let mut counts = BTreeMap::new();
    for place in places {
        *counts.entry(labels[place]).or_default() += 1.0;
    }
    counts
}

/// The places of each group's examples, the groups in a random order, those with the larger part of a class first.
/// `sizes` are the classes'.
pub(super) fn largest_first(
    labels: &[u32],
    groups: &[u32],
    sizes: &BTreeMap<u32, f64>,
    random: &mut impl Rng,
) -> Vec<Vec<usize>> {
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (place, group) in groups.iter().enumerate() {
        members.entry(*group).or_default().push(place);
    }
    let mut order: Vec<Vec<usize>> = members.into_values().collect();
    order.shuffle(random);
    // Of its class each example is the more the rarer the class is.
    let weight = |places: &[usize]| places.iter().map(|place| 1.0 / sizes[&labels[*place]]).sum::<f64>();
    order.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
    order
}

/// The places of the examples that are held out for this purpose.
fn held_out_share(
    labels: &[u32],
    groups: Option<&[u32]>,
    share: f64,
    purpose: &str,
    (seed, site_label): (u64, &str),
) -> BTreeSet<usize> {
    if let Some(groups) = groups {
        return held_out_groups(labels, groups, share, purpose, (seed, site_label));
    }
    let classes = by_class(labels);
    let sizes: Vec<usize> = classes.values().map(Vec::len).collect();
    let mut held_out = BTreeSet::new();
    for ((label, mut places), quota) in classes.into_iter().zip(quotas(&sizes, share)) {
        places
            .shuffle(&mut seed::stream(seed, &[&format!("{purpose} split"), site_label, &label.to_string()]));
        held_out.extend(places.into_iter().take(quota));
    }
    held_out
}

/// How many to hold out of each class: largest remainders, so that neither the sum nor any class is off by
/// rounding, but never a whole class.
fn quotas(sizes: &[usize], share: f64) -> Vec<usize> {
    let exact: Vec<f64> = sizes.iter().map(|size| *size as f64 * share).collect();
    let whole: Vec<usize> =
        exact.iter().zip(sizes).map(|(exact, size)| (*exact as usize).min(size - 1)).collect();
    let target = (sizes.iter().sum::<usize>() as f64 * share).round() as usize;
    let mut by_remainder: Vec<usize> =
        (0..sizes.len()).filter(|class| whole[*class] + 1 < sizes[*class]).collect();
    by_remainder.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()));
    let mut quotas = whole;
    let lacking = target.saturating_sub(quotas.iter().sum());
    for class in by_remainder.into_iter().take(lacking) {
        quotas[class] += 1;
    }
    quotas
}

/// [`divide`] of rows of this width, one after the other.
fn divide_rows<T: Copy>(values: Vec<T>, width: usize, held_out: &BTreeSet<usize>) -> [Vec<T>; 2] {
    if held_out.is_empty() {
        return [values, Vec::new()];
    }
    let (train, validation) = divide(values.chunks_exact(width.max(1)), held_out);
    [train.concat(), validation.concat()]
}

fn divide<T>(items: impl IntoIterator<Item = T>, held_out: &BTreeSet<usize>) -> (Vec<T>, Vec<T>) {
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (place, item) in items.into_iter().enumerate() {
        if held_out.contains(&place) { validation.push(item) } else { train.push(item) }
    }
    (train, validation)
}
