//! The columns that a tabular model was trained on and the number that it gives, as its `config.json` lists them, and whether a run has
//! the same.

use serde::{Deserialize, Serialize};

use crate::run::{Feature, FeatureKind, NumberTarget};

/// A column as it is written, with the words of `run.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FeatureJson {
    column: String,
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mean: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    std: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    categories: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    other: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    buckets: Option<u32>,
    #[serde(default)]
    missing: Vec<String>,
}

/// The number that a model gives, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NumberJson {
    column: String,
    mean: f64,
    std: f64,
}

impl From<&NumberTarget> for NumberJson {
    fn from(number: &NumberTarget) -> Self {
        Self { column: number.column.clone(), mean: number.mean, std: number.std }
    }
}

impl TryFrom<NumberJson> for NumberTarget {
    type Error = String;

    fn try_from(NumberJson { column, mean, std }: NumberJson) -> Result<Self, String> {
        if mean.is_finite() && std.is_finite() && std > 0.0 {
            Ok(Self { column, mean, std })
        } else {
            Err("`number` needs a finite `mean` and a `std` above 0".into())
        }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Numeric,
    Categorical,
}

impl From<&Feature> for FeatureJson {
    fn from(feature: &Feature) -> Self {
        let plain = Self {
            column: feature.column.clone(),
            kind: Kind::Categorical,
            mean: None,
            std: None,
            categories: None,
            other: false,
            buckets: None,
            missing: feature.missing.clone(),
        };
        match &feature.kind {
            FeatureKind::Numeric { mean, std } => {
                Self { kind: Kind::Numeric, mean: Some(*mean), std: Some(*std), ..plain }
            }
            FeatureKind::Categorical { categories, other } => {
                Self { categories: Some(categories.clone()), other: *other, ..plain }
            }
            FeatureKind::Hashed { buckets } => Self { buckets: Some(*buckets), ..plain },
        }
    }
}

impl TryFrom<FeatureJson> for Feature {
    type Error = String;

    fn try_from(json: FeatureJson) -> Result<Self, String> {
        let column = json.column;
        let hashed = (json.other, json.buckets);
        let kind = match (json.kind, json.mean, json.std, json.categories) {
            (Kind::Numeric, Some(mean), Some(std), None)
                if mean.is_finite() && std.is_finite() && std > 0.0 && hashed == (false, None) =>
            {
                FeatureKind::Numeric { mean, std }
            }
            (Kind::Numeric, ..) => {
                return Err(format!(
                    "the numeric column `{column}` needs a finite `mean` and a `std` above 0, and no more"
                ));
            }
            (Kind::Categorical, None, None, Some(categories))
                if !categories.is_empty() && json.buckets.is_none() =>
            {
                FeatureKind::Categorical { categories, other: json.other }
            }
            (Kind::Categorical, None, None, None)
                if !json.other && json.buckets.is_some_and(|count| count > 0) =>
            {
                FeatureKind::Hashed { buckets: json.buckets.unwrap_or_default() }
            }
            (Kind::Categorical, ..) => {
                return Err(format!(
                    "the categorical column `{column}` needs `categories` or `buckets`, and no more"
                ));
            }
        };
        Ok(Self { column, kind, missing: json.missing })
    }
}

/// Why a run's columns are not those that a model was trained on: `None` when they are.
///
/// What stands for a missing value may differ: it is a matter of a site's files, not of the model's inputs.
pub(super) fn features_differ(trained: &[Feature], asked: &[Feature]) -> Option<String> {
    if trained.len() != asked.len() {
        return Some(format!(
            "the model was trained on {} columns, the run has {}",
            trained.len(),
            asked.len()
        ));
    }
    trained.iter().zip(asked).find_map(|(trained, asked)| feature_differs(trained, asked))
}

fn feature_differs(trained: &Feature, asked: &Feature) -> Option<String> {
    let column = &trained.column;
    if *column != asked.column {
        return Some(format!("the model expects the column `{column}` where the run has `{}`", asked.column));
    }
    match (&trained.kind, &asked.kind) {
        (FeatureKind::Numeric { mean, std }, FeatureKind::Numeric { mean: other_mean, std: other_std }) => {
            // Another writer of the same decimal number may be off in the last bit.
            let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * std.abs();
            let same = close(*mean, *other_mean) && close(*std, *other_std);
            (!same).then(|| {
                format!(
                    "the model was trained with mean = {mean} and std = {std} for `{column}`; write the same"
                )
            })
        }
        (FeatureKind::Categorical { categories, other }, asked @ FeatureKind::Categorical { .. }) => {
            (trained.kind != *asked).then(|| {
                let other = if *other { " and other = true" } else { "" };
                format!(
                    "the model was trained with categories = {categories:?}{other} for `{column}`; write the same"
                )
            })
        }
        (FeatureKind::Hashed { buckets }, asked @ FeatureKind::Hashed { .. }) => {
            (trained.kind != *asked).then(|| {
                format!("the model was trained with buckets = {buckets} for `{column}`; write the same")
            })
        }
        (FeatureKind::Categorical { .. }, FeatureKind::Hashed { .. })
        | (FeatureKind::Hashed { .. }, FeatureKind::Categorical { .. }) => Some(format!(
            "the column `{column}` has `categories` in one of model and run and `buckets` in the other"
        )),
        (FeatureKind::Numeric { .. }, _) | (_, FeatureKind::Numeric { .. }) => Some(format!(
            "the column `{column}` is numeric in one of model and run and categorical in the other"
        )),
    }
}
