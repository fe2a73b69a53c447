//! The metrics against scikit-learn, against plain references, and against sites that lie.

use proptest::prelude::*;

use super::counts::one_vs_rest;
use super::histogram::num_bins;
use super::*;
use crate::wire;

type Example = (usize, Vec<f32>);

fn counted(num_labels: usize, examples: &[Example]) -> Counts {
    let mut counts = Counts::new(num_labels);
    for (label, logits) in examples {
        counts.observe(*label, logits);
    }
    counts
}

fn names(num_labels: usize) -> Vec<String> {
    (0..num_labels).map(|label| format!("label {label}")).collect()
}

fn report_of(num_labels: usize, examples: &[Example]) -> Report {
    counted(num_labels, examples).report(&names(num_labels))
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

proptest! {
    #[test]
    fn a_score_is_the_logit_of_the_softmax(logits in prop::collection::vec(-12.0f32..12.0, 2..6), class in 0usize..2) {
        let exponentials: Vec<f64> = logits.iter().map(|z| f64::from(*z).exp()).collect();
        let p = exponentials[class] / exponentials.iter().sum::<f64>();
        let score = one_vs_rest(class, &wide(&logits));
        prop_assert!((1.0 / (1.0 + (-score).exp()) - p).abs() < 1e-12, "{score} {p}");
    }

    #[test]
    fn roc_auc_is_within_its_bound(examples in examples(3, logit())) {
        let counts = counted(3, &examples);
        for class in 0..3 {
            match (counts.roc_auc(class), plain_roc_auc(class, &examples)) {
                (Some(area), Some(plain)) => {
                    let bound = counts.roc_auc_error(class).unwrap();
                    prop_assert!((area - plain).abs() <= bound + 1e-12, "{area} {plain} {bound}");
                }
                (area, plain) => prop_assert_eq!(area, plain),
            }
        }
    }

    #[test]
    fn any_partition_in_any_order_gives_the_same_report(
        examples in examples(3, logit()),
        site in prop::collection::vec(0usize..5, 60),
        order in Just([0usize, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        let mut pooled = Counts::new(3);
        for part in order {
            let own: Vec<Example> =
                examples.iter().zip(&site).filter(|(_, site)| **site == part).map(|(e, _)| e.clone()).collect();
            let sent = wire::decode::<Counts>(&wire::encode(&counted(3, &own)).unwrap()).unwrap();
            prop_assert_eq!(sent.is_sound(3), Ok(()));
            pooled.merge(&sent).unwrap();
        }
        let together = counted(3, &examples);
        prop_assert_eq!(pooled.report(&names(3)), together.report(&names(3)));
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
        let counts = counted(3, &[(label, logits)]);
        prop_assert_eq!(counts.is_sound(3), Ok(()));
        prop_assert!(counts.report(&names(3)).loss <= LOSS_MAX);
        if let Ok(counts) = wire::decode::<Counts>(&bytes) && counts.is_sound(3).is_ok() {
            counts.report(&names(3));
        }
    }
}

/// The numbers that `sklearn_cases` are made of, the same in Python and here.
fn congruential(seed: u64) -> impl Iterator<Item = f64> {
    let step =
        |x: &u64| Some(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
    std::iter::successors(step(&seed), step).map(|x| (x >> 40) as f64 / (1u64 << 24) as f64)
}

/// `count` examples whose true label's logit is raised by 1.5; only the first `present` labels occur, and
/// when that is not all of them the last label is never predicted.
fn sklearn_examples(num_labels: usize, count: usize, seed: u64, present: usize) -> Vec<Example> {
    let mut random = congruential(seed);
    let mut next = || random.next().unwrap();
    (0..count)
        .map(|_| {
            let label = (next() * present as f64) as usize;
            let mut logits: Vec<f32> = (0..num_labels).map(|_| ((next() - 0.5) * 8.0) as f32).collect();
            if present < num_labels {
                logits[num_labels - 1] = -8.0;
            }
            logits[label] += 1.5;
            (label, logits)
        })
        .collect()
}

fn close(ours: f64, theirs: f64, within: f64) {
    assert!((ours - theirs).abs() <= within, "{ours} is not {theirs}");
}

// Expected values: scikit-learn 1.9.1 on the same numbers in numpy f64. `log_loss(y, p)`, `accuracy_score`,
// `precision_recall_fscore_support(y, pred, average="macro", zero_division=0)`, `confusion_matrix`,
// `roc_auc_score(y, p[:, 1])` and `roc_auc_score(y, p, multi_class="ovr", average="macro")`, with `p` the
// softmax.

#[test]
fn two_labels_as_scikit_learn_has_them() {
    let counts = counted(2, &sklearn_examples(2, 40, 1, 2));
    let report = counts.report(&names(2));
    assert_eq!(report.confusion, [[15, 5], [6, 14]]);
    close(report.loss, 0.772656074822945, 1e-11);
    close(report.accuracy, 0.725, 1e-15);
    close(report.macro_precision, 0.7255639097744361, 1e-15);
    close(report.macro_recall, 0.725, 1e-15);
    close(report.macro_f1, 0.7248280175109443, 1e-15);
    close(report.roc_auc.unwrap(), 0.76, counts.roc_auc_error(1).unwrap() + 1e-15);
    assert!(counts.roc_auc_error(1).unwrap() < 0.002);
}

#[test]
fn four_labels_as_scikit_learn_has_them() {
    let counts = counted(4, &sklearn_examples(4, 60, 2, 4));
    let report = counts.report(&names(4));
    assert_eq!(report.confusion, [[9, 2, 2, 3], [1, 10, 3, 1], [3, 1, 6, 1], [5, 2, 5, 6]]);
    close(report.loss, 1.39091677475028, 1e-11);
    close(report.accuracy, 0.5166666666666667, 1e-15);
    close(report.macro_precision, 0.521780303030303, 1e-15);
    close(report.macro_recall, 0.5269886363636364, 1e-15);
    close(report.macro_f1, 0.5135789948163173, 1e-15);
    let areas = [0.7215909090909091, 0.8592592592592593, 0.8033395176252319, 0.7328042328042328];
    let bounds: Vec<f64> = (0..4).map(|class| counts.roc_auc_error(class).unwrap()).collect();
    for (class, area) in areas.into_iter().enumerate() {
        close(report.per_class[class].roc_auc.unwrap(), area, bounds[class] + 1e-15);
    }
    close(report.roc_auc.unwrap(), 0.7792484796949082, bounds.iter().sum::<f64>() / 4.0 + 1e-15);
}

#[test]
fn labels_that_do_not_occur_count_as_in_scikit_learn() {
    // Label 3 is predicted but never true; label 4 is neither, and so no part of the macro averages.
    let report = report_of(5, &sklearn_examples(5, 30, 3, 3));
    assert_eq!(report.confusion, [[6, 3, 1, 4, 0], [1, 2, 1, 4, 0], [4, 0, 3, 1, 0], [0; 5], [0; 5]]);
    close(report.macro_precision, 0.38636363636363635, 1e-15);
    close(report.macro_recall, 0.26339285714285715, 1e-15);
    close(report.macro_f1, 0.3123076923076923, 1e-15);
    let areas: Vec<Option<f64>> = report.per_class.iter().map(|class| class.roc_auc).collect();
    assert_eq!(areas[3..], [None, None]);
    close(areas[0].unwrap(), 0.6919642857142858, 0.01);
    close(report.roc_auc.unwrap(), areas.iter().flatten().sum::<f64>() / 3.0, 1e-15);
}

#[test]
fn a_very_confident_model_keeps_its_order() {
    // The probabilities of all these round to 1 in f32.
    let logits = [18.0, 20.0, 25.0, 28.0];
    let positive = |margin: f32| vec![0.0, margin];
    let examples: Vec<Example> =
        logits.into_iter().enumerate().map(|(index, margin)| (index % 2, positive(margin))).collect();
    assert_eq!(report_of(2, &examples).roc_auc, Some(0.75));
    assert_eq!(counted(2, &examples).roc_auc_error(1), Some(0.0));
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
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    assert_eq!(wire::decode::<Report>(&wire::encode(&report).unwrap()).unwrap(), report);
}

#[test]
fn counts_over_other_labels_are_not_added() {
    let mut counts = Counts::new(2);
    assert_eq!(counts.merge(&Counts::new(3)), Err(Mismatch::Labels(3, 2)));
}

#[test]
fn few_examples_are_few_bytes() {
    let counts = counted(2, &sklearn_examples(2, 15, 1, 2));
    assert!(wire::encode(&counts).unwrap().len() < 200);
}

/// The written form of counts, to write down what no honest site would.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Forged {
    confusion: Vec<u64>,
    loss: u128,
    scores: Vec<[std::collections::BTreeMap<u16, u64>; 2]>,
}

fn forged(counts: &Counts) -> Forged {
    wire::decode(&wire::encode(counts).unwrap()).unwrap()
}

fn received(forged: &Forged) -> Counts {
    wire::decode(&wire::encode(forged).unwrap()).unwrap()
}

#[test]
fn two_full_counts_fit_a_message() {
    for num_labels in [2, 8, 64] {
        let bins = |_| (0..num_bins(num_labels)).map(|bin| (bin, u64::from(u32::MAX))).collect();
        let full = Forged {
            confusion: vec![u64::MAX; num_labels * num_labels],
            loss: u128::MAX,
            scores: vec![[(); 2].map(bins); num_labels],
        };
        assert!(2 * wire::encode(&full).unwrap().len() < wire::FRAME_MAX * 9 / 10, "{num_labels} labels");
    }
}

#[test]
fn forged_counts_are_refused() {
    let honest = forged(&counted(2, &sklearn_examples(2, 15, 1, 2)));
    let verdict = |forge: &dyn Fn(&mut Forged)| {
        let mut counts = honest.clone();
        forge(&mut counts);
        received(&counts).is_sound(2)
    };
    assert_eq!(verdict(&|_| ()), Ok(()));
    assert_eq!(verdict(&|c| c.confusion.push(0)), Err(Unsound::Labels(2)));
    assert_eq!(verdict(&|c| c.scores.truncate(1)), Err(Unsound::Labels(2)));
    assert_eq!(verdict(&|c| c.confusion[0] = u64::MAX), Err(Unsound::TooMany));
    assert_eq!(verdict(&|c| c.loss = u128::MAX), Err(Unsound::Loss));
    assert_eq!(verdict(&|c| c.confusion[0] += 1), Err(Unsound::Histogram(0)));
    assert_eq!(verdict(&|c| c.scores[1][0].clear()), Err(Unsound::Histogram(1)));
    assert_eq!(verdict(&|c| c.scores[0][0].extend([(60_000, 0)])), Err(Unsound::Histogram(0)));
    assert_eq!(verdict(&|c| c.scores[0][0].extend([(0, u64::MAX)])), Err(Unsound::Histogram(0)));
}

#[test]
fn a_sum_that_overflows_adds_nothing() {
    let mut most = forged(&Counts::new(2));
    most.confusion[0] = u64::MAX;
    let mut sum = received(&most);
    assert_eq!(sum.merge(&counted(2, &[(0, vec![1.0, 0.0])])), Err(Mismatch::Overflow));
    assert_eq!(sum, received(&most));
}
