//! Files into data sets: the encoding against a plain reference, every bad file with its two sentences, and the
//! split's properties.

mod bad;
mod counting;
mod encoding;
mod images;
mod lines;
mod parquet;
mod splitting;
mod stored;

use std::fs;

use sheaf_common::run::{Feature, FeatureKind, NumberTarget, Target, Task, TaskInput};

use super::*;
use crate::config::{DatasetConfig, Format, Header};

/// A data set of its own.
struct TestFile {
    config: DatasetConfig,
    _folder: tempfile::TempDir,
}

impl TestFile {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("heart.csv");
        fs::write(&path, content).unwrap();
        let config = DatasetConfig {
            path,
            format: Format::Delimited,
            delimiter: b',',
            quotes: true,
            header: Header::FirstRow,
            skip_rows: 0,
            rename: [].into(),
            images: None,
            labels: None,
            classes: Vec::new(),
            memory_mib: 64,
            spill: folder.path().to_owned(),
        };
        Self { config, _folder: folder }
    }

    fn load(&self, task: &Task) -> Result<Dataset, ContractError> {
        load(&self.config, "heart", task)
    }
}

fn numeric(column: &str, mean: f64, std: f64, missing: &[&str]) -> Feature {
    Feature { column: column.to_owned(), kind: FeatureKind::Numeric { mean, std }, missing: owned(missing) }
}

fn categorical(column: &str, categories: &[&str], missing: &[&str]) -> Feature {
    let kind = FeatureKind::Categorical { categories: owned(categories), other: false };
    Feature { column: column.to_owned(), kind, missing: owned(missing) }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn task(input: TaskInput) -> Task {
    Task {
        dataset: "heart".to_owned(),
        group: None,
        input,
        target: Target::Label { column: "disease".to_owned(), labels: owned(&["no", "yes"]) },
    }
}

fn table(features: Vec<Feature>) -> Task {
    task(TaskInput::Table { features })
}

fn heart() -> Task {
    table(vec![numeric("age", 50.0, 10.0, &["0"]), categorical("cp", &["typical", "none"], &["?"])])
}

fn text() -> Task {
    task(TaskInput::Text { column: "words".to_owned(), max_length: 128 })
}
