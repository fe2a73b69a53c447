//! The metrics against plain references, over any partition of the examples. [`reference`] holds them
//! against scikit-learn, [`forged`] against sites that lie; [`survey`] is
//! of what sites hold.

mod forged;
mod reference;
mod survey;

use proptest::prelude::*;

use super::classification::one_vs_rest;
use super::curves::Scores;
use super::*;
use crate::wire;

type Example = (usize, Vec<f32>);

fn counted(num_labels: usize, examples: &[Example]) -> Classification {
    let mut counts = Classification::new(num_labels);
    for (label, logits) in examples {
        counts.observe(*label, logits);
    }
    counts
}

fn kind(num_labels: usize) -> Kind {
    Kind::Classification { labels: (0..num_labels).map(|label| format!("label {label}")).collect() }
}

fn read(counts: impl Into<Counts>, num_labels: usize) -> ClassificationReport {
    counts.into().report(&kind(num_labels)).classification().unwrap().clone()
}

fn report_of(num_labels: usize, examples: &[Example]) -> ClassificationReport {
    read(counted(num_labels, examples), num_labels)
}

fn examples(
    num_labels: usize,
    logit: impl Strategy<Value = f32> + Clone,
) -> impl Strategy<Value = Vec<Example>> {
    prop::collection::vec((0..num_labels, prop::collection::vec(logit, num_labels)), 0..60)
}

/// Few-valued logits (ties), ordinary ones, and those of a very confident model.
fn logit() -> impl Strategy<Value = f32> + Clone {
    prop_oneof![(-2i8..2).prop_map(f32::from), -6.0f32..6.0, -60.0f32..60.0]
}

fn wide(logits: &[f32]) -> Vec<f64> {
    logits.iter().copied().map(f64::from).collect()
}

/// The area under the ROC curve by its definition, over all pairs.
fn plain_roc_auc(class: usize, examples: &[Example]) -> Option<f64> {
    let (mut won, mut pairs) = (0.0, 0.0);
    for (_, positive) in examples.iter().filter(|(label, _)| *label == class) {
        for (_, negative) in examples.iter().filter(|(label, _)| *label != class) {
            let (positive, negative) =
                (one_vs_rest(class, &wide(positive)), one_vs_rest(class, &wide(negative)));
            won += if positive > negative {
                1.0
            } else if positive == negative {
                0.5
            } else {
                0.0
            };
            pairs += 1.0;
        }
    }
    (pairs > 0.0).then_some(won / pairs)
}

