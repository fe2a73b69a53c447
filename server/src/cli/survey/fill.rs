//! A run's constants filled in from a survey. Whatever else the file says stays as it was written, comments too.

use sheaf_common::id::NAME_MAX;
use sheaf_common::metrics::{ColumnReport, NumberReport, SurveyReport};
use toml_edit::{Array, DocumentMut, Item, TableLike, Value, table, value};

/// The run cannot be filled in.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// It is no TOML.
    #[error("the run is not TOML that can be edited: {0}")]
    Toml(#[from] toml_edit::TomlError),
    /// Weights of a label without examples.
    #[error(
        "no site has an example of the label `{0}`, so that it has no balanced weight: leave the label out of the run, or write `class_weights` by hand"
    )]
    NoExample(String),
    /// A column of which nothing is left.
    #[error(
        "no category of `{0}` has so many examples: lower --min-count, or take the column out of the run"
    )]
    NoCategory(String),
    /// Weights where they make no sense.
    #[error("the run has no labels of which an example has one, so there are no class weights")]
    NoLabels,
}

/// What is filled in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Mean and standard deviation of each number where the run says none.
    pub(super) numbers: bool,
    /// Class weights.
    pub(super) class_weights: bool,
    /// Categories that fewer examples have are left to `other`.
    pub(super) min_count: Option<u64>,
}

/// The run of `text` with what is wanted, and the keys that were written.
pub(super) fn fill(
    text: &str,
    report: &SurveyReport,
    wanted: Wanted,
) -> Result<(String, Vec<String>), FillError> {
    let mut document: DocumentMut = text.parse()?;
    let mut filled = Vec::new();
    if let Some(task) = document.get_mut("task").and_then(Item::as_table_like_mut) {
        let mut columns = report.columns.iter();
        for (feature, column) in features(task.get_mut("features")).into_iter().zip(&mut columns) {
            if let Some(number) = column.number.filter(|_| wanted.numbers) {
                set_numbers(feature, ["mean", "std"], &number, &column.column, &mut filled);
            }
            if let Some(least) = wanted.min_count {
                set_categories(feature, column, least, &mut filled)?;
            }
        }
        // What follows the features is what is learned.
        if let Some(number) = columns.next().and_then(|column| column.number).filter(|_| wanted.numbers) {
            set_numbers(task, ["label_mean", "label_std"], &number, "task", &mut filled);
        }
    }
    if wanted.class_weights {
        let weights: Array = balanced(report.columns.last())?.into_iter().collect();
        let training = document.entry("training").or_insert_with(table);
        if let Some(training) = training.as_table_like_mut() {
            training.insert("class_weights", value(weights));
            filled.push("training.class_weights".into());
        }
    }
    Ok((document.to_string(), filled))
}

/// The run's features, written as `[[task.features]]` or as a list.
fn features(item: Option<&mut Item>) -> Vec<&mut dyn TableLike> {
    match item {
        Some(Item::ArrayOfTables(tables)) => {
            tables.iter_mut().map(|table| table as &mut dyn TableLike).collect()
        }
        Some(Item::Value(Value::Array(list))) => list
            .iter_mut()
            .filter_map(Value::as_inline_table_mut)
            .map(|table| table as &mut dyn TableLike)
            .collect(),
        Some(Item::None | Item::Value(_) | Item::Table(_)) | None => Vec::new(),
    }
}

/// Writes those of the two that are not there. Numbers that are all the same are divided by 1.
fn set_numbers(
    table: &mut dyn TableLike,
    keys: [&str; 2],
    number: &NumberReport,
    of: &str,
    filled: &mut Vec<String>,
) {
    let std = number.std.map(|std| if std > 0.0 { std } else { 1.0 });
    for (key, found) in keys.into_iter().zip([number.mean, std]) {
        if let (false, Some(found)) = (table.contains_key(key), found) {
            table.insert(key, value(found));
            filled.push(format!("{of}.{key}"));
        }
    }
}

