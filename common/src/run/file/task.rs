//! The table `[task]`: the data contract.

use serde::Deserialize;

use super::{forbid, no_duplicates, positive, within};
use crate::config::Invalid;
use crate::run::{Feature, FeatureKind, NumberTarget, Target, Task, TaskInput};

/// Most classes of a run: metrics hold a histogram per class, and a control message holds the metrics.
const LABELS_MAX: usize = 64;

/// Most inputs of a hashed column.
const BUCKETS_MAX: u64 = 65_536;

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
    multi_label: Option<bool>,
    label_separator: Option<String>,
    label_mean: Option<f64>,
    label_std: Option<f64>,
    answer: Option<String>,
    template: Option<String>,
    group: Option<String>,
    text: Option<String>,
    max_length: Option<u32>,
    image: Option<String>,
    image_size: Option<u32>,
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
    other: Option<bool>,
    buckets: Option<u32>,
    #[serde(default)]
    missing: Vec<String>,
}

pub(super) fn task(file: TaskFile) -> Result<Task, Invalid> {
    let Some((input, learned)) = kind(&file.kind) else {
        return Err(Invalid::new(
            "task.type",
            format!(
                "`{}` is unknown; use \"text-classification\", \"tabular-classification\", \"image-classification\", \
                 \"text-regression\", \"tabular-regression\", \"image-regression\" or \"causal-lm\"",
                file.kind
            ),
        ));
    };
    if learned == Learned::Nothing {
        let (input, target) = (TaskInput::Nothing, Target::Nothing);
        return Ok(Task { dataset: String::new(), group: None, input, target });
    }
    if file.dataset.is_empty() {
        return Err(Invalid::new("task.dataset", "is missing"));
    }
    let (group, dataset) = (file.group.clone(), file.dataset.clone());
    let target = target(&file, learned)?;
    let task = Task { dataset, group, input: input_of(file, input)?, target };
    check_columns(&task)?;
    Ok(task)
}

/// What a run learns from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Text,
    Table,
    Image,
    Nothing,
}

/// What a run learns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Learned {
    Classes,
    Number,
    NextToken,
    Nothing,
}

fn kind(written: &str) -> Option<(Source, Learned)> {
    match written {
        "causal-lm" => return Some((Source::Text, Learned::NextToken)),
        "none" => return Some((Source::Nothing, Learned::Nothing)),
        _ => {}
    }
    let (input, learned) = written.split_once('-')?;
    let input = match input {
        "text" => Source::Text,
        "tabular" => Source::Table,
        "image" => Source::Image,
        _ => return None,
    };
    match learned {
        "classification" => Some((input, Learned::Classes)),
        "regression" => Some((input, Learned::Number)),
        _ => None,
    }
}

fn input_of(file: TaskFile, from: Source) -> Result<TaskInput, Invalid> {
    let others = [
        ("text", file.text.is_some(), from == Source::Text),
        ("max_length", file.max_length.is_some(), from == Source::Text),
        ("features", file.features.is_some(), from == Source::Table),
        ("image", file.image.is_some(), from == Source::Image),
        ("image_size", file.image_size.is_some(), from == Source::Image),
    ];
    for (key, given, fits) in others {
        forbid(&format!("task.{key}"), given && !fits, &format!("is not for \"{}\"", file.kind))?;
    }
    Ok(match from {
        Source::Text => {
            let column =
                file.text.ok_or_else(|| Invalid::new("task.text", "name the column that holds the text"))?;
            let max_length = file.max_length.unwrap_or(128);
            within("task.max_length", u64::from(max_length), 3, 8192)?;
            TaskInput::Text { column, max_length }
        }
        Source::Table => {
            let written = file.features.unwrap_or_default();
            if written.is_empty() {
                return Err(Invalid::new("task.features", "list at least one [[task.features]]"));
            }
            let features =
                written.into_iter().enumerate().map(|(i, f)| feature(i, f)).collect::<Result<Vec<_>, _>>()?;
            no_duplicates("task.features", features.iter().map(|feature| feature.column.as_str()))?;
            TaskInput::Table { features }
        }
        Source::Image => {
            if let Some(size) = file.image_size {
                within("task.image_size", u64::from(size), 8, 1024)?;
            }
            TaskInput::Image { column: file.image.unwrap_or_else(|| "image".into()), size: file.image_size }
        }
        Source::Nothing => TaskInput::Nothing,
    })
}

