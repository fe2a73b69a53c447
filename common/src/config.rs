//! Configuration files in two stages: what was written (serde) becomes what it means (`TryFrom`), or one
//! sentence that says where it is wrong and what to write instead.

use std::fmt;

use serde::de::DeserializeOwned;

/// A wrong value, named by its key (`training.learning_rate`); the file and line are added by [`read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The key, dotted, as in the file. A list item is named by its index: `task.features.2.name`.
    pub key: String,
    /// What is wrong and what to write instead, without a full stop.
    pub problem: String,
}

impl Invalid {
    /// A wrong value at `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// A configuration file is wrong: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    file: String,
    line: Option<usize>,
    problem: String,
}

impl ConfigError {
    /// A wrong value found after the file was read, located by its key in the file's text.
    pub fn locate(file: &str, text: &str, invalid: &Invalid) -> Self {
        Self {
            file: file.to_owned(),
            line: line_of_key(text, &invalid.key),
            problem: format!("{}: {}", invalid.key, invalid.problem),
        }
    }

    /// What is wrong, without where.
    pub fn problem(&self) -> &str {
        &self.problem
    }

    /// Whether it is about `key`, which is set in `text`, the file's.
    pub fn is_at(&self, text: &str, key: &str) -> bool {
        self.line.is_some() && self.line == line_of_key(text, key)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.problem),
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

/// Reads the written form `W` from a file's text and makes the typed form `T` of it.
///
/// `file` is only for the message.
pub fn read<W, T>(file: &str, text: &str) -> Result<T, ConfigError>
where
    W: DeserializeOwned,
    T: TryFrom<W, Error = Invalid>,
{
    let written: W = toml::from_str(text).map_err(|error| ConfigError {
        file: file.to_owned(),
        line: error.span().map(|span| line_at(text, span.start)),
        problem: error.message().replace('\n', " "),
    })?;
    T::try_from(written).map_err(|invalid| ConfigError::locate(file, text, &invalid))
}

/// The line (from 1) on which `key` is set, or on which its nearest written ancestor starts.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let mut line = None;
    let mut table = Some(document.get_ref());
    let mut items: Option<&toml::de::DeArray<'_>> = None;
    let mut rest = Some(key);
    while let Some(key) = rest {
        // A key that has dots in it is written in quotes: the longest that is there is meant.
        let mut heads = std::iter::successors(Some(key), |key| key.rsplit_once('.').map(|(head, _)| head));
        let written = heads.find(|head| table.is_some_and(|table| table.contains_key(*head)));
        let first = key.split_once('.').map_or(key, |(first, _)| first);
        let part = written.unwrap_or(first);
        rest = key.get(part.len()..).and_then(|below| below.strip_prefix('.'));
        let value = match (table, items) {
            (Some(table), _) => match table.get_key_value(part) {
                Some((key, value)) => {
                    line = Some(line_at(text, key.span().start));
                    value
                }
                None => break,
            },
            (None, Some(items)) => match part.parse::<usize>().ok().and_then(|index| items.get(index)) {
                Some(value) => {
                    line = Some(line_at(text, value.span().start));
                    value
                }
                None => break,
            },
            (None, None) => break,
        };
        table = value.get_ref().as_table();
        items = value.get_ref().as_array();
    }
    line
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Written {
        training: WrittenTraining,
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct WrittenTraining {
        learning_rate: f64,
    }

    #[derive(Debug)]
    struct Typed;

    impl TryFrom<Written> for Typed {
        type Error = Invalid;

        fn try_from(written: Written) -> Result<Self, Invalid> {
            if written.training.learning_rate > 0.0 {
                Ok(Self)
            } else {
                Err(Invalid::new("training.learning_rate", "must be above 0"))
            }
        }
    }

    fn message(text: &str) -> String {
        read::<Written, Typed>("run.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_value_is_located() {
        assert_eq!(
            message("# a\n[training]\n\nlearning_rate = 0.0\n"),
            "run.toml:4: training.learning_rate: must be above 0"
        );
    }

    #[test]
    fn an_unknown_key_is_located() {
        let message = message("[training]\nlearning_rate = 0.1\nlerning_rate = 1\n");
        assert!(message.starts_with("run.toml:3: unknown field `lerning_rate`"), "{message}");
    }

    #[test]
    fn a_quoted_key_with_dots_is_located() {
        let text = "[search]\na = 1\n\"training.learning_rate\" = [0.0]\n";
        let invalid = Invalid::new("search.training.learning_rate.0", "must be above 0");
        let error = ConfigError::locate("search.toml", text, &invalid);
        assert_eq!(error.to_string(), "search.toml:3: search.training.learning_rate.0: must be above 0");
        assert_eq!(error.problem(), "search.training.learning_rate.0: must be above 0");
        assert!(error.is_at(text, "search.training.learning_rate"));
        assert!(!error.is_at(text, "search.a"));
    }

    #[test]
    fn a_missing_key_is_named() {
        assert!(message("[training]\n").contains("missing field `learning_rate`"));
    }
}
