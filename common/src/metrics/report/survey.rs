//! The report on what sites hold.

use serde::{Deserialize, Serialize};

use crate::metrics::kind::{Asked, Asks, Kind, Occurs, Scale};
use crate::metrics::survey::{Column, Moments, Survey};

/// What the sites hold together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SurveyReport {
    /// Examples counted.
    pub num_examples: u64,
    /// The run's features in its order, then what is learned.
    pub columns: Vec<ColumnReport>,
}

/// A column of all sites together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnReport {
    /// The run's name for it.
    pub column: String,
    /// Examples that have no value there.
    pub missing: u64,
    /// What its numbers are; `None` where it holds words.
    pub number: Option<NumberReport>,
    /// Its words in the run's order; none where it holds numbers.
    pub words: Vec<WordReport>,
}

/// The numbers of a column, in its own unit. Mean and standard deviation are off by at most 2^-21 of the `std` that
/// the run gave (of 1 where it gave none), and what floating point rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberReport {
    /// How many.
    pub count: u64,
    /// How many lay farther than 2^40 of the run's standard deviations from its mean, and counted as that far.
    pub clamped: u64,
    /// Mean; `None` without a number.
    pub mean: Option<f64>,
    /// Standard deviation of the population; `None` without a number.
    pub std: Option<f64>,
}

/// A label or a category.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WordReport {
    /// The word.
    pub word: String,
    /// Examples that have it.
    pub count: u64,
    /// Of a label where each example has one: the weight that makes all labels count alike, `examples / (labels *
    /// count)`; `None` when no example has it.
    pub balanced_weight: Option<f64>,
}

pub(super) fn report(counts: &Survey, kind: &Kind) -> SurveyReport {
    // Counts that were checked against their kind are never of another.
    let asked = match kind {
        Kind::Survey { columns } => columns.as_slice(),
        Kind::Classification { .. } | Kind::MultiLabel { .. } | Kind::Regression { .. } | Kind::Language => {
            &[]
        }
    };
    let columns = counts.columns.iter().zip(asked).map(|(column, asked)| of(column, asked, counts.examples));
    SurveyReport { num_examples: counts.examples, columns: columns.collect() }
}

fn of(column: &Column, asked: &Asked, examples: u64) -> ColumnReport {
    let (mut number, mut words, mut missing) = (None, Vec::new(), 0);
    match (column, &asked.asks) {
        (Column::Number(moments), Asks::Number(scale)) => {
            number = Some(numbers(moments, scale));
            missing = examples.saturating_sub(moments.count);
        }
        (Column::Words(counts), Asks::Words { words: named, occurs }) => {
            let labels = (*occurs == Occurs::Once).then_some(named.len());
            words = named
                .iter()
                .zip(counts)
                .map(|(word, count)| of_word(word, *count, examples, labels))
                .collect();
            if *occurs == Occurs::AtMostOnce {
                missing =
                    examples.saturating_sub(counts.iter().fold(0, |sum, count| sum.saturating_add(*count)));
            }
        }
        (Column::Number(_) | Column::Words(_), _) => {}
    }
    ColumnReport { column: asked.column.clone(), missing, number, words }
}

fn numbers(moments: &Moments, scale: &Scale) -> NumberReport {
    NumberReport {
        count: moments.count,
        clamped: moments.clamped,
        mean: moments.mean().map(|mean| scale.mean + scale.std * mean),
        std: moments.std().map(|std| scale.std * std),
    }
}

/// `labels` is their number, where the word is a label and each example has one.
fn of_word(word: &str, count: u64, examples: u64, labels: Option<usize>) -> WordReport {
    let balanced = labels.filter(|_| count > 0);
    let balanced_weight = balanced.map(|labels| examples as f64 / (labels as f64 * count as f64));
    WordReport { word: word.to_owned(), count, balanced_weight }
}
