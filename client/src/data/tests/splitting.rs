//! What is held out.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sheaf_common::run::{Fold, HeldOut};

use super::*;

/// Examples that tell their place, of these classes.
fn numbered(labels: Vec<u32>) -> Dataset {
    let inputs = Inputs::Text((0..labels.len()).map(|place| place.to_string()).collect());
    Dataset { inputs, targets: Targets::Label(labels) }
}

fn places(dataset: &Dataset) -> Vec<usize> {
    let Inputs::Text(texts) = &dataset.inputs else { panic!("the examples are texts") };
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

proptest! {
    #[test]
    fn every_class_gives_its_share(
        labels in prop::collection::vec(0u32..6, 0..200),
        share in 0.0f64..=0.9,
        seed: u64,
    ) {
        let dataset = numbered(labels.clone());
        let split = split(dataset.clone(), None, HeldOut::Share(share), seed, "st-mary");

        let mut all: Vec<usize> = [places(&split.train), places(&split.validation)].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>(), "every example is on one side");
        for side in [&split.train, &split.validation] {
            let own: Vec<u32> = places(side).iter().map(|place| labels[*place]).collect();
            prop_assert_eq!(&side.targets.classes(), &own, "a label stays with its example");
        }

        let held = split.validation.targets.label_counts(6);
        for (class, size) in dataset.targets.label_counts(6).into_iter().enumerate() {
            let exact = size as f64 * share;
            prop_assert!((held[class] as f64 - exact).abs() <= 1.0, "{} of {size} at {share}", held[class]);
            prop_assert!(size == 0 || held[class] < size, "class {class} is trained on");
        }
        prop_assert!(split.validation.len() as f64 <= (labels.len() as f64 * share).round());
        if dataset.targets.label_counts(6).iter().all(|size| *size != 1) && labels.len() > 60 && share < 0.5 {
            prop_assert_eq!(split.validation.len(), (labels.len() as f64 * share).round() as usize);
        }
    }

    #[test]
    fn rows_stay_whole(labels in prop::collection::vec(0u32..3, 0..50), seed: u64) {
        let values = (0..labels.len()).flat_map(|place| [place as f32, -(place as f32)]).collect();
        let dataset = Dataset { inputs: Inputs::Table { width: 2, values }, targets: Targets::Label(labels.clone()) };
        let by_text = split(numbered(labels), None, HeldOut::Share(0.3), seed, "a");
        let by_row = split(dataset, None, HeldOut::Share(0.3), seed, "a");
        for (text, row) in [(by_text.train, by_row.train), (by_text.validation, by_row.validation)] {
            let expected = places(&text).into_iter().flat_map(|place| [place as f32, -(place as f32)]).collect();
            prop_assert_eq!(row.inputs, Inputs::Table { width: 2, values: expected });
        }
    }
}

proptest! {
    #[test]
    fn what_is_tested_is_neither_trained_nor_validated_on(
        examples in prop::collection::vec((0u32..3, 0u32..30), 1..200),
        grouped: bool,
        share in 0.0f64..=0.6,
        seed: u64,
    ) {
        let (labels, groups): (Vec<u32>, Vec<u32>) = examples.into_iter().unzip();
        let own = grouped.then(|| groups.clone());
        let Parts { rest, groups: left, test } = hold_out_test(numbered(labels.clone()), own, share, seed, "a");
        let side = |dataset: &Dataset| places(dataset).into_iter().map(|place| groups[place]).collect::<Vec<_>>();
        if let Some(left) = &left {
            prop_assert_eq!(left, &side(&rest), "a group stays with its example");
            prop_assert!(side(&test).iter().all(|group| !left.contains(group)));
        }
        let Split { train, validation } = split(rest, left.as_deref(), HeldOut::Share(0.25), seed, "a");
        let mut all = [places(&train), places(&validation), places(&test)].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>(), "every example is in one part");
        let of_test = test.targets.label_counts(3);
        for (class, size) in numbered(labels).targets.label_counts(3).into_iter().enumerate() {
            prop_assert!(size == 0 || of_test[class] < size, "class {class} is trained on");
            prop_assert!(grouped || (of_test[class] as f64 - size as f64 * share).abs() <= 1.0);
        }
    }
}

