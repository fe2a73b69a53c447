//! How a cell becomes model inputs or what is learned: the run's [`FeatureKind`] and [`Target`], made ready for many rows.
//!
//! White space around a value never counts, unless the run itself writes it into a category.

use std::collections::{BTreeMap, BTreeSet};

use sheaf_common::metrics::Value;
use sheaf_common::run::{Feature, FeatureKind, Target};

use super::Targets;
use super::contract::{CellProblem, ContractError};
use super::hashing::Hashing;
use super::table::{Column, Row};

/// A feature ready to encode cells.
pub(super) struct Encoder<'a> {
    kind: Kind<'a>,
    missing: &'a [String],
}

enum Kind<'a> {
    Numeric {
        mean: f64,
        std: f64,
        missing: Vec<f64>,
    },
    /// With an input for other words, if it is so.
    Categorical(Categories<'a>, bool),
    Hashed(Hashing<'a>),
}

/// Words and their places in the run's list: categories or labels.
pub(super) struct Categories<'a>(BTreeMap<&'a str, usize>);

impl<'a> Encoder<'a> {
    pub(super) fn new(feature: &'a Feature) -> Self {
        let kind = match &feature.kind {
            FeatureKind::Numeric { mean, std } => Kind::Numeric {
                mean: *mean,
                std: *std,
                missing: feature.missing.iter().filter_map(|value| value.trim().parse().ok()).collect(),
            },
            FeatureKind::Categorical { categories, other } => {
                Kind::Categorical(Categories::new(categories), *other)
            }
            FeatureKind::Hashed { buckets } => {
                Kind::Hashed(Hashing { column: &feature.column, buckets: *buckets })
            }
        };
        Self { kind, missing: &feature.missing }
    }

    /// Model inputs per cell.
    pub(super) fn width(&self) -> usize {
        match &self.kind {
            Kind::Numeric { .. } => 2,
            Kind::Categorical(categories, other) => categories.0.len() + usize::from(*other),
            Kind::Hashed(hashing) => hashing.buckets as usize,
        }
    }

    /// What the cell says: a standardised number, or the place of a category, behind which comes that of all others. A
    /// column whose words are hashed has one place for all.
    pub(super) fn read(&self, cell: &str) -> Result<Value, CellProblem> {
        let text = cell.trim();
        if text.is_empty() || self.missing.iter().any(|missing| missing.trim() == text) {
            return Ok(Value::Missing);
        }
        match &self.kind {
            Kind::Numeric { mean, std, missing } => {
                let value: f64 = text.parse().map_err(|_| CellProblem::NotANumber)?;
                if missing.contains(&value) {
                    return Ok(Value::Missing);
                }
                Ok(Value::Number(scaled(value, *mean, *std)?))
            }
            Kind::Categorical(categories, other) => {
                let others = other.then_some(categories.0.len());
                categories.find(cell).or(others).map(Value::Word).ok_or(CellProblem::UnknownCategory)
            }
            Kind::Hashed(_) => Ok(Value::Word(0)),
        }
    }

    /// Appends the inputs that `cell` becomes: as many as the feature's width.
    pub(super) fn encode(&self, cell: &str, inputs: &mut Vec<f32>) -> Result<(), CellProblem> {
        match (&self.kind, self.read(cell)?) {
            (Kind::Numeric { .. }, Value::Number(value)) => inputs.extend([value as f32, 0.0]),
            (Kind::Numeric { .. }, _) => inputs.extend([0.0, 1.0]),
            (Kind::Categorical(..), value) => {
                let is = |index| value == Value::Word(index);
                inputs.extend((0..self.width()).map(|index| if is(index) { 1.0 } else { 0.0 }));
            }
            (Kind::Hashed(hashing), value) => {
                let start = inputs.len();
                inputs.resize(start + self.width(), 0.0);
                if value != Value::Missing {
                    let (bucket, sign) = hashing.place(cell.trim());
                    inputs[start + bucket] = sign;
                }
            }
        }
        Ok(())
    }
}

/// Reads what is learned of each row.
pub(super) struct TargetReader<'a> {
    target: &'a Target,
    labels: Categories<'a>,
    /// Of the rows so far.
    pub(super) found: Targets,
}

