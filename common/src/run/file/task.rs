//! The table `[task]`: the data contract.

use serde::Deserialize;

use super::{forbid, no_duplicates, positive, within};
use crate::config::Invalid;
use crate::run::{Feature, FeatureKind, Task, TaskInput};

/// Most classes of a run: metrics hold a histogram per class, and a control message holds the metrics.
const LABELS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskFile {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    dataset: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    labels: Vec<String>,
    group: Option<String>,
    text: Option<String>,
    max_length: Option<u32>,
    features: Option<Vec<FeatureFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FeatureFile {
    column: String,
    #[serde(rename = "type")]
    kind: String,
    mean: Option<f64>,
    std: Option<f64>,
    categories: Option<Vec<String>>,
    #[serde(default)]
    missing: Vec<String>,
}

pub(super) fn task(file: TaskFile) -> Result<Task, Invalid> {
    let input = match file.kind.as_str() {
        "text-classification" => {
            forbid("task.features", file.features.is_some(), "text-classification reads `text`")?;
            let column =
                file.text.ok_or_else(|| Invalid::new("task.text", "name the column that holds the text"))?;
            let max_length = file.max_length.unwrap_or(128);
            within("task.max_length", u64::from(max_length), 3, 8192)?;
            TaskInput::Text { column, max_length }
        }
        "tabular-classification" => {
            forbid("task.text", file.text.is_some(), "tabular-classification reads `features`")?;
            let written = file.features.unwrap_or_default();
            if written.is_empty() {
                return Err(Invalid::new("task.features", "list at least one [[task.features]]"));
            }
            let features =
                written.into_iter().enumerate().map(|(i, f)| feature(i, f)).collect::<Result<Vec<_>, _>>()?;
            no_duplicates("task.features", features.iter().map(|feature| feature.column.as_str()))?;
            TaskInput::Table { features }
        }
        "none" => {
            return Ok(Task {
                dataset: String::new(),
                label: String::new(),
                labels: Vec::new(),
                group: None,
                input: TaskInput::Nothing,
            });
        }
        other => {
            return Err(Invalid::new(
                "task.type",
                format!("`{other}` is unknown; use \"text-classification\" or \"tabular-classification\""),
            ));
        }
    };
    for (key, value) in [("task.dataset", &file.dataset), ("task.label", &file.label)] {
        if value.is_empty() {
            return Err(Invalid::new(key, "is missing"));
        }
    }
    if !(2..=LABELS_MAX).contains(&file.labels.len()) {
        return Err(Invalid::new("task.labels", format!("list 2 to {LABELS_MAX} labels")));
    }
    no_duplicates("task.labels", file.labels.iter().map(String::as_str))?;
    if let Some(group) = &file.group {
        forbid("task.group", group.is_empty(), "names no column")?;
        forbid(
            "task.group",
            *group == file.label,
            "is the label's column; name the one that says whose an example is",
        )?;
        let is_input = match &input {
            TaskInput::Text { column, .. } => column == group,
            TaskInput::Table { features } => features.iter().any(|feature| feature.column == *group),
            TaskInput::Nothing => false,
        };
        forbid(
            "task.group",
            is_input,
            "is an input of the model; name the column that says whose an example is",
        )?;
    }
    Ok(Task { dataset: file.dataset, label: file.label, labels: file.labels, group: file.group, input })
}

fn feature(index: usize, file: FeatureFile) -> Result<Feature, Invalid> {
    let key = |name: &str| format!("task.features.{index}.{name}");
    let kind = match file.kind.as_str() {
        "numeric" => {
            forbid(&key("categories"), file.categories.is_some(), "a numeric column has none")?;
            let mean = file.mean.unwrap_or(0.0);
            let std = file.std.unwrap_or(1.0);
            if !mean.is_finite() {
                return Err(Invalid::new(key("mean"), "must be a finite number"));
            }
            positive(&key("std"), std)?;
            FeatureKind::Numeric { mean, std }
        }
        "categorical" => {
            forbid(
                &key("mean"),
                file.mean.is_some() || file.std.is_some(),
                "a categorical column has no mean and std",
            )?;
            let categories = file.categories.unwrap_or_default();
            if categories.is_empty() {
                return Err(Invalid::new(key("categories"), "list the categories"));
            }
            no_duplicates(&key("categories"), categories.iter().map(String::as_str))?;
            FeatureKind::Categorical { categories }
        }
        other => {
            return Err(Invalid::new(
                key("type"),
                format!("`{other}` is unknown; use \"numeric\" or \"categorical\""),
            ));
        }
    };
    Ok(Feature { column: file.column, kind, missing: file.missing })
}
