//! What is held out.

use proptest::prelude::*;

use super::*;

/// Examples that tell their place, of these classes.
fn numbered(labels: Vec<u32>) -> Dataset {
    let inputs = Inputs::Text((0..labels.len()).map(|place| place.to_string()).collect());
    Dataset { inputs, labels }
}

fn places(dataset: &Dataset) -> Vec<usize> {
    match &dataset.inputs {
        Inputs::Text(texts) => texts.iter().map(|text| text.parse().unwrap()).collect(),
        Inputs::Table { .. } => panic!("the examples are texts"),
    }
}

proptest! {
    #[test]
    fn every_class_gives_its_share(
        labels in prop::collection::vec(0u32..6, 0..200),
        share in 0.0f64..=0.9,
        seed: u64,
    ) {
        let dataset = numbered(labels.clone());
        let split = split(dataset.clone(), share, seed, "st-mary");

        let mut all: Vec<usize> = [places(&split.train), places(&split.validation)].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..labels.len()).collect::<Vec<_>>(), "every example is on one side");
        for side in [&split.train, &split.validation] {
            let own: Vec<u32> = places(side).iter().map(|place| labels[*place]).collect();
            prop_assert_eq!(&side.labels, &own, "a label stays with its example");
        }

        let held = split.validation.class_counts(6);
        for (class, size) in dataset.class_counts(6).into_iter().enumerate() {
            let exact = size as f64 * share;
            prop_assert!((held[class] as f64 - exact).abs() <= 1.0, "{} of {size} at {share}", held[class]);
            prop_assert!(size == 0 || held[class] < size, "class {class} is trained on");
        }
        prop_assert!(split.validation.len() as f64 <= (labels.len() as f64 * share).round());
        if dataset.class_counts(6).iter().all(|size| *size != 1) && labels.len() > 60 && share < 0.5 {
            prop_assert_eq!(split.validation.len(), (labels.len() as f64 * share).round() as usize);
        }
    }

    #[test]
    fn rows_stay_whole(labels in prop::collection::vec(0u32..3, 0..50), seed: u64) {
        let values = (0..labels.len()).flat_map(|place| [place as f32, -(place as f32)]).collect();
        let dataset = Dataset { inputs: Inputs::Table { width: 2, values }, labels: labels.clone() };
        let by_text = split(numbered(labels), 0.3, seed, "a");
        let by_row = split(dataset, 0.3, seed, "a");
        for (text, row) in [(by_text.train, by_row.train), (by_text.validation, by_row.validation)] {
            let expected = places(&text).into_iter().flat_map(|place| [place as f32, -(place as f32)]).collect();
            prop_assert_eq!(row.inputs, Inputs::Table { width: 2, values: expected });
        }
    }
}

#[test]
fn seed_and_site_fix_it() {
    let of = |seed, site| places(&split(numbered(vec![0; 100]), 0.2, seed, site).validation);
    assert_eq!(of(1, "a"), of(1, "a"));
    assert_ne!(of(1, "a"), of(2, "a"));
    assert_ne!(of(1, "a"), of(1, "b"));
}

#[test]
fn nothing_is_held_out_of_little() {
    assert!(split(numbered(vec![0, 1, 2, 3]), 0.9, 1, "a").validation.is_empty());
    assert!(split(numbered(vec![0, 0, 0]), 0.1, 1, "a").validation.is_empty());
    assert!(split(numbered(Vec::new()), 0.5, 1, "a").train.is_empty());
    assert!(split(numbered(vec![0; 10]), 0.0, 1, "a").validation.is_empty());
}

#[test]
fn a_share_that_is_none_is_harmless() {
    for share in [f64::NAN, f64::INFINITY, -1.0, 1.0, 2.0] {
        let split = split(numbered(vec![0, 0, 1]), share, 1, "a");
        assert_eq!(split.train.len() + split.validation.len(), 3);
        assert!(!split.train.is_empty());
    }
}
