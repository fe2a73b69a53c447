//! A run's constants filled in from a survey. Whatever else the file says stays as it was written, comments too.

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
    /// Weights where they make no sense.
    #[error("the run has no labels of which an example has one, so there are no class weights")]
    NoLabels,
}

/// The run of `text` with the mean and standard deviation of each number where it says none, and with class weights if
/// they are asked for; and the keys that were written.
pub(super) fn fill(
    text: &str,
    report: &SurveyReport,
    class_weights: bool,
) -> Result<(String, Vec<String>), FillError> {
    let mut document: DocumentMut = text.parse()?;
    let mut filled = Vec::new();
    if let Some(task) = document.get_mut("task").and_then(Item::as_table_like_mut) {
        let mut columns = report.columns.iter();
        for (feature, column) in features(task.get_mut("features")).into_iter().zip(&mut columns) {
            if let Some(number) = column.number {
                set_numbers(feature, ["mean", "std"], &number, &column.column, &mut filled);
            }
        }
        // What follows the features is what is learned.
        if let Some(number) = columns.next().and_then(|column| column.number) {
            set_numbers(task, ["label_mean", "label_std"], &number, "task", &mut filled);
        }
    }
    if class_weights {
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
        let (text, filled) = fill(RUN, &report(RUN, &rows()), true).unwrap();
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
        let (text, _) = fill(&written, &report(&written, &rows()), false).unwrap();
        let spec = RunSpec::parse("run.toml", &text).unwrap();
        let TaskInput::Table { features } = &spec.task.input else { panic!("{:?}", spec.task) };
        assert_eq!(features[0].kind, FeatureKind::Numeric { mean: 2.0, std: 1.0 });
        assert_eq!(features[2].kind, FeatureKind::Numeric { mean: 70.0, std: 1.0 });
        let again = fill(&text, &report(&text, &rows()), false).unwrap();
        assert_eq!(again, (text, Vec::new()));
    }

    #[test]
    fn a_label_without_examples_has_no_weight() {
        let [first, second, _] = rows();
        let refused = fill(RUN, &report(RUN, &[first, second]), true).unwrap_err().to_string();
        assert!(refused.starts_with("no site has an example of the label `yes`"), "{refused}");
    }
}
