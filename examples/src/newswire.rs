//! Desks of a newsroom that learn topics together: Reuters R8 and all-MiniLM-L6-v2. One site a desk; the
//! partition is simulated.

use std::path::{Path, PathBuf};

use csv::ReaderBuilder;

use crate::cache;
use crate::example::{Base, Choice, Example, ExampleError};
use crate::metric::{ACCURACY, CALIBRATION_ERROR, MACRO_F1, PR_AUC, ROC_AUC};
use crate::skewed::Skewed;
use crate::table::{Format, Table};

/// Lines of a `.tab` file before its first document: names, types, roles and an empty one.
const HEADER_LINES: usize = 4;

/// The example, with its data dealt out.
pub(crate) fn example(choice: Choice) -> Result<Example, ExampleError> {
    let (documents, mut test) = documents()?;
    if choice.reduced {
        test = test.sample(120, &mut choice.stream("test", &[]));
    }
    let size = choice.size(150, 40);
    let desks = choice.sites.get();
    Ok(Example {
        about: format!(
            "{desks} desks of a newsroom learn the topics of Reuters R8 together, each from {size} documents \
             of its own.\nThe partition is simulated: four in five of a desk's documents are of its own topics, \
             drawn with seed {}.",
            choice.seed
        ),
        choice,
        run: include_str!("../newswire/run.toml"),
        reduced_rounds: 3,
        survey: false,
        base: Base::Pretrained { name: "minilm", path: cache::find("minilm")?, kind: None },
        sites: Skewed { party: "desk", size, strays: size / 5 }.partition(&documents, choice),
        test,
        metrics: &[ACCURACY, MACRO_F1, ROC_AUC, PR_AUC, CALIBRATION_ERROR],
    })
}

/// The documents of Reuters R8 for training and for testing.
pub(crate) fn documents() -> Result<(Table, Table), ExampleError> {
    let data = cache::find("reuters-r8")?;
    Ok((read(&data.join("reuters-r8-train.tab"))?, read(&data.join("reuters-r8-test.tab"))?))
}

/// Reads a `.tab` file: a topic and a text on each line, without quotes.
fn read(path: &Path) -> Result<Table, ExampleError> {
    let unreadable = |error: csv::Error| ExampleError::Unreadable(PathBuf::from(path), error.into());
    let reader = ReaderBuilder::new()
        .delimiter(b'\t')
        .quoting(false)
        .has_headers(false)
        .flexible(true)
        .from_path(path);
    let mut rows = Vec::new();
    for record in reader.map_err(unreadable)?.into_records().skip(HEADER_LINES - 1) {
        let record = record.map_err(unreadable)?;
        match (record.get(0), record.get(1)) {
            (Some(topic), Some(text)) if !topic.is_empty() => {
                rows.push(vec![topic.to_owned(), text.trim().to_owned()])
            }
            _ => {
                let line = record.position().map_or(0, csv::Position::line);
                let problem = format!("has no topic and text on line {line}: fetch it again");
                return Err(ExampleError::Unexpected(path.to_owned(), problem));
            }
        }
    }
    Ok(Table { format: Format::Tsv, columns: vec!["topic", "text"], label: 0, rows })
}
