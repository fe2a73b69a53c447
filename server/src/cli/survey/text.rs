//! What the sites hold, as text.

use sheaf_common::metrics::{ColumnReport, SurveyReport};

use super::super::metrics::number;
use super::super::table::{Align, table};
use super::super::units::count;

/// The tables for people: numbers, then words.
pub(crate) fn text(report: &SurveyReport) -> String {
    let title = format!("what the sites hold: {} examples", count(report.num_examples));
    let parts = [Some(title), numbers(&report.columns), words(&report.columns), clamped(&report.columns)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

fn numbers(columns: &[ColumnReport]) -> Option<String> {
    let rows: Vec<_> = columns
        .iter()
        .filter_map(|column| {
            let number = column.number?;
            let (mean, std) = (short(number.mean), short(number.std));
            Some([column.column.clone(), count(number.count), count(column.missing), mean, std])
        })
        .collect();
    let names = ["VALUES", "MISSING", "MEAN", "STD"].map(|name| (name, Align::Right));
    let names: Vec<_> = [("NUMBER", Align::Left)].into_iter().chain(names).collect();
    (!rows.is_empty()).then(|| table(&names, rows))
}

fn words(columns: &[ColumnReport]) -> Option<String> {
    let mut rows = Vec::new();
    for column in columns.iter().filter(|column| column.number.is_none()) {
        let row = |word: &str, examples, weight| {
            [column.column.clone(), word.to_owned(), count(examples), number(weight)]
        };
        rows.extend(column.words.iter().map(|word| row(&word.word, word.count, word.balanced_weight)));
        if column.missing > 0 {
            rows.push(row("(missing)", column.missing, None));
        }
    }
    let names = [
        ("WORD OF", Align::Left),
        ("WORD", Align::Left),
        ("EXAMPLES", Align::Right),
        ("BALANCED WEIGHT", Align::Right),
    ];
    (!rows.is_empty()).then(|| table(&names, rows))
}

/// Numbers so far off that their mean is not to be trusted.
fn clamped(columns: &[ColumnReport]) -> Option<String> {
    let lines = columns.iter().filter_map(|column| {
        let clamped = column.number.map(|number| number.clamped).filter(|clamped| *clamped > 0)?;
        Some(format!(
            "{} values of `{}` are too large for their scale and counted as less: give it a `mean` and `std` near theirs",
            count(clamped),
            column.column
        ))
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Six significant digits.
fn short(value: Option<f64>) -> String {
    let rounded = value.and_then(|value| format!("{value:.5e}").parse::<f64>().ok());
    rounded.map_or_else(|| "-".into(), |value| value.to_string())
}