#[test]
fn seed_and_site_fix_it() {
    let of =
        |seed, site| places(&split(numbered(vec![0; 100]), None, HeldOut::Share(0.2), seed, site).validation);
    assert_eq!(of(1, "a"), of(1, "a"));
    assert_ne!(of(1, "a"), of(2, "a"));
    assert_ne!(of(1, "a"), of(1, "b"));
}

#[test]
fn nothing_is_held_out_of_little() {
    assert!(split(numbered(vec![0, 1, 2, 3]), None, HeldOut::Share(0.9), 1, "a").validation.is_empty());
    assert!(split(numbered(vec![0, 0, 0]), None, HeldOut::Share(0.1), 1, "a").validation.is_empty());
    assert!(split(numbered(Vec::new()), None, HeldOut::Share(0.5), 1, "a").train.is_empty());
    assert!(split(numbered(vec![0; 10]), None, HeldOut::Share(0.0), 1, "a").validation.is_empty());
}

#[test]
fn a_share_that_is_none_is_harmless() {
    for share in [f64::NAN, f64::INFINITY, -1.0, 1.0, 2.0] {
        let split = split(numbered(vec![0, 0, 1]), None, HeldOut::Share(share), 1, "a");
        assert_eq!(split.train.len() + split.validation.len(), 3);
        assert!(!split.train.is_empty());
    }
}

proptest! {
    #[test]
    fn a_group_is_on_one_side_and_the_shares_are_met_as_groups_allow(
        examples in prop::collection::vec((0u32..3, 0u32..30), 1..200),
        share in 0.0f64..=0.6,
        seed: u64,
    ) {
        let (labels, groups): (Vec<u32>, Vec<u32>) = examples.into_iter().unzip();
        let dataset = numbered(labels.clone());
        let split = split(dataset.clone(), Some(&groups), HeldOut::Share(share), seed, "st-mary");
        let of = |side: &Dataset| -> BTreeSet<u32> { places(side).iter().map(|place| groups[*place]).collect() };
        prop_assert!(of(&split.train).is_disjoint(&of(&split.validation)));
        prop_assert_eq!(split.train.len() + split.validation.len(), labels.len());
        let (all, held) = (dataset.targets.label_counts(3), split.validation.targets.label_counts(3));
        for (class, size) in all.iter().enumerate() {
            prop_assert!(*size == 0 || held[class] < *size, "class {class} is trained on");
            // The most examples of the class that one group has.
            let of_group = |group: &u32| {
                let pairs = groups.iter().zip(&labels);
                pairs.filter(|(other, label)| *other == group && **label == class as u32).count()
            };
            let most = groups.iter().map(of_group).max().unwrap_or(0);
            prop_assert!(held[class] as f64 <= *size as f64 * share + most as f64 / 2.0);
        }
    }
}

#[test]
fn many_small_groups_meet_the_shares() {
    let labels: Vec<u32> = (0..600).map(|place| u32::from(place % 5 == 0)).collect();
    let groups: Vec<u32> = (0..600).map(|place| place / 3).collect();
    for seed in 0..20 {
        let split = split(numbered(labels.clone()), Some(&groups), HeldOut::Share(0.2), seed, "a");
        let held = split.validation.targets.label_counts(2);
        assert!(held[0].abs_diff(96) <= 3 && held[1].abs_diff(24) <= 3, "{held:?}");
    }
}

#[test]
fn a_few_examples_of_each_class_are_drawn_once() {
    let labels: Vec<u32> = (0..100).map(|place| u32::from(place % 10 == 0)).collect();
    let drawn = few(numbered(labels.clone()), 16, 1, "a");
    assert_eq!(drawn.targets.label_counts(2), [16, 10]);
    assert_eq!(drawn, few(numbered(labels.clone()), 16, 1, "a"));
    assert_ne!(drawn, few(numbered(labels), 16, 2, "a"));
}

