//! A whole data set, encoded for a run.

use std::collections::BTreeMap;

use sheaf_common::run::{Feature, Task, TaskInput};

use super::contract::{CellProblem, ContractError};
use super::encode::{Categories, Encoder};
use super::table::{Column, Row, Table};
use super::{Dataset, Inputs};
use crate::config::DatasetConfig;

/// Reads the data set `name` as `task` asks for it.
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
    let inputs: Vec<&str> = match &task.input {
        TaskInput::Text { column, .. } => vec![column],
        TaskInput::Table { features } => features.iter().map(|feature| feature.column.as_str()).collect(),
        TaskInput::Nothing => {
            let inputs = Inputs::Table { width: 0, values: Vec::new() };
            return Ok((Dataset { inputs, labels: Vec::new() }, Vec::new()));
        }
    };
    let table = Table::open(config, name)?;
    let asked: Vec<&str> = inputs.iter().copied().chain(group).collect();
    let mut columns = table.columns(&task.label, &asked)?;
    let group = if group.is_some() { columns.inputs.pop() } else { None };
    let (known, mut labels) = (Categories::new(&task.labels), Vec::new());
    let mut each = |row: &Row<'_>| {
        labels.push(label(row, columns.label, &known)?);
        group.map_or(Ok(()), |column| groups.push(row, column))
    };
    let inputs = match &task.input {
        TaskInput::Text { .. } => read_text(table, &columns.inputs, &mut each)?,
        TaskInput::Table { features } => read_table(table, &columns.inputs, features, &mut each)?,
        TaskInput::Nothing => Inputs::Text(Vec::new()),
    };
    Ok((Dataset { inputs, labels }, groups.of_examples))
}

type Each<'a> = &'a mut dyn FnMut(&Row<'_>) -> Result<(), ContractError>;

fn read_text(table: Table<'_>, columns: &[Column<'_>], each: Each<'_>) -> Result<Inputs, ContractError> {
    let mut texts = Vec::new();
    table.for_each_row(|row| {
        each(row)?;
        for column in columns {
            texts.push(row.cell(*column)?.to_owned());
        }
        Ok(())
    })?;
    Ok(Inputs::Text(texts))
}

fn read_table(
    table: Table<'_>,
    columns: &[Column<'_>],
    features: &[Feature],
    each: Each<'_>,
) -> Result<Inputs, ContractError> {
    let encoders: Vec<Encoder<'_>> = features.iter().map(Encoder::new).collect();
    let mut values = Vec::new();
    table.for_each_row(|row| {
        each(row)?;
        for (column, encoder) in columns.iter().zip(&encoders) {
            let cell = row.cell(*column)?;
            encoder.encode(cell, &mut values).map_err(|problem| row.error(*column, cell, problem))?;
        }
        Ok(())
    })?;
    let width = encoders.iter().map(Encoder::width).sum();
    Ok(Inputs::Table { width, values })
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

fn label(row: &Row<'_>, column: Column<'_>, known: &Categories<'_>) -> Result<u32, ContractError> {
    let cell = row.cell(column)?;
    let problem = if cell.trim().is_empty() { CellProblem::NoLabel } else { CellProblem::UnknownLabel };
    known
        .find(cell)
        .and_then(|index| u32::try_from(index).ok())
        .ok_or_else(|| row.error(column, cell, problem))
}
