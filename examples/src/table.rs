//! Rows of a data set: what a partition gives to a site, and the file that the site then has.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use csv::{QuoteStyle, StringRecord, WriterBuilder};
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::example::ExampleError;
use crate::idx::Images;

/// Reads a CSV file with a header: of each line these columns, in this order.
pub(crate) fn read(path: &Path, columns: &[&str]) -> Result<Vec<Vec<String>>, ExampleError> {
    let unreadable = |error: csv::Error| ExampleError::Unreadable(path.to_owned(), error.into());
    let mut reader = csv::Reader::from_path(path).map_err(unreadable)?;
    let header = reader.headers().map_err(unreadable)?.clone();
    let place = |column: &&str| {
        let place = header.iter().position(|name| name == *column);
        let missing = || format!("has no column `{column}`: fetch it again");
        place.ok_or_else(|| ExampleError::Unexpected(path.to_owned(), missing()))
    };
    let places = columns.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    let row = |record: csv::Result<StringRecord>| {
        let record = record.map_err(unreadable)?;
        Ok(places.iter().map(|place| record[*place].to_owned()).collect())
    };
    reader.records().map(row).collect()
}

/// How a data set is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Commas, and quotes where they are needed.
    Csv,
    /// Tabulators and no quotes: a quote in a text is a character like any other.
    Tsv,
    /// These images, at the places that the first column says.
    Idx(Rc<Images>),
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

impl Table {
    /// A table of the same columns with other rows.
    pub(crate) fn with_rows(&self, rows: Vec<Vec<String>>) -> Self {
        Self { format: self.format.clone(), columns: self.columns.clone(), label: self.label, rows }
    }

    /// Some of its rows, drawn at random.
    pub(crate) fn sample(&self, size: usize, rng: &mut impl Rng) -> Self {
        self.with_rows(self.rows.sample(rng, size).cloned().collect())
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

    /// Writes its file, or its two.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> csv::Result<()> {
        let path = folder.join(self.file(name));
        if let Format::Idx(images) = &self.format {
            let place = |row: &Vec<String>| row.first()?.parse().ok();
            let places: Vec<usize> = self.rows.iter().filter_map(place).collect();
            return Ok(images.write(&places, &path, &folder.join(labels_file(name)))?);
        }
        let mut builder = WriterBuilder::new();
        if self.format == Format::Tsv {
            builder.delimiter(b'\t').quote_style(QuoteStyle::Never);
        }
        let mut writer = builder.from_path(path)?;
        writer.write_record(&self.columns)?;
        self.rows.iter().try_for_each(|row| writer.write_record(row))?;
        Ok(writer.flush()?)
    }

    /// The keys of a data set in `site.toml` that say where this one lies and how it is read.
    pub(crate) fn keys(&self, name: &str) -> String {
        let path = format!("path = \"{}\"\n", self.file(name));
        match &self.format {
            Format::Csv => path,
            Format::Idx(images) => {
                format!(
                    "{path}labels = \"{}\"\nformat = \"idx\"\nclasses = {:?}\n",
                    labels_file(name),
                    images.classes
                )
            }
            Format::Tsv => path + "# A quote in a text is a character like any other.\nquotes = false\n",
        }
    }

    fn file(&self, name: &str) -> String {
        match self.format {
            Format::Csv => format!("{name}.csv"),
            Format::Idx(_) => format!("{name}-images.idx"),
            Format::Tsv => format!("{name}.tsv"),
        }
    }
}

fn labels_file(name: &str) -> String {
    format!("{name}-labels.idx")
}
