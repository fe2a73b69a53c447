//! Counts as 64-bit slots, so that a secure sum pools them without anybody seeing one site's.
//!
//! Histograms are dense and eight times coarser here: what is secret must be as long as it may be, whatever it
//! holds. A score counts as the middle of its coarse bin.

use super::counts::{ClassScores, Counts};
use super::histogram::{Histogram, num_bins};
use crate::secagg::layout::{joined, split};

/// Bins of a site's histogram that share a slot.
const COARSE: u16 = 8;

fn coarse_bins(num_labels: usize) -> usize {
    usize::from(num_bins(num_labels).div_ceil(COARSE))
}

impl Counts {
    /// Slots of counts over `num_labels` classes.
    pub fn num_slots(num_labels: usize) -> usize {
        num_labels * num_labels + 2 + 2 * num_labels * coarse_bins(num_labels)
    }

    /// The counts as slots: confusion matrix, loss in two halves, then each class's positives and negatives.
    pub fn to_slots(&self) -> Vec<u64> {
        let mut slots = self.confusion.clone();
        slots.extend(split(self.loss));
        let bins = coarse_bins(self.num_labels());
        for scores in &self.scores {
            slots.extend(scores.positives.coarse(COARSE, bins));
            slots.extend(scores.negatives.coarse(COARSE, bins));
        }
        slots
    }

    /// The counts whose slots (or whose sums of slots) these are; `None` when they are too few.
    /// Whether they are sound is for [`Counts::is_sound`] to say.
    pub fn from_slots(num_labels: usize, slots: &[u64]) -> Option<Self> {
        if slots.len() != Self::num_slots(num_labels) {
            return None;
        }
        let (confusion, rest) = slots.split_at(num_labels * num_labels);
        let (loss, rest) = rest.split_first_chunk::<2>()?;
        let most = num_bins(num_labels) - 1;
        let histogram = |slots: &[u64]| Histogram::from_coarse(slots, COARSE, most);
        let scores = rest
            .chunks_exact(2 * coarse_bins(num_labels))
            .map(|class| {
                let (positives, negatives) = class.split_at(class.len() / 2);
                ClassScores { positives: histogram(positives), negatives: histogram(negatives) }
            })
            .collect();
        Some(Self { confusion: confusion.to_vec(), loss: joined(loss[0], loss[1]), scores })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_slots_are_the_slots_of_sums() {
        let mut sites = [Counts::new(3), Counts::new(3)];
        for (at, counts) in sites.iter_mut().enumerate() {
            for example in 0..50 {
                let score = |class: usize| ((example * 7 + class * 13 + at * 5) % 11) as f32 - 5.0;
                counts.observe(example % 3, &[score(0), score(1), score(2)]);
            }
        }
        let [first, second] = &sites;
        let sum: Vec<u64> = first.to_slots().iter().zip(second.to_slots()).map(|(a, b)| a + b).collect();
        let pooled = Counts::from_slots(3, &sum).unwrap();
        assert_eq!(pooled.is_sound(3), Ok(()));
        let mut plain = first.clone();
        plain.merge(second).unwrap();
        let labels: Vec<String> = ["a", "b", "c"].map(String::from).to_vec();
        let (pooled, plain) = (pooled.report(&labels), plain.report(&labels));
        assert_eq!(pooled.accuracy, plain.accuracy);
        assert_eq!(pooled.loss, plain.loss);
        assert_eq!(Counts::from_slots(3, &sum[1..]), None);
    }
}
