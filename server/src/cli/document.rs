//! A run as a document that a command makes out of another: some keys set, all of it checked.

use sheaf_common::config::{ConfigError, Invalid};
use sheaf_common::id::RunId;
use sheaf_common::run::RunSpec;
use toml::{Table, Value};

/// A run that can be submitted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    /// Its name, under which it is found again.
    pub(super) run: RunId,
    /// Its `run.toml`.
    pub(super) text: String,
    /// What that means.
    pub(super) spec: RunSpec,
}

impl Document {
    /// Of a `run.toml` that names its run `run`; what is wrong with it is told of a file `<run>.toml`.
    pub(super) fn parse(run: RunId, text: String) -> Result<Self, ConfigError> {
        let spec = RunSpec::parse(&format!("{run}.toml"), &text)?;
        Ok(Self { run, text, spec })
    }
}

/// Sets a dotted key, making the tables on the way to it.
pub(super) fn set(table: &mut Table, key: &str, value: Value) -> Result<(), Invalid> {
    let (tables, last) = key.rsplit_once('.').map_or((None, key), |(tables, last)| (Some(tables), last));
    let mut place = table;
    for part in tables.into_iter().flat_map(|tables| tables.split('.')) {
        let inner = place.entry(part).or_insert_with(|| Value::Table(Table::new()));
        place = inner.as_table_mut().ok_or_else(|| {
            Invalid::new(key, format!("`{part}` is a single value in the run, and has no keys"))
        })?;
    }
    place.insert(last.to_owned(), value);
    Ok(())
}