fn target(file: &TaskFile, learned: Learned) -> Result<Target, Invalid> {
    let is_classes = learned == Learned::Classes;
    let others = [
        ("labels", !file.labels.is_empty(), is_classes),
        ("multi_label", file.multi_label.is_some(), is_classes),
        ("label_separator", file.label_separator.is_some(), file.multi_label == Some(true)),
        ("label_mean", file.label_mean.is_some(), learned == Learned::Number),
        ("label_std", file.label_std.is_some(), learned == Learned::Number),
        ("label", !file.label.is_empty(), learned != Learned::NextToken),
        ("answer", file.answer.is_some(), learned == Learned::NextToken),
        ("template", file.template.is_some(), learned == Learned::NextToken),
    ];
    for (key, given, fits) in others {
        let why = match key {
            "label_separator" => "needs multi_label = true".to_owned(),
            _ => format!("is not for \"{}\"", file.kind),
        };
        forbid(&format!("task.{key}"), given && !fits, &why)?;
    }
    if learned == Learned::NextToken {
        let answer = file.answer.clone();
        forbid("task.answer", answer.as_deref() == Some(""), "names no column")?;
        let template = file.template.clone().unwrap_or_else(|| "{text}".into());
        if template.matches("{text}").count() != 1 {
            return Err(Invalid::new("task.template", "write `{text}` in it once, where the text goes"));
        }
        return Ok(Target::NextToken { answer, template });
    }
    if file.label.is_empty() {
        return Err(Invalid::new("task.label", "is missing"));
    }
    let (column, labels) = (file.label.clone(), file.labels.clone());
    if learned == Learned::Number {
        let (mean, std) = (file.label_mean.unwrap_or(0.0), file.label_std.unwrap_or(1.0));
        if !mean.is_finite() {
            return Err(Invalid::new("task.label_mean", "must be a finite number"));
        }
        positive("task.label_std", std)?;
        return Ok(Target::Number(NumberTarget { column, mean, std }));
    }
    let multi_label = file.multi_label.unwrap_or(false);
    let least = if multi_label { 1 } else { 2 };
    if !(least..=LABELS_MAX).contains(&labels.len()) {
        return Err(Invalid::new("task.labels", format!("list {least} to {LABELS_MAX} labels")));
    }
    no_duplicates("task.labels", labels.iter().map(String::as_str))?;
    if !multi_label {
        return Ok(Target::Label { column, labels });
    }
    let separator = file.label_separator.clone().unwrap_or_else(|| ";".into());
    forbid("task.label_separator", separator.trim().is_empty(), "is empty; write one like \";\"")?;
    if let Some(label) = labels.iter().find(|label| label.contains(&separator)) {
        return Err(Invalid::new(
            "task.labels",
            format!("`{label}` contains the separator `{separator}`; write another `label_separator`"),
        ));
    }
    Ok(Target::Labels { column, separator, labels })
}

/// What is learned and whose an example is must not be among the inputs.
fn check_columns(task: &Task) -> Result<(), Invalid> {
    if let Target::NextToken { answer: Some(answer), .. } = &task.target {
        forbid(
            "task.answer",
            task.input_columns().contains(&answer.as_str()),
            "is the column of `text`; name the one that holds the answer",
        )?;
    }
    let Some(group) = &task.group else { return Ok(()) };
    forbid("task.group", group.is_empty(), "names no column")?;
    forbid(
        "task.group",
        task.target.column() == Some(group),
        "is the label's column; name the one that says whose an example is",
    )?;
    forbid(
        "task.group",
        task.input_columns().contains(&group.as_str()),
        "is an input of the model; name the column that says whose an example is",
    )
}

fn feature(index: usize, file: FeatureFile) -> Result<Feature, Invalid> {
    let key = |name: &str| format!("task.features.{index}.{name}");
    let kind = match file.kind.as_str() {
        "numeric" => {
            for (name, given) in [
                ("categories", file.categories.is_some()),
                ("other", file.other.is_some()),
                ("buckets", file.buckets.is_some()),
            ] {
                forbid(&key(name), given, "a numeric column has none")?;
            }
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
            if let Some(buckets) = file.buckets {
                let listed = !categories.is_empty() || file.other.is_some();
                forbid(
                    &key("buckets"),
                    listed,
                    "is for values that are not listed; give it or `categories`, not both",
                )?;
                within(&key("buckets"), u64::from(buckets), 2, BUCKETS_MAX)?;
                FeatureKind::Hashed { buckets }
            } else {
                if categories.is_empty() {
                    let problem = "list the categories, or give `buckets` if nobody can";
                    return Err(Invalid::new(key("categories"), problem));
                }
                no_duplicates(&key("categories"), categories.iter().map(String::as_str))?;
                FeatureKind::Categorical { categories, other: file.other.unwrap_or(false) }
            }
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
