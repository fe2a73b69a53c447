//! Counts that no honest site sends, and how long counts are at most.

use super::super::histogram::num_bins;
use super::super::*;
use super::{congruential, counted, kind};
use crate::wire;

/// `count` examples of two labels.
fn some_examples(count: usize) -> Classification {
    let mut random = congruential(1);
    let mut next = || random.next().unwrap();
    let examples = (0..count)
        .map(|_| (usize::from(next() < 0.5), (0..2).map(|_| ((next() - 0.5) * 8.0) as f32).collect()));
    counted(2, &examples.collect::<Vec<_>>())
}

/// The written form of counts, to write down what no honest site would.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Forged {
    kind: u8,
    confusion: Vec<u64>,
    loss: u128,
    squares: u128,
    calibration: [(u64, u64, u128); 10],
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
            kind: 0,
            confusion: vec![u64::MAX; num_labels * num_labels],
            loss: u128::MAX,
            squares: u128::MAX,
            calibration: [(u64::MAX, u64::MAX, u128::MAX); 10],
            scores: vec![[(); 2].map(bins); num_labels],
        };
        assert!(2 * wire::encode(&full).unwrap().len() < wire::FRAME_MAX * 9 / 10, "{num_labels} labels");
    }
}

#[test]
fn forged_counts_are_refused() {
    let honest = forged(&some_examples(15).into());
    let verdict = |forge: &dyn Fn(&mut Forged)| {
        let mut counts = honest.clone();
        forge(&mut counts);
        received(&counts).is_sound(&kind(2), 1)
    };
    assert_eq!(verdict(&|_| ()), Ok(()));
    assert_eq!(verdict(&|c| c.confusion.push(0)), Err(Unsound::Labels(2)));
    assert_eq!(verdict(&|c| c.scores.truncate(1)), Err(Unsound::Labels(2)));
    assert_eq!(verdict(&|c| c.confusion[0] = u64::MAX), Err(Unsound::TooMany));
    assert_eq!(verdict(&|c| c.loss = u128::MAX), Err(Unsound::Sum("loss")));
    assert_eq!(verdict(&|c| c.squares = 31 << 40), Err(Unsound::Sum("sum of squared differences")));
    let predictions = Err(Unsound::Sum("number of predictions in the calibration curve"));
    assert_eq!(verdict(&|c| c.confusion[0] += 1), predictions);
    assert_eq!(verdict(&|c| c.calibration[1] = (1, 0, 1 << 37)), predictions);
    assert_eq!(verdict(&|c| c.calibration[1] = (1, 0, 1 << 39)), Err(Unsound::Calibration(1)));
    assert_eq!(verdict(&|c| c.calibration[9].1 = 16), Err(Unsound::Calibration(9)));
    assert_eq!(verdict(&|c| c.calibration[9].0 = u64::MAX), Err(Unsound::Calibration(9)));
    assert_eq!(
        verdict(
            &|c| c.confusion = vec![c.confusion[0], 0, 15 - c.confusion[0] - c.confusion[3], c.confusion[3]]
        ),
        Err(Unsound::Histogram(0))
    );
    assert_eq!(verdict(&|c| c.scores[1][0].clear()), Err(Unsound::Histogram(1)));
    assert_eq!(verdict(&|c| c.scores[0][0].extend([(60_000, 0)])), Err(Unsound::Histogram(0)));
    assert_eq!(verdict(&|c| c.scores[0][0].extend([(0, u64::MAX)])), Err(Unsound::Histogram(0)));
}

#[test]
fn a_sum_that_overflows_adds_nothing() {
    let mut most = forged(&Counts::new(&kind(2)));
    most.confusion[0] = u64::MAX;
    let mut sum = received(&most);
    assert_eq!(sum.merge(&counted(2, &[(0, vec![1.0, 0.0])]).into()), Err(Mismatch::Overflow));
    assert_eq!(sum, received(&most));
}

#[test]
fn few_examples_are_few_bytes() {
    let len = wire::encode(&Counts::from(some_examples(15))).unwrap().len();
    assert!(len < 400, "{len} bytes");
}