impl<'a> TargetReader<'a> {
    pub(super) fn new(target: &'a Target) -> Self {
        let (labels, found): (&[String], _) = match target {
            Target::Label { labels, .. } => (labels, Targets::Label(Vec::new())),
            Target::Labels { labels, .. } => {
                (labels, Targets::Labels { width: labels.len(), values: Vec::new() })
            }
            Target::Number(_) => (&[], Targets::Number(Vec::new())),
            Target::NextToken { answer: Some(_), .. } => (&[], Targets::Answer(Vec::new())),
            Target::NextToken { answer: None, .. } | Target::Nothing => (&[], Targets::Inputs(0)),
        };
        Self { target, labels: Categories::new(labels), found }
    }

    /// Reads the row's target from `column`, if the run's has one.
    pub(super) fn read(&mut self, row: &Row<'_>, column: Option<Column<'_>>) -> Result<(), ContractError> {
        let Some(column) = column else {
            if let Targets::Inputs(examples) = &mut self.found {
                *examples += 1;
            }
            return Ok(());
        };
        let cell = row.cell(column)?;
        self.push(cell).map_err(|problem| row.error(column, cell, problem))
    }

    fn push(&mut self, cell: &str) -> Result<(), CellProblem> {
        let value = self.value(cell)?;
        match (&mut self.found, value) {
            (Targets::Label(found), Value::Word(label)) => found.push(label as u32),
            (Targets::Labels { width, values }, Value::Words(labels)) => {
                let start = values.len();
                values.resize(start + *width, false);
                labels.iter().for_each(|label| values[start + label] = true);
            }
            (Targets::Number(found), Value::Number(number)) => found.push(number as f32),
            (Targets::Answer(found), _) => found.push(cell.to_owned()),
            (
                Targets::Label(_)
                | Targets::Labels { .. }
                | Targets::Number(_)
                | Targets::Inputs(_)
                | Targets::Tokens(_),
                _,
            ) => {}
        }
        Ok(())
    }

    /// What the cell says is learned: the place of a label, of several, or a standardised number. An answer is text, and
    /// no value.
    pub(super) fn value(&self, cell: &str) -> Result<Value, CellProblem> {
        let text = cell.trim();
        if text.is_empty() && !matches!(self.target, Target::Labels { .. }) {
            return Err(CellProblem::NoLabel);
        }
        let find = |word: &str| self.labels.find(word).ok_or(CellProblem::UnknownLabel);
        match self.target {
            Target::Labels { separator, .. } => {
                // A label that is written twice is one label.
                let places = words(text, separator)
                    .iter()
                    .map(|word| find(word))
                    .collect::<Result<BTreeSet<_>, _>>()?;
                Ok(Value::Words(places.into_iter().collect()))
            }
            Target::Label { .. } => find(cell).map(Value::Word),
            Target::Number(number) => {
                let value: f64 = text.parse().map_err(|_| CellProblem::NotANumber)?;
                Ok(Value::Number(scaled(value, number.mean, number.std)?))
            }
            Target::NextToken { .. } | Target::Nothing => Ok(Value::Missing),
        }
    }
}

/// The labels in a cell: a list of JSON, as JSON lines have it, or words with the separator between them.
fn words(text: &str, separator: &str) -> Vec<String> {
    if let Ok(list) = serde_json::from_str(text) {
        return list;
    }
    let words = text.split(separator).map(str::trim).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

impl<'a> Categories<'a> {
    pub(super) fn new(words: &'a [String]) -> Self {
        Self(words.iter().enumerate().map(|(index, word)| (word.as_str(), index)).collect())
    }

    /// The place of the cell's word in the list.
    pub(super) fn find(&self, cell: &str) -> Option<usize> {
        self.0.get(cell).or_else(|| self.0.get(cell.trim())).copied()
    }
}

/// In standard deviations from the mean; what trains has it in single precision.
fn scaled(value: f64, mean: f64, std: f64) -> Result<f64, CellProblem> {
    if !value.is_finite() {
        return Err(CellProblem::NotFinite);
    }
    let scaled = (value - mean) / std;
    if (scaled as f32).is_finite() { Ok(scaled) } else { Err(CellProblem::TooLarge) }
}
