//! How a cell becomes model inputs: the run's [`FeatureKind`], made ready for many rows.
//!
//! White space around a value never counts, unless the run itself writes it into a category.

use std::collections::BTreeMap;

use sheaf_common::run::{Feature, FeatureKind};

use super::contract::CellProblem;

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
