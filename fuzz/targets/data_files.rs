//! A site's data from anybody: a table in CSV, JSON lines or Parquet, or images in an IDX file. A data set, or one sentence.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sheaf_client::config::{DatasetConfig, Format, Header};
use sheaf_client::data::{load, survey};
use sheaf_common::run::RunSpec;

/// Runs that read a table, and images.
static RUNS: LazyLock<[RunSpec; 2]> = LazyLock::new(|| {
    let table = r#"
name = "table"
rounds = 1
model = { architecture = "mlp", hidden = [2] }
[task]
type = "tabular-classification"
dataset = "data"
features = [
  { column = "x", type = "numeric", mean = 0.0, std = 1.0 },
  { column = "c", type = "categorical", categories = ["a", "b"], other = true },
]
label = "y"
labels = ["0", "1"]
"#;
    let images = r#"
name = "images"
rounds = 1
model = { name = "imported" }
[task]
type = "image-classification"
dataset = "data"
image_size = 8
label = "y"
labels = ["0", "1"]
"#;
    [table, images].map(|text| RunSpec::parse("run.toml", text).expect("a run"))
});

static FOLDER: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a folder for what is read"));

fn file(name: &str, content: &[u8]) -> PathBuf {
    let path = FOLDER.path().join(name);
    std::fs::write(&path, content).expect("a file");
    path
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    let format = match kind % 4 {
        0 => Format::Delimited,
        1 => Format::JsonLines,
        2 => Format::Parquet,
        _ => Format::Idx,
    };
    // The first half of an IDX pair is the images.
    let (first, second) = body.split_at(if format == Format::Idx { body.len() / 2 } else { body.len() });
    let config = DatasetConfig {
        path: file("data", first),
        labels: (format == Format::Idx).then(|| file("labels", second)),
        format,
        delimiter: b',',
        quotes: true,
        header: Header::FirstRow,
        skip_rows: 0,
        rename: [].into(),
        images: None,
        classes: Vec::new(),
        memory_mib: 16,
        spill: FOLDER.path().to_owned(),
    };
    let run = &RUNS[usize::from(format == Format::Idx)];
    for error in [
        load(&config, "data", &run.task).err().map(|error| error.to_string()),
        survey(&config, "data").err().map(|error| error.to_string()),
    ]
    .into_iter()
    .flatten()
    {
        assert!(!error.is_empty());
    }
});
