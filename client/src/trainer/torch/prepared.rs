//! A data set in the form in which the network takes it.

use sheaf_common::run::{RunSpec, TaskInput};
use tch::{Kind, Tensor};

use super::ragged::Ragged;
use super::tokenize::Tokens;
use crate::data::{Dataset, Inputs};
use crate::trainer::TrainError;

/// A data set ready to be trained or evaluated on by the trainer that made it. From its first use on it holds the
/// output of the model's frozen part, so that evaluating many parameter vectors on it costs little.
pub struct Prepared {
    /// What goes into the stage `stage`.
    pub(super) features: Ragged,
    /// Stages that the examples have been through.
    pub(super) stage: usize,
    /// Index of each example's label.
    pub(super) labels: Vec<i64>,
}

impl Prepared {
    /// Tokenises texts, or takes rows as they are.
    ///
    /// # Errors
    /// When the data are not what the run's contract promises.
    pub(super) fn new(spec: &RunSpec, tokens: Option<&Tokens>, data: &Dataset) -> Result<Self, TrainError> {
        if let Some(label) = data.labels.iter().find(|label| **label as usize >= spec.num_labels()) {
            return Err(TrainError::Failed(format!(
                "there is no label {label} among the run's {}",
                spec.num_labels()
            )));
        }
        let features = match (&data.inputs, tokens) {
            (Inputs::Text(texts), Some(tokens)) => from_texts(texts, tokens)?,
            (Inputs::Table { width, values }, None) => from_table(*width, values, spec.num_inputs())?,
            (Inputs::Text(_), None) | (Inputs::Table { .. }, Some(_)) => {
                return Err(wrong_kind(&spec.task.input));
            }
        };
        if features.len() != data.labels.len() {
            return Err(TrainError::Failed(format!(
                "the data set has {} examples and {} labels",
                features.len(),
                data.labels.len()
            )));
        }
        Ok(Self { features, stage: 0, labels: data.labels.iter().map(|label| i64::from(*label)).collect() })
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

fn from_texts(texts: &[String], tokens: &Tokens) -> Result<Ragged, TrainError> {
    let ids = tokens.encode(texts)?;
    Ok(Ragged::new(Tensor::f_from_slice(&ids.concat())?, ids.iter().map(Vec::len)))
}

fn from_table(width: usize, values: &[f32], inputs: u64) -> Result<Ragged, TrainError> {
    if width as u64 != inputs || width == 0 || !values.len().is_multiple_of(width) {
        return Err(TrainError::Failed(format!(
            "the data set has {} values in rows of {width}, and the model takes rows of {inputs}",
            values.len()
        )));
    }
    let examples = values.len() / width;
    let rows =
        Tensor::f_from_slice(values)?.f_view([examples as i64, width as i64])?.f_to_kind(Kind::Float)?;
    Ok(Ragged::new(rows, std::iter::repeat_n(1, examples)))
}

fn wrong_kind(input: &TaskInput) -> TrainError {
    let wanted = match input {
        TaskInput::Text { .. } => "texts",
        TaskInput::Table { .. } => "rows of a table",
        TaskInput::Nothing => "nothing",
    };
    TrainError::Failed(format!("the run learns from {wanted}, and the data set is something else"))
}
