//! Precision, recall and F1 of a label, and their averages, by scikit-learn's definitions: every ratio whose
//! denominator is 0 is 0 (`zero_division=0`).

/// One label against the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Right predictions of the label.
    pub(super) right: u64,
    /// Predictions of the label.
    pub(super) predicted: u64,
    /// Examples of the label.
    pub(super) support: u64,
}

/// Precision, recall and F1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Scores {
    pub(super) precision: f64,
    pub(super) recall: f64,
    pub(super) f1: f64,
}

/// The three ways to average over labels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Averages {
    /// Of the added counts.
    pub(super) micro: Scores,
    /// The mean over labels.
    pub(super) macro_: Scores,
    /// The mean over labels, weighted by their examples.
    pub(super) weighted: Scores,
}

impl Tally {
    pub(super) fn precision(&self) -> f64 {
        ratio(self.right, self.predicted)
    }

    pub(super) fn recall(&self) -> f64 {
        ratio(self.right, self.support)
    }

    /// The harmonic mean of precision and recall.
    pub(super) fn f1(&self) -> f64 {
        let whole = u128::from(self.predicted) + u128::from(self.support);
        if whole == 0 { 0.0 } else { 2.0 * self.right as f64 / whole as f64 }
    }

    /// Whether the label is true or predicted anywhere.
    pub(super) fn occurs(&self) -> bool {
        self.support > 0 || self.predicted > 0
    }

    fn scores(&self) -> Scores {
        Scores { precision: self.precision(), recall: self.recall(), f1: self.f1() }
    }
}

impl Averages {
    pub(super) fn of(tallies: &[Tally]) -> Self {
        let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).fold(0, u64::saturating_add);
        let support = sum(|tally| tally.support);
        let all = Tally { right: sum(|t| t.right), predicted: sum(|t| t.predicted), support };
        let average = |of: fn(&Scores) -> f64| mean(tallies.iter().map(|tally| of(&tally.scores())));
        let weighted = |of: fn(&Scores) -> f64| {
            let parts = tallies.iter().map(|tally| of(&tally.scores()) * tally.support as f64);
            parts.sum::<f64>() / support.max(1) as f64
        };
        Self {
            micro: all.scores(),
            macro_: Scores {
                precision: average(|s| s.precision),
                recall: average(|s| s.recall),
                f1: average(|s| s.f1),
            },
            weighted: Scores {
                precision: weighted(|s| s.precision),
                recall: weighted(|s| s.recall),
                f1: weighted(|s| s.f1),
            },
        }
    }
}

/// 0 of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The mean; 0 over nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}