/// Leaves the categories that have fewer than `least` examples to `other`.
fn set_categories(
    feature: &mut dyn TableLike,
    column: &ColumnReport,
    least: u64,
    filled: &mut Vec<String>,
) -> Result<(), FillError> {
    let Some(listed) = feature.get("categories").and_then(Item::as_array).map(Array::len) else {
        return Ok(());
    };
    // What follows the categories are all others.
    let words = column.words.iter().take(listed);
    let kept: Array = words.filter(|word| word.count >= least).map(|word| word.word.as_str()).collect();
    if kept.is_empty() {
        return Err(FillError::NoCategory(column.column.clone()));
    }
    if kept.len() < listed {
        feature.insert("categories", value(kept));
        feature.insert("other", value(true));
        filled.extend(["categories", "other"].map(|key| format!("{}.{key}", column.column)));
    }
    Ok(())
}

/// Of a run with `class_weights = "balanced"`, the survey that counts its labels, with a name of its own, and the run without
/// that key.
pub(super) fn without_balanced(text: &str) -> Option<(String, String)> {
    let mut document: DocumentMut = text.parse().ok()?;
    let training = document.get_mut("training")?.as_table_like_mut()?;
    training.remove("class_weights").filter(|weights| weights.as_str() == Some("balanced"))?;
    let run = document.to_string();
    let name = document.get("name").and_then(Item::as_str).unwrap_or_default();
    let name = format!("{}-survey", name.chars().take(NAME_MAX - "-survey".len()).collect::<String>());
    // What is written above the name stays above it.
    *document.get_mut("name")? = value(name);
    Some((document.to_string(), run))
}

