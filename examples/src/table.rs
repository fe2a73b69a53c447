//! Rows of a data set: what a partition gives to a site, and the file that the site then has.

use std::collections::BTreeMap;
use std::path::Path;

use csv::{QuoteStyle, WriterBuilder};

/// How a file separates its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Commas, and quotes where they are needed.
    Csv,
    /// Tabulators and no quotes: a quote in a text is a character like any other.
    Tsv,
}

/// Rows with their label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// How it is written.
    pub(crate) format: Format,
    /// Names of the columns.
    pub(crate) columns: Vec<&'static str>,
    /// Which column is the label.
    pub(crate) label: usize,
    /// The fields, one for each column.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Format {
    /// How such a file's name ends.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Tsv => "tsv",
        }
    }
}

impl Table {
    /// A table of the same columns with other rows.
    pub(crate) fn with_rows(&self, rows: Vec<Vec<String>>) -> Self {
        Self { format: self.format, columns: self.columns.clone(), label: self.label, rows }
    }

    /// The label of a row.
    pub(crate) fn label_of<'a>(&self, row: &'a [String]) -> &'a str {
        row.get(self.label).map_or("", String::as_str)
    }

    /// How many rows each label has, by label.
    pub(crate) fn label_counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for row in &self.rows {
            *counts.entry(self.label_of(row)).or_default() += 1;
        }
        counts
    }

    /// The rows in groups of one label each, by label.
    pub(crate) fn by_label(&self) -> BTreeMap<&str, Vec<&Vec<String>>> {
        let mut groups = BTreeMap::<&str, Vec<&Vec<String>>>::new();
        for row in &self.rows {
            groups.entry(self.label_of(row)).or_default().push(row);
        }
        groups
    }

    /// Writes the file.
    pub(crate) fn write(&self, path: &Path) -> csv::Result<()> {
        let mut builder = WriterBuilder::new();
        match self.format {
            Format::Csv => {}
            Format::Tsv => {
                builder.delimiter(b'\t').quote_style(QuoteStyle::Never);
            }
        }
        let mut writer = builder.from_path(path)?;
        writer.write_record(&self.columns)?;
        self.rows.iter().try_for_each(|row| writer.write_record(row))?;
        Ok(writer.flush()?)
    }
}