/// The mean over the positives of the precision at their score, by its definition.
fn average_precision(mut scores: Vec<(f64, bool)>) -> Option<f64> {
    scores.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let positives = scores.iter().filter(|(_, positive)| *positive);
    let precision = |score: f64| {
        let above = scores.partition_point(|(other, _)| *other >= score);
        let right = scores[..above].iter().filter(|(_, positive)| *positive).count();
        right as f64 / above as f64
    };
    let (sum, count) =
        positives.fold((0.0, 0), |(sum, count), (score, _)| (sum + precision(*score), count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

fn plain_average_precision(class: usize, examples: &[Example]) -> Option<f64> {
    average_precision(
        examples.iter().map(|(label, z)| (one_vs_rest(class, &wide(z)), *label == class)).collect(),
    )
}

proptest! {
    #[test]
    fn a_score_is_the_logit_of_the_softmax(logits in prop::collection::vec(-12.0f32..12.0, 2..6), class in 0usize..2) {
        let exponentials: Vec<f64> = logits.iter().map(|z| f64::from(*z).exp()).collect();
        let p = exponentials[class] / exponentials.iter().sum::<f64>();
        let score = one_vs_rest(class, &wide(&logits));
        prop_assert!((1.0 / (1.0 + (-score).exp()) - p).abs() < 1e-12, "{score} {p}");
    }

    #[test]
    fn areas_are_within_their_bounds(examples in examples(3, logit())) {
        let report = report_of(3, &examples);
        for (class, own) in report.per_class.iter().enumerate() {
            for (area, error, plain) in [
                (own.roc_auc, own.roc_auc_error, plain_roc_auc(class, &examples)),
                (own.pr_auc, own.pr_auc_error, plain_average_precision(class, &examples)),
            ] {
                match (area, plain) {
                    (Some(area), Some(plain)) => {
                        let bound = error.unwrap();
                        prop_assert!((area - plain).abs() <= bound + 1e-12, "{area} {plain} {bound}");
                    }
                    (area, plain) => prop_assert_eq!(area, plain),
                }
            }
        }
    }

    /// In few and full bins, as secure sums of large sites have them, in whatever order their scores were.
    #[test]
    fn average_precision_is_within_its_bound_whatever_a_bin_hides(
        bins in prop::collection::vec((0usize..200, 0usize..200), 1..6),
        order in any::<u64>(),
    ) {
        let mut scores = Scores::default();
        let mut raw = Vec::new();
        let mut random = congruential(order);
        for (bin, (positives, negatives)) in bins.iter().enumerate() {
            let (low, apart) = (random.next().unwrap(), random.next().unwrap());
            for at in 0..positives + negatives {
                let positive = at < *positives;
                // Tied, apart, or mixed, within a bin.
                let within = if apart < 0.3 { f64::from(u8::from(positive == (low < 0.5))) } else { random.next().unwrap() };
                raw.push((bin as f64 + 0.5 * within, positive));
                scores.observe(bin as f64, positive, 64);
            }
        }
        match (scores.pr_auc(), average_precision(raw)) {
            (Some(area), Some(plain)) => {
                prop_assert!((area.value - plain).abs() <= area.error + 1e-9, "{area:?} {plain}");
            }
            (area, plain) => prop_assert_eq!(area.is_some(), plain.is_some()),
        }
    }

    #[test]
    fn any_partition_in_any_order_gives_the_same_report(
        examples in examples(3, logit()),
        site in prop::collection::vec(0usize..5, 60),
        order in Just([0usize, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        let kind = kind(3);
        let mut pooled = Counts::new(&kind);
        for part in order {
            let own: Vec<Example> =
                examples.iter().zip(&site).filter(|(_, site)| **site == part).map(|(e, _)| e.clone()).collect();
            let sent = Counts::from(counted(3, &own));
            let sent = wire::decode::<Counts>(&wire::encode(&sent).unwrap()).unwrap();
            prop_assert_eq!(sent.is_sound(&kind, 1), Ok(()));
            pooled.merge(&sent).unwrap();
        }
        let together = Counts::from(counted(3, &examples));
        prop_assert_eq!(pooled.report(&kind), together.report(&kind));
        prop_assert_eq!(pooled, together);
    }

    #[test]
    fn ratios_are_the_plain_ones(examples in examples(4, logit())) {
        let report = report_of(4, &examples);
        let first_largest = |logits: &[f32]| {
            let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            logits.iter().position(|logit| *logit == most).unwrap()
        };
        let predictions: Vec<(usize, usize)> = examples.iter().map(|(t, z)| (*t, first_largest(z))).collect();
        let count = |keep: &dyn Fn(usize, usize) -> bool| predictions.iter().filter(|(t, p)| keep(*t, *p)).count();
        let ratio = |a: usize, b: usize| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        prop_assert_eq!(report.accuracy, ratio(count(&|t, p| t == p), predictions.len()));
        for (class, own) in report.per_class.iter().enumerate() {
            let right = count(&|t, p| t == class && p == class);
            prop_assert_eq!(own.precision, ratio(right, count(&|_, p| p == class)));
            prop_assert_eq!(own.recall, ratio(right, count(&|t, _| t == class)));
            let harmonic = 2.0 * own.precision * own.recall / (own.precision + own.recall).max(f64::MIN_POSITIVE);
            prop_assert!((own.f1 - harmonic).abs() < 1e-12);
        }
    }

    #[test]
    fn the_loss_is_the_mean_cross_entropy(examples in examples(3, -30.0f32..30.0)) {
        let plain: f64 = examples
            .iter()
            .map(|(label, z)| z.iter().map(|z| f64::from(*z).exp()).sum::<f64>().ln() - f64::from(z[*label]))
            .sum();
        let loss = report_of(3, &examples).loss;
        prop_assert!((loss - plain / examples.len().max(1) as f64).abs() < 1e-11, "{loss} {plain}");
    }

    #[test]
    fn no_logits_and_no_bytes_panic(
        label in 0usize..3,
        bits in prop::collection::vec(any::<u32>(), 3),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let logits: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let counts = Counts::from(counted(3, &[(label, logits)]));
        prop_assert_eq!(counts.is_sound(&kind(3), 1), Ok(()));
        let report = read(counts, 3);
        prop_assert!(report.loss <= LOSS_MAX && report.brier_score <= 2.0, "{:?}", report);
        for kind in every_kind() {
            if let Ok(counts) = wire::decode::<Counts>(&bytes) && counts.is_sound(&kind, 1).is_ok() {
                counts.report(&kind);
            }
        }
    }

    /// Slots that no site sent are refused or reported on, without a panic.
    #[test]
    fn no_slots_panic(at in prop::collection::vec(any::<prop::sample::Index>(), 0..8), value in any::<u64>()) {
        for kind in every_kind() {
            let mut slots = vec![0; Counts::num_slots(&kind)];
            at.iter().for_each(|at| slots[at.index(Counts::num_slots(&kind))] = value);
            if let Some(counts) = Counts::from_slots(&kind, &slots) && counts.is_sound(&kind, SITES_MAX).is_ok() {
                counts.report(&kind);
            }
        }
    }
}

fn every_kind() -> [Kind; 4] {
    let Kind::Classification { labels } = kind(3) else { unreachable!() };
    let target = Scale { mean: 1.0, std: 2.0 };
    [kind(3), Kind::MultiLabel { labels }, Kind::Regression { target }, Kind::Language]
}

/// Numbers in [0, 1), the same for the same seed.
fn congruential(seed: u64) -> impl Iterator<Item = f64> {
    let step =
        |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(step(&seed), step).map(|x| (x >> 40) as f64 / (1u64 << 24) as f64)
}

#[test]
fn a_very_confident_model_keeps_its_order() {
    // The probabilities of all these round to 1 in f32.
    let logits = [18.0, 20.0, 25.0, 28.0];
    let positive = |margin: f32| vec![0.0, margin];
    let examples: Vec<Example> =
        logits.into_iter().enumerate().map(|(index, margin)| (index % 2, positive(margin))).collect();
    assert_eq!(report_of(2, &examples).roc_auc, Some(0.75));
    assert_eq!(report_of(2, &examples).roc_auc_error, Some(0.0));
}

#[test]
fn a_model_that_diverged_has_bad_metrics() {
    let report = report_of(2, &[(1, vec![f32::NAN, f32::NAN]), (0, vec![f32::INFINITY, f32::INFINITY])]);
    assert_eq!(report.num_examples, 2);
    assert_eq!(report.loss, LOSS_MAX);
    assert_eq!(report.confusion, [[1, 0], [1, 0]]);
}

#[test]
fn nothing_counted_is_a_report_too() {
    let report = report_of(2, &[]);
    assert_eq!((report.num_examples, report.loss, report.macro_f1, report.roc_auc), (0, 0.0, 0.0, None));
    assert!(report.calibration.iter().all(|bin| bin.confidence.is_none()));
}

#[test]
fn a_report_reads_back_and_says_what_it_is_about() {
    let words = ["classification", "multi-label", "regression", "language"];
    for (kind, word) in every_kind().iter().zip(words) {
        let report = Counts::new(kind).report(kind);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["task"], word);
        assert_eq!(json["num_examples"], 0);
        for figure in report.figures() {
            assert_eq!(json[figure.key].as_f64(), figure.value, "{word} {}", figure.key);
        }
        assert!(!report.headline().is_empty());
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
        assert_eq!(wire::decode::<Report>(&wire::encode(&report).unwrap()).unwrap(), report);
    }
}

#[test]
fn a_perplexity_beyond_all_numbers_is_a_number() {
    let mut counts = Language::default();
    counts.observe([(f64::NAN, false), (f64::INFINITY, false)]);
    let report = Counts::from(counts).report(&Kind::Language);
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    assert!(matches!(report, Report::Language(LanguageReport { perplexity: f64::MAX, loss: LOSS_MAX, .. })));
}

#[test]
fn a_regression_that_diverged_has_bad_metrics() {
    let mut counts = Regression::default();
    for (target, prediction) in [(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 1e300)] {
        counts.observe(target, prediction);
    }
    let kind = Kind::Regression { target: Scale { mean: 0.0, std: 2.0 } };
    let counts = Counts::from(counts);
    assert_eq!(counts.is_sound(&kind, 1), Ok(()));
    let Report::Regression(report) = counts.report(&kind) else { panic!("no regression") };
    assert_eq!((report.mae, report.rmse), (2.0 * DEVIATIONS_MAX, 2.0 * DEVIATIONS_MAX));
    assert!(report.r2.unwrap() < -1e5);
}

#[test]
fn counts_over_other_labels_are_not_added() {
    let mut counts = Counts::new(&kind(2));
    assert_eq!(counts.merge(&Counts::new(&kind(3))), Err(Mismatch::Labels(3, 2)));
    assert_eq!(counts.merge(&Counts::new(&Kind::Language)), Err(Mismatch::Kinds));
    assert_eq!(counts.is_sound(&kind(3), 1), Err(Unsound::Labels(3)));
    assert_eq!(counts.is_sound(&Kind::Language, 1), Err(Unsound::Kind));
}
