//! A table with a type for each column, as CSV for people and their spreadsheets and as Parquet for programs: the same cells in both.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use crate::output::{OutputError, write, write_csv};

/// The cells of a column; those that are not there are empty in CSV, and null in Parquet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cells {
    /// Rounds, bytes, seeds.
    Counts(Vec<u64>),
    /// Metrics and seconds.
    Numbers(Vec<Option<f64>>),
    /// Names, and reasons.
    Words(Vec<Option<String>>),
}

/// Columns of the same length, with their names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Columns(Vec<(String, Cells)>);

impl Columns {
    /// The table with another column on its right.
    #[must_use]
    pub(crate) fn with(mut self, name: impl Into<String>, cells: Cells) -> Self {
        self.0.push((name.into(), cells));
        self
    }

    /// Writes `path` and, beside it, the same as Parquet: each whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> Result<(), OutputError> {
        write_csv(path, &self.rows())?;
        let path = path.with_extension("parquet");
        let failed = |error| OutputError::Write { path: path.clone(), source: io::Error::other(error) };
        write(&path, &self.parquet().map_err(failed)?)
    }

    fn len(&self) -> usize {
        self.0.first().map_or(0, |(_, cells)| cells.len())
    }

    /// The names, and then the cells row by row.
    fn rows(&self) -> Vec<Vec<String>> {
        let names = self.0.iter().map(|(name, _)| name.clone()).collect();
        let row = |row| self.0.iter().map(|(_, cells)| cells.text(row)).collect();
        std::iter::once(names).chain((0..self.len()).map(row)).collect()
    }

    fn parquet(&self) -> Result<Vec<u8>, ParquetError> {
        let fields = self.0.iter().map(|(name, cells)| cells.field(name)).collect::<Result<_, _>>()?;
        let schema = Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?);
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default()))?;
        if self.len() > 0 {
            let mut group = file.next_row_group()?;
            for (_, cells) in &self.0 {
                let mut column = group
                    .next_column()?
                    .ok_or_else(|| ParquetError::General("a column has no place in its own schema".into()))?;
                match cells {
                    Cells::Counts(counts) => {
                        let counts: Vec<i64> = counts.iter().map(|count| count.cast_signed()).collect();
                        column.typed::<Int64Type>().write_batch(&counts, None, None)?;
                    }
                    Cells::Numbers(numbers) => {
                        let (there, values) = split(numbers, |number| *number);
                        column.typed::<DoubleType>().write_batch(&values, Some(&there), None)?;
                    }
                    Cells::Words(words) => {
                        let (there, values) = split(words, |word| ByteArray::from(word.as_str()));
                        column.typed::<ByteArrayType>().write_batch(&values, Some(&there), None)?;
                    }
                }
                column.close()?;
            }
            group.close()?;
        }
        file.into_inner()
    }
}

impl Cells {
    fn len(&self) -> usize {
        match self {
            Self::Counts(counts) => counts.len(),
            Self::Numbers(numbers) => numbers.len(),
            Self::Words(words) => words.len(),
        }
    }

    fn text(&self, row: usize) -> String {
        let text = match self {
            Self::Counts(counts) => counts.get(row).map(u64::to_string),
            Self::Numbers(numbers) => {
                numbers.get(row).and_then(|number| number.map(|number| number.to_string()))
            }
            Self::Words(words) => words.get(row).cloned().flatten(),
        };
        text.unwrap_or_default()
    }

    fn field(&self, name: &str) -> Result<Arc<Type>, ParquetError> {
        let of = |physical| Type::primitive_type_builder(name, physical);
        let field = match self {
            // Any 64 bits: a seed may have them all.
            Self::Counts(_) => of(Physical::INT64)
                .with_repetition(Repetition::REQUIRED)
                .with_logical_type(Some(LogicalType::integer(64, false)))
                .with_converted_type(ConvertedType::UINT_64),
            Self::Numbers(_) => of(Physical::DOUBLE).with_repetition(Repetition::OPTIONAL),
            Self::Words(_) => of(Physical::BYTE_ARRAY)
                .with_repetition(Repetition::OPTIONAL)
                .with_logical_type(Some(LogicalType::String))
                .with_converted_type(ConvertedType::UTF8),
        };
        field.build().map(Arc::new)
    }
}

/// Which cells are there, as Parquet says it (1 or 0), and the values of those.
fn split<T, V>(cells: &[Option<T>], value: impl Fn(&T) -> V) -> (Vec<i16>, Vec<V>) {
    let there = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    (there, cells.iter().flatten().map(value).collect())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    /// A cell of Parquet as it is written in CSV.
    fn text(field: &Field) -> String {
        if let Field::Null = field {
            String::new()
        } else if let Field::Str(text) = field {
            text.clone()
        } else if let Field::Double(number) = field {
            number.to_string()
        } else {
            field.to_string()
        }
    }

    #[test]
    fn both_files_have_the_same_cells_and_parquet_has_their_types() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        let table = Columns::default()
            .with("seed", Cells::Counts(vec![0, 7, u64::MAX]))
            .with("accuracy", Cells::Numbers(vec![Some(0.1 + 0.2), None, Some(-0.0)]))
            .with(
                "why",
                Cells::Words(vec![None, Some("it was late, \"they\" said".into()), Some("ü".into())]),
            );
        table.write(&path).unwrap();
        let mut csv = csv::Reader::from_path(&path).unwrap();
        let file = SerializedFileReader::new(File::open(path.with_extension("parquet")).unwrap()).unwrap();
        let schema = file.metadata().file_metadata().schema();
        let names: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        assert_eq!(names, csv.headers().unwrap().iter().collect::<Vec<_>>());
        let rows: Vec<Vec<Field>> = file
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap().into_columns().into_iter().map(|(_, field)| field).collect())
            .collect();
        let texts: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(text).collect()).collect();
        let written: Vec<Vec<String>> =
            csv.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        assert_eq!(texts, written);
        assert_eq!(rows[2], [Field::ULong(u64::MAX), Field::Double(-0.0), Field::Str("ü".into())]);
        assert_eq!(rows[0][1..], [Field::Double(0.1 + 0.2), Field::Null]);
    }

    #[test]
    fn a_table_without_rows_has_its_columns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.csv");
        let cells = [Cells::Counts(Vec::new()), Cells::Numbers(Vec::new())];
        let [counts, numbers] = cells;
        Columns::default().with("round", counts).with("loss", numbers).write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "round,loss\n");
        let file = SerializedFileReader::new(File::open(path.with_extension("parquet")).unwrap()).unwrap();
        let metadata = file.metadata().file_metadata();
        assert_eq!((metadata.num_rows(), metadata.schema().get_fields().len()), (0, 2));
    }
}
