//! A whole data set, encoded for a run.

use std::collections::BTreeMap;
use std::io;

use sheaf_common::run::{Feature, Task, TaskInput};

use super::contract::{Breach, CellProblem, ContractError};
use super::encode::{Encoder, TargetReader};
use super::images;
use super::stored::{Gathered, Place, Stored, StoredTexts};
use super::table::{Column, Row, Table};
use super::{Dataset, Inputs, Targets};
use crate::config::DatasetConfig;

/// Reads the data set `name` as `task` asks for it.
///
/// Images are scaled to the size that the task says.
///
/// # Errors
/// The first thing in which the file does not meet the contract.
pub fn load(config: &DatasetConfig, name: &str, task: &Task) -> Result<Dataset, ContractError> {
    // What belongs together matters only where examples are divided; a test set may lack the column.
    read(config, name, task, None).map(|(dataset, _)| dataset)
}

/// [`load`], and for each example which group it belongs to, when the run has groups.
pub fn load_grouped(
    config: &DatasetConfig,
    name: &str,
    task: &Task,
) -> Result<(Dataset, Option<Vec<u32>>), ContractError> {
    let (dataset, groups) = read(config, name, task, task.group.as_deref())?;
    Ok((dataset, task.group.is_some().then_some(groups)))
}

fn read(
    config: &DatasetConfig,
    name: &str,
    task: &Task,
    group: Option<&str>,
) -> Result<(Dataset, Vec<u32>), ContractError> {
    let mut groups = Groups::default();
    if task.input == TaskInput::Nothing {
        let inputs = Inputs::Table { width: 0, values: Vec::new() };
        return Ok((Dataset { inputs, targets: Targets::Inputs(0) }, Vec::new()));
    }
    let target = task.target.column();
    let table = Table::open(config, name)?;
    let table =
        if let TaskInput::Image { column, .. } = &task.input { table.named(column, target) } else { table };
    let asked: Vec<&str> = target.into_iter().chain(task.input_columns()).chain(group).collect();
    let mut columns = table.columns(&asked)?.into_iter();
    let target = target.and_then(|_| columns.next());
    let group = group.and_then(|_| columns.next_back());
    let columns: Vec<Column<'_>> = columns.collect();
    let mut targets = TargetReader::new(&task.target);
    let mut each = |row: &Row<'_>| {
        targets.read(row, target)?;
        group.map_or(Ok(()), |column| groups.push(row, column))
    };
    let no_room = |reason: io::Error| ContractError::new(name, &config.path, reason.into());
    let inputs = match &task.input {
        TaskInput::Table { features } => read_table(table, &columns, &mut each, (config, features), no_room)?,
        TaskInput::Text { .. } | TaskInput::Nothing => {
            // What a language model is to foretell is in memory in any case, and is as much as the texts.
            read_text(table, &columns, &mut each, config, no_room)?
        }
        TaskInput::Image { size, .. } => {
            let mut images = Vec::new();
            read_cells(table, &columns, &mut each, |image| {
                images.push(image.to_owned());
                Ok(())
            })?;
            let size = size.filter(|size| (1..=images::SIDE_MAX).contains(size));
            let size = size.ok_or_else(|| ContractError::new(name, &config.path, Breach::NoSize))?;
            images::read(config, name, &images, size)?
        }
    };
    Ok((Dataset { inputs, targets: targets.found }, groups.of_examples))
}

type Each<'a> = &'a mut dyn FnMut(&Row<'_>) -> Result<(), ContractError>;

/// Hands every cell of these columns to `take`.
fn read_cells(
    table: Table<'_>,
    columns: &[Column<'_>],
    each: Each<'_>,
    mut take: impl FnMut(&str) -> Result<(), ContractError>,
) -> Result<(), ContractError> {
    table.for_each_row(|row| {
        each(row)?;
        columns.iter().try_for_each(|column| take(row.cell(*column)?))
    })
}

fn read_text(
    table: Table<'_>,
    columns: &[Column<'_>],
    each: Each<'_>,
    config: &DatasetConfig,
    no_room: impl Fn(io::Error) -> ContractError,
) -> Result<Inputs, ContractError> {
    let (mut texts, mut ends, mut end) = (Gathered::new(&config.spill, config.memory_bytes()), Vec::new(), 0);
    read_cells(table, columns, each, |text| {
        end += text.len() as u64;
        ends.push(end);
        texts.push(text.to_owned()).map_err(&no_room)
    })?;
    Ok(match texts.finish().map_err(no_room)? {
        Place::Memory(texts) => Inputs::Text(texts),
        Place::File(file) => Inputs::StoredText(StoredTexts::of(file, &config.spill, ends)),
    })
}

fn read_table(
    table: Table<'_>,
    columns: &[Column<'_>],
    each: Each<'_>,
    (config, features): (&DatasetConfig, &[Feature]),
    no_room: impl Fn(io::Error) -> ContractError,
) -> Result<Inputs, ContractError> {
    let encoders: Vec<Encoder<'_>> = features.iter().map(Encoder::new).collect();
    let mut values = Gathered::new(&config.spill, config.memory_bytes());
    let (mut encoded, mut examples) = (Vec::new(), 0);
    table.for_each_row(|row| {
        each(row)?;
        for (column, encoder) in columns.iter().zip(&encoders) {
            let cell = row.cell(*column)?;
            encoder.encode(cell, &mut encoded).map_err(|problem| row.error(*column, cell, problem))?;
        }
        examples += 1;
        encoded.drain(..).try_for_each(|value| values.push(value)).map_err(&no_room)
    })?;
    let width = encoders.iter().map(Encoder::width).sum();
    Ok(match values.finish().map_err(no_room)? {
        Place::Memory(values) => Inputs::Table { width, values },
        Place::File(file) => Inputs::StoredTable { width, rows: Stored::of(file, examples) },
    })
}

/// Groups by the order in which they are first seen; their names stay in the file.
#[derive(Default)]
struct Groups {
    numbers: BTreeMap<String, u32>,
    of_examples: Vec<u32>,
}

impl Groups {
    fn push(&mut self, row: &Row<'_>, column: Column<'_>) -> Result<(), ContractError> {
        let cell = row.cell(column)?;
        if cell.trim().is_empty() {
            return Err(row.error(column, cell, CellProblem::NoGroup));
        }
        let next = self.numbers.len() as u32;
        self.of_examples.push(*self.numbers.entry(cell.trim().to_owned()).or_insert(next));
        Ok(())
    }
}
