//! Which of a site's examples are held out for validation.
//!
//! The division is drawn from the run's seed and the site's name, so that it is the same in every round and
//! after every restart, and differs from site to site. It is stratified: every class gives its share.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::SliceRandom;
use sheaf_common::seed;

use super::{Dataset, Inputs, Split};

/// Divides `dataset`: holds out the share `validation_split` (in [0, 0.9]) of the examples, rounded, and of every
/// class as near to its share as whole examples allow. The last example of a class is always trained on.
pub fn split(dataset: Dataset, validation_split: f64, seed: u64, site_label: &str) -> Split {
    let held_out = held_out(&dataset.labels, validation_split, seed, site_label);
    let (train_labels, validation_labels) = divide(dataset.labels, &held_out);
    let (train_inputs, validation_inputs) = match dataset.inputs {
        Inputs::Text(texts) => {
            let (train, validation) = divide(texts, &held_out);
            (Inputs::Text(train), Inputs::Text(validation))
        }
        Inputs::Table { width, values } => {
            let (train, validation) = divide(values.chunks_exact(width.max(1)), &held_out);
            let table = |rows: Vec<&[f32]>| Inputs::Table { width, values: rows.concat() };
            (table(train), table(validation))
        }
    };
    Split {
        train: Dataset { inputs: train_inputs, labels: train_labels },
        validation: Dataset { inputs: validation_inputs, labels: validation_labels },
    }
}

/// The held-out examples' places.
fn held_out(labels: &[u32], share: f64, seed: u64, site_label: &str) -> BTreeSet<usize> {
    let mut classes = BTreeMap::<u32, Vec<usize>>::new();
    for (place, label) in labels.iter().enumerate() {
        classes.entry(*label).or_default().push(place);
    }
    let sizes: Vec<usize> = classes.values().map(Vec::len).collect();
    let mut held_out = BTreeSet::new();
    for ((label, mut places), quota) in classes.into_iter().zip(quotas(&sizes, share)) {
        places.shuffle(&mut seed::stream(seed, &["validation split", site_label, &label.to_string()]));
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

fn divide<T>(items: impl IntoIterator<Item = T>, held_out: &BTreeSet<usize>) -> (Vec<T>, Vec<T>) {
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (place, item) in items.into_iter().enumerate() {
        if held_out.contains(&place) { validation.push(item) } else { train.push(item) }
    }
    (train, validation)
}
