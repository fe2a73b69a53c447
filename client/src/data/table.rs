//! Rows of a file, delimited text, JSON lines or Parquet, with the place of every row for the message; or of what else has an
//! image and a class for each example.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::contract::{Breach, CellProblem, ContractError};
use super::images;
use super::lines::Lines;
use super::parquet;
use crate::config::{DatasetConfig, Format, Header};

/// A file open for reading, past its header.
pub(super) struct Table<'a> {
    dataset: &'a str,
    config: &'a DatasetConfig,
    source: Source,
    /// The columns' names in the file.
    names: Vec<String>,
}

/// What rows are read from.
enum Source {
    Delimited(Reader<File>),
    Lines(Lines),
    Parquet(parquet::Rows),
    /// Images and their classes.
    Images(std::vec::IntoIter<[String; 2]>),
}

/// A column of the contract and where it is in the file.
#[derive(Clone, Copy)]
pub(super) struct Column<'a> {
    /// The run's name for it.
    name: &'a str,
    /// The file's name for it.
    own: &'a str,
    index: usize,
}

/// One row of the file.
pub(super) struct Row<'a> {
    dataset: &'a str,
    path: &'a Path,
    record: &'a ByteRecord,
    place: Place,
}

/// Where a row is.
#[derive(Clone, Copy)]
enum Place {
    /// On a line of its own or on several.
    Lines,
    /// In a file that has no lines: which row it is, from 1.
    Row(u64),
    /// It is of no file.
    Nowhere,
}

/// What a data set holds, whatever a run may ask of it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Survey {
    /// Examples.
    pub rows: u64,
    /// The columns' names, as runs call them.
    pub columns: Vec<String>,
}

/// Reads a data set through, without a contract.
pub fn survey(config: &DatasetConfig, name: &str) -> Result<Survey, ContractError> {
    let table = Table::open(config, name)?;
    let as_run = |own: &String| {
        config
            .rename
            .iter()
            .find(|(_, renamed)| *renamed == own)
            .map_or_else(|| own.clone(), |(run, _)| run.clone())
    };
    let columns = table.names.iter().map(as_run).collect();
    let mut rows = 0;
    table.for_each_row(|_| {
        rows += 1;
        Ok(())
    })?;
    Ok(Survey { rows, columns })
}

impl<'a> Table<'a> {
    pub(super) fn open(config: &'a DatasetConfig, dataset: &'a str) -> Result<Self, ContractError> {
        let error = |breach| ContractError::new(dataset, &config.path, breach);
        let (names, source) = match config.format {
            Format::Delimited => return Self::open_delimited(config, dataset),
            Format::JsonLines => {
                let lines = Lines::open(&config.path).map_err(error)?;
                (lines.names.clone(), Source::Lines(lines))
            }
            Format::Parquet => {
                let rows = parquet::Rows::open(&config.path).map_err(error)?;
                (rows.names.clone(), Source::Parquet(rows))
            }
            Format::ImageFolder | Format::Idx => {
                let rows = images::rows(config).map_err(error)?;
                (images::COLUMNS.map(str::to_owned).into(), Source::Images(rows.into_iter()))
            }
        };
        Ok(Self { dataset, config, source, names })
    }

    fn open_delimited(config: &'a DatasetConfig, dataset: &'a str) -> Result<Self, ContractError> {
        let error = |breach| ContractError::new(dataset, &config.path, breach);
        // The header is read as a row like any other and rows may differ in length until they are checked
        // below: only so are the lines counted from the top of the file, and skipped rows free in their form.
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(config.delimiter)
            .quoting(config.quotes)
            .from_path(&config.path)
            .map_err(|problem| error(unreadable(&problem)))?;
        let mut record = ByteRecord::new();
        let names = match &config.header {
            Header::Named(names) => names.clone(),
            Header::FirstRow => {
                if !reader.read_byte_record(&mut record).map_err(|problem| error(unreadable(&problem)))? {
                    return Err(error(Breach::Empty));
                }
                record.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect()
            }
        };
        for _ in 0..config.skip_rows {
            if !reader.read_byte_record(&mut record).map_err(|problem| error(unreadable(&problem)))? {
                break;
            }
        }
        Ok(Self { dataset, config, source: Source::Delimited(reader), names })
    }

    /// Calls the columns of images and classes, which have no names of their own where they are no table, as the run
    /// does.
    pub(super) fn named(mut self, image: &str, class: Option<&str>) -> Self {
        if matches!(self.source, Source::Images(_)) {
            self.names = [image].into_iter().chain(class).map(str::to_owned).collect();
        }
        self
    }