fn balanced(target: Option<&ColumnReport>) -> Result<Vec<f64>, FillError> {
    let words = target.map(|column| column.words.as_slice()).unwrap_or_default();
    if words.iter().all(|word| word.balanced_weight.is_none()) {
        return Err(FillError::NoLabels);
    }
    let weight = |word: &sheaf_common::metrics::WordReport| {
        word.balanced_weight.ok_or_else(|| FillError::NoExample(word.word.clone()))
    };
    words.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use sheaf_common::metrics::{Counts, Kind, Survey, Value as Surveyed};
    use sheaf_common::run::{ClassWeights, FeatureKind, RunSpec, TaskInput};

    use super::*;

    const NUMBERS: Wanted = Wanted { numbers: true, class_weights: false, min_count: None };
    const ALL: Wanted = Wanted { class_weights: true, ..NUMBERS };

    const RUN: &str = r#"# hearts
name = "hearts"
rounds = 3
model = { architecture = "mlp" }

[task]
type = "tabular-classification"
dataset = "d"
label = "ill" # the diagnosis
labels = ["no", "yes"]

[[task.features]]
column = "age"
type = "numeric"

[[task.features]]
column = "sex"
type = "categorical"
categories = ["f", "m"]

[[task.features]]
column = "weight"
type = "numeric"
mean = 70.0 # kg
"#;

    fn report(text: &str, rows: &[[Surveyed; 4]]) -> SurveyReport {
        let kind = Kind::of(&RunSpec::parse_survey("run.toml", text).unwrap());
        let Kind::Survey { columns } = &kind else { panic!("no survey") };
        let mut survey = Survey::new(columns);
        rows.iter().for_each(|row| survey.observe(row.clone()));
        Counts::from(survey).report(&kind).survey().unwrap().clone()
    }

    /// Ages 1 and 3; weights all 72.
    fn rows() -> [[Surveyed; 4]; 3] {
        use Surveyed::{Missing, Number, Word};
        [
            [Number(1.0), Word(0), Number(2.0), Word(0)],
            [Number(3.0), Word(1), Number(2.0), Word(0)],
            [Missing, Missing, Number(2.0), Word(1)],
        ]
    }

    #[test]
    fn what_is_lacking_is_filled_in_and_the_rest_stays() {
        let (text, filled) = fill(RUN, &report(RUN, &rows()), ALL).unwrap();
        let expected = RUN
            .replace(
                "column = \"age\"\ntype = \"numeric\"\n",
                "column = \"age\"\ntype = \"numeric\"\nmean = 2.0\nstd = 1.0\n",
            )
            .replace("70.0 # kg\n", "70.0 # kg\nstd = 1.0\n");
        assert_eq!(text, expected + "\n[training]\nclass_weights = [0.75, 1.5]\n");
        assert_eq!(filled, ["age.mean", "age.std", "weight.std", "training.class_weights"]);
        let spec = RunSpec::parse("run.toml", &text).unwrap();
        assert_eq!(spec.training.loss.class_weights, ClassWeights::Given(vec![0.75, 1.5]));
    }

    #[test]
    fn a_list_of_features_is_filled_in_too_and_a_filled_run_stays() {
        let list = r#"{ column = "age", type = "numeric" }, { column = "sex", type = "categorical", categories = ["f", "m"] },
            { column = "weight", type = "numeric", mean = 70.0 }"#;
        let written = RUN.split("[[task").next().unwrap().to_owned() + &format!("features = [{list}]\n");
        let (text, _) = fill(&written, &report(&written, &rows()), NUMBERS).unwrap();
        let spec = RunSpec::parse("run.toml", &text).unwrap();
        let TaskInput::Table { features } = &spec.task.input else { panic!("{:?}", spec.task) };
        assert_eq!(features[0].kind, FeatureKind::Numeric { mean: 2.0, std: 1.0 });
        assert_eq!(features[2].kind, FeatureKind::Numeric { mean: 70.0, std: 1.0 });
        let again = fill(&text, &report(&text, &rows()), NUMBERS).unwrap();
        assert_eq!(again, (text, Vec::new()));
    }

    #[test]
    fn a_label_without_examples_has_no_weight() {
        let [first, second, _] = rows();
        let refused = fill(RUN, &report(RUN, &[first, second]), ALL).unwrap_err().to_string();
        assert!(refused.starts_with("no site has an example of the label `yes`"), "{refused}");
    }

    #[test]
    fn rare_categories_are_left_to_other() {
        let text = RUN.replace("[\"f\", \"m\"]", "[\"f\", \"m\"] # as in the register");
        let [first, second, third] = rows();
        let report = report(&text, &[first.clone(), first, second, third]);
        let cut = |least| fill(&text, &report, Wanted { numbers: false, min_count: Some(least), ..NUMBERS });
        assert_eq!(cut(1).unwrap(), (text.clone(), Vec::new()));
        let (cut_text, filled) = cut(2).unwrap();
        assert_eq!(filled, ["sex.categories", "sex.other"]);
        let spec = RunSpec::parse("run.toml", &cut_text).unwrap();
        let TaskInput::Table { features } = &spec.task.input else { panic!("{:?}", spec.task) };
        assert_eq!(features[1].kind, FeatureKind::Categorical { categories: vec!["f".into()], other: true });
        let refused = cut(3).unwrap_err().to_string();
        assert!(refused.starts_with("no category of `sex` has so many examples"), "{refused}");
    }

    #[test]
    fn a_run_that_asks_for_balanced_weights_is_surveyed_under_another_name() {
        assert_eq!(without_balanced(RUN), None);
        let asks = |weights: &str| format!("{RUN}\n[training]\nbatch_size = 8\nclass_weights = {weights}\n");
        assert_eq!(without_balanced(&asks("[1, 2]")), None);
        assert_eq!(without_balanced(&asks("\"balanced-local\"")), None);
        let (survey, run) = without_balanced(&asks("\"balanced\"")).unwrap();
        assert_eq!(run, format!("{RUN}\n[training]\nbatch_size = 8\n"));
        assert_eq!(survey, run.replace("name = \"hearts\"", "name = \"hearts-survey\""));
        let weights = Wanted { numbers: false, ..ALL };
        let (text, filled) = fill(&run, &report(&run, &rows()), weights).unwrap();
        assert_eq!((text, filled), (asks("[0.75, 1.5]"), vec!["training.class_weights".to_owned()]));
    }
}
