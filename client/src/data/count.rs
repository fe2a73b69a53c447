//! A whole data set, counted for a survey: read as for training, and nothing of it kept.

use sheaf_common::metrics::{Asked, Survey, Value};
use sheaf_common::run::{Task, TaskInput};

use super::contract::ContractError;
use super::encode::{Encoder, TargetReader};
use super::table::Table;
use crate::config::DatasetConfig;

/// Counts the data set `name` as `task` would read it; `asked` are the survey's columns: its features, then what is
/// learned.
///
/// # Errors
/// The first thing in which the file does not meet the contract.
pub fn count(
    config: &DatasetConfig,
    name: &str,
    task: &Task,
    asked: &[Asked],
) -> Result<Survey, ContractError> {
    let table = Table::open(config, name)?;
    let features = match &task.input {
        TaskInput::Table { features } => features.as_slice(),
        TaskInput::Text { .. } | TaskInput::Image { .. } | TaskInput::Nothing => &[],
    };
    let encoders: Vec<Encoder<'_>> = features.iter().map(Encoder::new).collect();
    let target = TargetReader::new(&task.target);
    let inputs = task.input_columns();
    // Whatever training would read must be there, also where nothing of it is counted.
    let columns = table.columns(&inputs.iter().copied().chain(task.target.column()).collect::<Vec<_>>())?;
    let (inputs, targets) = columns.split_at(inputs.len().min(columns.len()));
    let mut survey = Survey::new(asked);
    table.for_each_row(|row| {
        let mut values: Vec<Value> = Vec::with_capacity(asked.len());
        for (column, encoder) in inputs.iter().zip(&encoders) {
            let cell = row.cell(*column)?;
            values.push(encoder.read(cell).map_err(|problem| row.error(*column, cell, problem))?);
        }
        for column in targets {
            let cell = row.cell(*column)?;
            values.push(target.value(cell).map_err(|problem| row.error(*column, cell, problem))?);
        }
        survey.observe(values);
        Ok(())
    })?;
    Ok(survey)
}
