//! How a cell becomes model inputs or what is learned: the run's [`FeatureKind`] and [`Target`], made ready for many rows.
//!
//! White space around a value never counts, unless the run itself writes it into a category.

use std::collections::BTreeMap;

use sheaf_common::run::{Feature, FeatureKind, Target};

use super::Targets;
use super::contract::{CellProblem, ContractError};
use super::table::{Column, Row};

/// A feature ready to encode cells.
pub(super) struct Encoder<'a> {
    kind: Kind<'a>,
    missing: &'a [String],
}

enum Kind<'a> {
    Numeric { mean: f64, std: f64, missing: Vec<f64> },
    Categorical(Categories<'a>),
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
            FeatureKind::Categorical { categories } => Kind::Categorical(Categories::new(categories)),
        };
        Self { kind, missing: &feature.missing }
    }

    /// Model inputs per cell.
    pub(super) fn width(&self) -> usize {
        match &self.kind {
            Kind::Numeric { .. } => 2,
            Kind::Categorical(categories) => categories.0.len(),
        }
    }

    /// Appends the inputs that `cell` becomes: as many as the feature's width.
    pub(super) fn encode(&self, cell: &str, inputs: &mut Vec<f32>) -> Result<(), CellProblem> {
        let text = cell.trim();
        let is_missing = text.is_empty() || self.missing.iter().any(|missing| missing.trim() == text);
        match &self.kind {
            Kind::Numeric { .. } if is_missing => inputs.extend([0.0, 1.0]),
            Kind::Numeric { mean, std, missing } => {
                let value: f64 = text.parse().map_err(|_| CellProblem::NotANumber)?;
                inputs.extend(if missing.contains(&value) {
                    [0.0, 1.0]
                } else {
                    [scaled(value, *mean, *std)?, 0.0]
                });
            }
            Kind::Categorical(categories) => {
                let category = if is_missing {
                    None
                } else {
                    Some(categories.find(cell).ok_or(CellProblem::UnknownCategory)?)
                };
                inputs.extend(
                    (0..categories.0.len()).map(|index| if Some(index) == category { 1.0 } else { 0.0 }),
                );
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
        let text = cell.trim();
        let may_be_empty = matches!(self.found, Targets::Labels { .. });
        if text.is_empty() && !may_be_empty {
            return Err(CellProblem::NoLabel);
        }
        match (&mut self.found, self.target) {
            (Targets::Label(found), _) => {
                let label = self.labels.find(cell).ok_or(CellProblem::UnknownLabel)?;
                found.push(label as u32);
            }
            (Targets::Labels { width, values }, Target::Labels { separator, .. }) => {
                let start = values.len();
                values.resize(start + *width, false);
                for word in words(text, separator) {
                    values[start + self.labels.find(&word).ok_or(CellProblem::UnknownLabel)?] = true;
                }
            }
            (Targets::Number(found), Target::Number(number)) => {
                let value: f64 = text.parse().map_err(|_| CellProblem::NotANumber)?;
                found.push(scaled(value, number.mean, number.std)?);
            }
            (Targets::Answer(found), _) => found.push(cell.to_owned()),
            (Targets::Labels { .. } | Targets::Number(_) | Targets::Inputs(_) | Targets::Tokens(_), _) => {}
        }
        Ok(())
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

fn scaled(value: f64, mean: f64, std: f64) -> Result<f32, CellProblem> {
    if !value.is_finite() {
        return Err(CellProblem::NotFinite);
    }
    let scaled = ((value - mean) / std) as f32;
    if scaled.is_finite() { Ok(scaled) } else { Err(CellProblem::TooLarge) }
}
