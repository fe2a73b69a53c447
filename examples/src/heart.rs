//! Hospitals that learn to recognise heart disease together: 920 real patients of four hospitals (UCI). A model
//! that Cleveland trained on its own patients is what the federation starts from.

mod partition;

use std::path::{Path, PathBuf};

use csv::StringRecord;

use crate::cache;
use crate::example::{Base, Choice, Example, ExampleError};
use crate::table::{Format, Table};

use partition::{Hospital, partition};

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
    let (sites, test) = partition(hospitals, choice);
    let how = match sites.len() {
        sites if sites == natural => "Each hospital keeps its own patients",
        sites if sites < natural => "Only the largest hospitals take part, each with its own patients",
        _ => "The largest hospitals are divided, which is simulated",
    };
    Ok(Example {
        name: "heart",
        about: format!(
            "{} hospitals learn to recognise heart disease together (UCI heart disease).\n{how}; a quarter of them, \
             drawn with seed {}, is the common test set.",
            sites.len(),
            choice.seed
        ),
        choice,
        run: include_str!("../../heart/run.toml"),
        base: Base::FirstSite { name: "cleveland-mlp", run: include_str!("../../heart/pretrain.toml") },
        sites,
        test: table(test),
    })
}

/// Reads the patients, by hospital: Cleveland first, then by size.
fn read(path: &Path) -> Result<Vec<Hospital>, ExampleError> {
    let unreadable = |error| ExampleError::Unreadable(PathBuf::from(path), error);
    let unexpected = |problem: String| ExampleError::Unexpected(PathBuf::from(path), problem);
    let mut reader = csv::Reader::from_path(path).map_err(unreadable)?;
    let header = reader.headers().map_err(unreadable)?.clone();
    let place = |column: &str| {
        let place = header.iter().position(|name| name == column);
        place.ok_or_else(|| unexpected(format!("has no column `{column}`: fetch it again")))
    };
    let (hospital, grade) = (place(HOSPITAL)?, place(GRADE)?);
    let places = COLUMNS.iter().map(|column| place(column)).collect::<Result<Vec<_>, _>>()?;
    let mut hospitals = Vec::<Hospital>::new();
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        let name = site_name(&record[hospital]);
        let row = patient(&record, &places, grade);
        match hospitals.iter_mut().find(|hospital| hospital.name == name) {
            Some(hospital) => hospital.patients.rows.push(row),
            None => hospitals.push(Hospital { name, patients: table(vec![row]) }),
        }
    }
    hospitals.sort_by_key(|hospital| {
        (hospital.name != "cleveland", std::cmp::Reverse(hospital.patients.rows.len()))
    });
    Ok(hospitals)
}

fn patient(record: &StringRecord, places: &[usize], grade: usize) -> Vec<String> {
    let disease = if record[grade].trim() == "0" { "no" } else { "yes" };
    let columns = places.iter().map(|place| record[*place].to_owned());
    columns.chain([disease.to_owned()]).collect()
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
        let run = RunSpec::parse("run.toml", include_str!("../../heart/run.toml")).unwrap();
        let pretrain = RunSpec::parse("pretrain.toml", include_str!("../../heart/pretrain.toml")).unwrap();
        assert_eq!(run.task, pretrain.task);
        let TaskInput::Table { features } = &run.task.input else { panic!("{:?}", run.task.input) };
        assert!(features.iter().map(|feature| feature.column.as_str()).eq(super::COLUMNS));
        assert_eq!(run.task.target.column(), Some(super::LABEL));
    }
}
