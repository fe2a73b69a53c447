//! A whole data set, encoded for a run.

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
    match &task.input {
        TaskInput::Text { column, .. } => load_text(Table::open(config, name)?, task, column),
        TaskInput::Table { features } => load_table(Table::open(config, name)?, task, features),
        TaskInput::Nothing => {
            Ok(Dataset { inputs: Inputs::Table { width: 0, values: Vec::new() }, labels: Vec::new() })
        }
    }
}

fn load_text(table: Table<'_>, task: &Task, column: &str) -> Result<Dataset, ContractError> {
    let columns = table.columns(&task.label, &[column])?;
    let known = Categories::new(&task.labels);
    let (mut texts, mut labels) = (Vec::new(), Vec::new());
    table.for_each_row(|row| {
        labels.push(label(row, columns.label, &known)?);
        for column in &columns.inputs {
            texts.push(row.cell(*column)?.to_owned());
        }
        Ok(())
    })?;
    Ok(Dataset { inputs: Inputs::Text(texts), labels })
}

fn load_table(table: Table<'_>, task: &Task, features: &[Feature]) -> Result<Dataset, ContractError> {
    let names: Vec<&str> = features.iter().map(|feature| feature.column.as_str()).collect();
    let columns = table.columns(&task.label, &names)?;
    let known = Categories::new(&task.labels);
    let encoders: Vec<Encoder<'_>> = features.iter().map(Encoder::new).collect();
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    table.for_each_row(|row| {
        labels.push(label(row, columns.label, &known)?);
        for (column, encoder) in columns.inputs.iter().zip(&encoders) {
            let cell = row.cell(*column)?;
            encoder.encode(cell, &mut values).map_err(|problem| row.error(*column, cell, problem))?;
        }
        Ok(())
    })?;
    let width = encoders.iter().map(Encoder::width).sum();
    Ok(Dataset { inputs: Inputs::Table { width, values }, labels })
}

fn label(row: &Row<'_>, column: Column<'_>, known: &Categories<'_>) -> Result<u32, ContractError> {
    let cell = row.cell(column)?;
    let problem = if cell.trim().is_empty() { CellProblem::NoLabel } else { CellProblem::UnknownLabel };
    known
        .find(cell)
        .and_then(|index| u32::try_from(index).ok())
        .ok_or_else(|| row.error(column, cell, problem))
}
