//! Hospitals that learn to recognise heart disease together: 920 real patients of four hospitals (UCI). A model
//! that Cleveland trained on its own patients is what the federation starts from.

use std::cmp::Reverse;
use std::path::Path;

use crate::cache;
use crate::example::{Base, Choice, Example, ExampleError, Site};
use crate::metric::{ACCURACY, CALIBRATION_ERROR, MACRO_F1, PR_AUC, ROC_AUC};
use crate::natural;
use crate::table::{self, Format, Table};

/// The column that says which hospital a patient was at.
const HOSPITAL: &str = "dataset";
/// The column that grades the disease from 0 (none) to 4.
const GRADE: &str = "num";
/// What a hospital's own file holds: these columns as they are, and the label.
const COLUMNS: [&str; 13] = [
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalch", "exang", "oldpeak", "slope", "ca",
    "thal",
];
const LABEL: &str = "disease";

/// The example, with its patients at their hospitals.
pub(crate) fn example(choice: Choice) -> Result<Example, ExampleError> {
    let hospitals = read(&cache::find("heart")?.join("heart_disease_uci.csv"))?;
    let natural = hospitals.len();
    let (sites, test) = natural::partition(hospitals, choice);
    let how = match sites.len() {
        sites if sites == natural => "Each hospital keeps its own patients",
        sites if sites < natural => "Only the largest hospitals take part, each with its own patients",
        _ => "The largest hospitals are divided, which is simulated",
    };
    Ok(Example {
        about: format!(
            "{} hospitals learn to recognise heart disease together (UCI heart disease).\n{how}; a quarter of them, \
             drawn with seed {}, is the common test set.",
            sites.len(),
            choice.seed
        ),
        choice,
        run: include_str!("../heart/run.toml"),
        base: Base::FirstSite { name: "cleveland-mlp", run: include_str!("../heart/pretrain.toml") },
        reduced_rounds: 5,
        survey: false,
        sites,
        test: table(test),
        metrics: &[ACCURACY, MACRO_F1, ROC_AUC, PR_AUC, CALIBRATION_ERROR],
    })
}

/// Reads the patients, by hospital: Cleveland first, then by size.
fn read(path: &Path) -> Result<Vec<Site>, ExampleError> {
    let columns: Vec<&str> = [HOSPITAL, GRADE].into_iter().chain(COLUMNS).collect();
    let patients = table::read(path, &columns)?.into_iter().map(|mut row| {
        let patient = row.split_off(2);
        let disease = if row[1].trim() == "0" { "no" } else { "yes" };
        (site_name(&row[0]), patient.into_iter().chain([disease.to_owned()]).collect())
    });
    let mut hospitals = natural::parties(patients, table);
    hospitals.sort_by_key(|hospital| (hospital.name != "cleveland", Reverse(hospital.train.rows.len())));
    Ok(hospitals)
}

fn table(rows: Vec<Vec<String>>) -> Table {
    let columns = COLUMNS.into_iter().chain([LABEL]).collect();
    Table { format: Format::Csv, columns, label: COLUMNS.len(), rows }
}

/// `VA Long Beach` becomes `va-long-beach`: names are part of certificates.
fn site_name(hospital: &str) -> String {
    hospital.trim().to_lowercase().replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use sheaf_common::run::{RunSpec, TaskInput};

    /// What run.toml starts from was trained by pretrain.toml.
    #[test]
    fn both_runs_ask_for_the_same_columns() {
        let run = RunSpec::parse("run.toml", include_str!("../heart/run.toml")).unwrap();
        let pretrain = RunSpec::parse("pretrain.toml", include_str!("../heart/pretrain.toml")).unwrap();
        assert_eq!(run.task, pretrain.task);
        let TaskInput::Table { features } = &run.task.input else { panic!("{:?}", run.task.input) };
        assert!(features.iter().map(|feature| feature.column.as_str()).eq(super::COLUMNS));
        assert_eq!(run.task.target.column(), Some(super::LABEL));
    }
}