/// The places in each of `of` folds; the rest must be what is trained on.
fn folds(labels: &[u32], groups: Option<&[u32]>, of: u32, seed: u64) -> Vec<Vec<usize>> {
    let fold = |number| {
        let split =
            split(numbered(labels.to_vec()), groups, HeldOut::Fold(Fold { number, of }), seed, "st-mary");
        let (train, held) = (places(&split.train), places(&split.validation));
        let mut all = [train, held.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..labels.len()).collect::<Vec<_>>(), "every example is on one side");
        held
    };
    (1..=of).map(fold).collect()
}

proptest! {
    #[test]
    fn the_folds_are_everything_once_and_equal_to_within_one_of_each_class(
        labels in prop::collection::vec(0u32..4, 0..120),
        of in 2u32..12,
        seed: u64,
    ) {
        let folds = folds(&labels, None, of, seed);
        let mut all = folds.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
        for fold in &folds {
            prop_assert_eq!(fold.len(), fold.len().clamp(labels.len() / of as usize, labels.len().div_ceil(of as usize)));
            for class in 0..4 {
                let size = labels.iter().filter(|label| **label == class).count();
                let here = fold.iter().filter(|place| labels[**place] == class).count();
                prop_assert_eq!(here, here.clamp(size / of as usize, size.div_ceil(of as usize)));
            }
        }
    }

    #[test]
    fn folds_of_groups_are_everything_once_and_hold_a_group_whole(
        examples in prop::collection::vec((0u32..3, 0u32..30), 1..200),
        of in 2u32..8,
        seed: u64,
    ) {
        let (labels, groups): (Vec<u32>, Vec<u32>) = examples.into_iter().unzip();
        let folds = folds(&labels, Some(&groups), of, seed);
        let mut all = folds.concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>());
        let of_fold = |fold: &Vec<usize>| -> BTreeSet<u32> { fold.iter().map(|place| groups[*place]).collect() };
        let distinct: BTreeSet<u32> = groups.iter().copied().collect();
        let in_folds: Vec<BTreeSet<u32>> = folds.iter().map(of_fold).collect();
        prop_assert_eq!(in_folds.iter().map(BTreeSet::len).sum::<usize>(), distinct.len());
        let filled = folds.iter().filter(|fold| !fold.is_empty()).count();
        prop_assert_eq!(filled, distinct.len().min(of as usize));
    }
}

#[test]
fn folds_of_many_small_groups_have_equal_parts_of_the_classes() {
    let labels: Vec<u32> = (0..600).map(|place| u32::from(place % 5 == 0)).collect();
    let groups: Vec<u32> = (0..600).map(|place| place / 3).collect();
    for seed in 0..20 {
        for fold in folds(&labels, Some(&groups), 5, seed) {
            let rare = fold.iter().filter(|place| labels[**place] == 1).count();
            assert!(fold.len().abs_diff(120) <= 6 && rare.abs_diff(24) <= 2, "{} with {rare}", fold.len());
        }
    }
}

#[test]
fn seed_and_site_fix_the_folds_and_no_fold_is_the_largest_everywhere() {
    let of = |seed, site: &str, number| {
        places(
            &split(numbered(vec![0; 21]), None, HeldOut::Fold(Fold { number, of: 5 }), seed, site).validation,
        )
    };
    assert_eq!(of(1, "a", 1), of(1, "a", 1));
    assert_ne!(of(1, "a", 1), of(2, "a", 1));
    assert_ne!(of(1, "a", 1), of(1, "b", 1));
    let largest = |site: &str| (1..=5).max_by_key(|number| of(1, site, *number).len()).unwrap();
    let sites: Vec<String> = (0..20).map(|site| format!("s{site}")).collect();
    assert!(sites.iter().map(|site| largest(site)).collect::<BTreeSet<_>>().len() > 1);
}