    /// Finds the columns that the run calls so, in this order.
    pub(super) fn columns(&self, names: &[&'a str]) -> Result<Vec<Column<'a>>, ContractError> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match self.column(name)? {
                Some(column) => found.push(column),
                None => missing.push((*name).to_owned()),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let found = found.iter().map(|column| column.name.to_owned()).collect();
        Err(self.error(Breach::MissingColumns { missing, found, all: self.names.clone() }))
    }

    fn column(&self, name: &'a str) -> Result<Option<Column<'a>>, ContractError> {
        let own = self.config.rename.get(name).map_or(name, String::as_str);
        let mut places = self.names.iter().enumerate().filter(|(_, column)| *column == own);
        match (places.next(), places.next()) {
            (Some(_), Some(_)) => {
                Err(self.error(Breach::AmbiguousColumn { column: name.to_owned(), own: own.to_owned() }))
            }
            (Some((index, _)), None) => match &self.source {
                Source::Parquet(rows) if !rows.reads(index) => {
                    Err(self.error(Breach::UnreadableColumn { column: name.to_owned(), own: own.to_owned() }))
                }
                Source::Parquet(_) | Source::Delimited(_) | Source::Lines(_) | Source::Images(_) => {
                    Ok(Some(Column { name, own, index }))
                }
            },
            (None, _) => Ok(None),
        }
    }

    /// Hands every row to `visit`, in the order of the file.
    pub(super) fn for_each_row(
        mut self,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), ContractError>,
    ) -> Result<(), ContractError> {
        let mut record = ByteRecord::new();
        let mut rows = 0;
        while self.next(&mut record)? {
            rows += 1;
            let place = match &self.source {
                Source::Delimited(_) | Source::Lines(_) => Place::Lines,
                Source::Parquet(rows) => Place::Row(rows.read),
                Source::Images(_) => Place::Nowhere,
            };
            visit(&Row { dataset: self.dataset, path: &self.config.path, record: &record, place })?;
        }
        if rows == 0 { Err(self.error(Breach::NoExamples)) } else { Ok(()) }
    }

    fn next(&mut self, record: &mut ByteRecord) -> Result<bool, ContractError> {
        let (dataset, path) = (self.dataset, &self.config.path);
        let error = |breach| ContractError::new(dataset, path, breach);
        let more = match &mut self.source {
            Source::Lines(lines) => return lines.next(record).map_err(error),
            Source::Parquet(rows) => return rows.next(record).map_err(error),
            Source::Images(rows) => {
                let row = rows.next();
                *record = row.iter().flatten().map(String::as_bytes).collect();
                return Ok(row.is_some());
            }
            Source::Delimited(reader) => {
                reader.read_byte_record(record).map_err(|problem| error(unreadable(&problem)))?
            }
        };
        let (fields, columns) = (record.len(), self.names.len());
        if more && fields != columns {
            return Err(error(Breach::Ragged { line: line_of(record, path), fields, columns }));
        }
        Ok(more)
    }

    fn error(&self, breach: Breach) -> ContractError {
        ContractError::new(self.dataset, &self.config.path, breach)
    }
}

impl Row<'_> {
    /// The cell's text.
    pub(super) fn cell(&self, column: Column<'_>) -> Result<&str, ContractError> {
        let bytes = self.record.get(column.index).unwrap_or_default();
        std::str::from_utf8(bytes)
            .map_err(|_| self.error(column, &String::from_utf8_lossy(bytes), CellProblem::NotUtf8))
    }

    /// What is wrong with the cell.
    pub(super) fn error(&self, column: Column<'_>, value: &str, problem: CellProblem) -> ContractError {
        const MOST: usize = 80;
        let breach = Breach::Cell {
            place: match self.place {
                Place::Lines => Some(("line", line_of(self.record, self.path))),
                Place::Row(row) => Some(("row", row)),
                Place::Nowhere => None,
            },
            column: column.name.to_owned(),
            own: column.own.to_owned(),
            value: value.chars().take(MOST).collect(),
            problem,
        };
        ContractError::new(self.dataset, self.path, breach)
    }
}

/// The line (from 1) on which an editor shows the row. Counted when it is asked for: the reader's own count takes
/// neither empty lines nor `\r\n` as an editor does.
fn line_of(record: &ByteRecord, path: &Path) -> u64 {
    let start = record.position().map_or(0, csv::Position::byte);
    let Ok(file) = File::open(path) else { return 0 };
    let before = (0..).zip(BufReader::new(file).bytes().map_while(Result::ok));
    let before = before.take_while(|(offset, byte)| *offset < start || matches!(byte, b'\r' | b'\n'));
    1 + before.filter(|(_, byte)| *byte == b'\n').count() as u64
}

fn unreadable(problem: &csv::Error) -> Breach {
    Breach::Unreadable(problem.to_string())
}
