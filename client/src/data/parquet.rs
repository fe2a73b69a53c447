//! Apache Parquet: rows out of columns. A null is an empty cell, and words, numbers and truth values are the text that they
//! would be in a CSV file; whatever else a column holds is refused, if a run asks for it.
//!
//! The reader is not written for files that mean harm: it may panic where one is broken, which is caught here, and the
//! sizes that a file states are checked before anything is read of it.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use csv::ByteRecord;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::Field;
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;

use super::contract::Breach;

/// Most bytes of a column in one group of rows: the reader holds some of them at a time.
const CHUNK_MAX: i64 = 1 << 30;

/// A file of Parquet open for reading.
pub(super) struct Rows {
    /// Of all columns.
    pub(super) names: Vec<String>,
    /// Whether the column is one that can be read.
    readable: Vec<bool>,
    rows: RowIter<'static>,
    /// Rows so far.
    pub(super) read: u64,
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Self, Breach> {
        let file = File::open(path).map_err(|problem| Breach::Unreadable(problem.to_string()))?;
        if file.metadata().is_ok_and(|file| file.len() == 0) {
            return Err(Breach::Empty);
        }
        guarded(|| Self::of(SerializedFileReader::new(file)?))
    }

    fn of(reader: SerializedFileReader<File>) -> Result<Self, ParquetError> {
        check(reader.metadata())?;
        let schema = reader.metadata().file_metadata().schema().clone();
        let columns = schema.get_fields();
        let names = columns.iter().map(|column| column.name().to_owned()).collect();
        let readable: Vec<bool> = columns.iter().map(|column| is_readable(column)).collect();
        let kept = columns.iter().zip(&readable).filter(|(_, readable)| **readable);
        let kept = kept.map(|(column, _)| Arc::clone(column)).collect();
        let projection = Type::group_type_builder(schema.name()).with_fields(kept).build()?;
        let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection))?;
        Ok(Self { names, readable, rows, read: 0 })
    }

    /// Whether a cell of this column can be read.
    pub(super) fn reads(&self, column: usize) -> bool {
        self.readable.get(column).is_some_and(|readable| *readable)
    }

    /// The next row's cells, in the order of the names.
    pub(super) fn next(&mut self, record: &mut ByteRecord) -> Result<bool, Breach> {
        let rows = &mut self.rows;
        let Some(row) = guarded(|| rows.next().transpose())? else { return Ok(false) };
        self.read += 1;
        record.clear();
        let mut cells = row.get_column_iter();
        for readable in &self.readable {
            // What cannot be read is not in the rows.
            match if *readable { cells.next() } else { None } {
                Some((_, Field::Str(text))) => record.push_field(text.as_bytes()),
                Some((_, Field::Bytes(bytes))) => record.push_field(bytes.data()),
                Some((_, other)) => record.push_field(text(other).as_bytes()),
                None => record.push_field(b""),
            }
        }
        Ok(true)
    }
}

/// Nothing that a file states about itself may make the reader take more than there is.
fn check(metadata: &ParquetMetaData) -> Result<(), ParquetError> {
    let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
    match chunks.map(|chunk| chunk.uncompressed_size()).find(|bytes| !(0..=CHUNK_MAX).contains(bytes)) {
        Some(bytes) => Err(ParquetError::General(format!(
            "a column takes {bytes} bytes in one group of rows, and may take {CHUNK_MAX}: write it with smaller groups"
        ))),
        None => Ok(()),
    }
}

/// What the reader makes of a file, or its words for what is wrong.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, Breach> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|problem| Breach::Unreadable(problem.to_string())),
        Err(_) => Err(Breach::Unreadable("it is broken".to_owned())),
    }
}

/// Words, integers, floating point and truth values, one per row.
fn is_readable(column: &Type) -> bool {
    let basic = column.get_basic_info();
    if !column.is_primitive() || basic.has_repetition() && basic.repetition() == Repetition::REPEATED {
        return false;
    }
    match column.get_physical_type() {
        Physical::BOOLEAN | Physical::FLOAT | Physical::DOUBLE => true,
        Physical::INT32 | Physical::INT64 => {
            matches!(
                basic.converted_type(),
                ConvertedType::NONE
                    | ConvertedType::INT_8
                    | ConvertedType::INT_16
                    | ConvertedType::INT_32
                    | ConvertedType::INT_64
                    | ConvertedType::UINT_8
                    | ConvertedType::UINT_16
                    | ConvertedType::UINT_32
                    | ConvertedType::UINT_64
            ) && basic.logical_type_ref().is_none_or(|logical| matches!(logical, LogicalType::Integer(_)))
        }
        Physical::BYTE_ARRAY => matches!(
            basic.converted_type(),
            ConvertedType::NONE | ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON
        ),
        Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => false,
    }
}

/// As it would be in a CSV file; floating point in as few digits as tell it from all others.
fn text(cell: &Field) -> String {
    if let Field::Float(value) = cell {
        value.to_string()
    } else if let Field::Double(value) = cell {
        value.to_string()
    } else if matches!(cell, Field::Null) {
        String::new()
    } else {
        cell.to_string()
    }
}
