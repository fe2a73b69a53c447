//! A data set in the form in which the network takes it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;

use sheaf_common::run::{RunSpec, Target, Task, TaskInput};
use tch::{Device, Kind, Tensor};

use super::augment::Augment;
use super::ragged::Ragged;
use super::sequences::Form;
use super::tokenize::{self, Tokens};
use crate::data::{Dataset, Foretold, Inputs, Stored, StoredTexts, Targets};
use crate::trainer::TrainError;

/// A data set ready to be trained or evaluated on by the trainer that made it. From its first use on it holds the
/// output of the model's frozen part, so that evaluating many parameter vectors on it costs little.
pub struct Prepared {
    /// What goes into the stage `stage`.
    pub(super) features: Ragged,
    /// Stages that the examples have been through.
    pub(super) stage: usize,
    /// What is learned of each example.
    pub(super) targets: Targets,
    /// How examples are changed each time they are trained on. They then begin at the first stage every time.
    pub(super) augment: Option<Augment>,
}

impl Prepared {
    /// Tokenises texts, or takes rows as they are.
    ///
    /// # Errors
    /// When the data are not what the run's contract promises.
    pub(super) fn new(spec: &RunSpec, tokens: Option<&Tokens>, data: &Dataset) -> Result<Self, TrainError> {
        check_targets(&data.targets, &spec.task)?;
        if let (Some(tokens), TaskInput::Text { max_length, .. }, Target::NextToken { template, .. }) =
            (tokens, &spec.task.input, &spec.task.target)
        {
            let form = Form { tokens, template, max_length: *max_length };
            let (features, foretold) = match &data.inputs {
                Inputs::Text(texts) => {
                    let sequences = form.sequences(0, texts, &data.targets)?;
                    (of_tokens(&sequences.inputs)?, Foretold::new(&sequences.foretold))
                }
                Inputs::StoredText(texts) => sequences_of_stored(&form, texts, &data.targets)?,
                Inputs::Table { .. }
                | Inputs::StoredTable { .. }
                | Inputs::Images { .. }
                | Inputs::StoredImages { .. } => return Err(wrong_kind(&spec.task.input)),
            };
            return Ok(Self { features, stage: 0, targets: Targets::Tokens(foretold), augment: None });
        }
        let features = match (&data.inputs, tokens) {
            (Inputs::Text(texts), Some(tokens)) => of_tokens(&tokens.encode(texts, true)?)?,
            (Inputs::StoredText(texts), Some(tokens)) => of_stored(tokens, texts)?,
            (Inputs::Table { width, values }, None) => from_table(*width, values, spec.task.num_inputs())?,
            (Inputs::StoredTable { width, rows }, None) => {
                check_width(*width, spec.task.num_inputs())?;
                from_file(&[*width as i64], Kind::Float, rows)?
            }
            (Inputs::Images { size, values }, None) => from_images(*size, values, data.targets.len())?,
            (Inputs::StoredImages { size, images }, None) => {
                let side = *size as i64;
                from_file(&[3, side, side], Kind::Uint8, images)?
            }
            (Inputs::Text(_) | Inputs::StoredText(_), None)
            | (
                Inputs::Table { .. }
                | Inputs::StoredTable { .. }
                | Inputs::Images { .. }
                | Inputs::StoredImages { .. },
                Some(_),
            ) => {
                return Err(wrong_kind(&spec.task.input));
            }
        };
        if features.len() != data.targets.len() {
            return Err(TrainError::Failed(format!(
                "the data set has {} examples and {} labels",
                features.len(),
                data.targets.len()
            )));
        }
        Ok(Self { features, stage: 0, targets: data.targets.clone(), augment: None })
    }

    /// Rows of the padded batch of these examples, one example's after another's, by which a language model foretells:
    /// the last ones of each example. `None` when it is no language model that learns.
    pub(super) fn foretelling(&self, examples: &[usize]) -> Option<Vec<i64>> {
        let Targets::Tokens(tokens) = &self.targets else { return None };
        let longest = examples.iter().map(|example| self.features.length(*example)).max().unwrap_or(0);
        let rows = examples.iter().enumerate().flat_map(|(place, example)| {
            let length = self.features.length(*example);
            (length - tokens.count(*example)..length).map(move |row| (place * longest + row) as i64)
        });
        Some(rows.collect())
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.targets.len()
    }

    /// Whether there is no example.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

/// Whether the targets are those that the run's task asks for.
fn check_targets(targets: &Targets, task: &Task) -> Result<(), TrainError> {
    let num_labels = task.labels().len();
    let fits = match (targets, &task.target) {
        (Targets::Label(labels), Target::Label { .. }) => {
            if let Some(label) = labels.iter().find(|label| **label as usize >= num_labels) {
                let sentence = format!("there is no label {label} among the run's {num_labels}");
                return Err(TrainError::Failed(sentence));
            }
            true
        }
        (Targets::Labels { width, .. }, Target::Labels { .. }) => *width == num_labels,
        (Targets::Number(_), Target::Number(_)) => true,
        (Targets::Answer(_), Target::NextToken { answer, .. }) => answer.is_some(),
        (Targets::Inputs(_), Target::NextToken { answer, .. }) => answer.is_none(),
        _ => false,
    };
    if fits { Ok(()) } else { Err(TrainError::Failed("the data set has other targets than the run".into())) }
}

fn of_tokens(ids: &[Vec<i64>]) -> Result<Ragged, TrainError> {
    Ok(Ragged::new(Tensor::f_from_slice(&ids.concat())?, ids.iter().map(Vec::len)))
}

fn from_table(width: usize, values: &[f32], inputs: u64) -> Result<Ragged, TrainError> {
    check_width(width, inputs)?;
    if !values.len().is_multiple_of(width) {
        return Err(TrainError::Failed(format!(
            "the data set's {} values are no rows of {width}",
            values.len()
        )));
    }
    let examples = values.len() / width;
    let rows =
        Tensor::f_from_slice(values)?.f_view([examples as i64, width as i64])?.f_to_kind(Kind::Float)?;
    Ok(Ragged::new(rows, std::iter::repeat_n(1, examples)))
}

/// Bytes as they are, `[examples, 3, size, size]`: the model's first stage scales them.
fn from_images(size: usize, values: &[u8], examples: usize) -> Result<Ragged, TrainError> {
    if values.len() != 3 * size * size * examples {
        return Err(TrainError::Failed(format!(
            "the data set has {} bytes of images, which are not {examples} of {size} x {size}",
            values.len()
        )));
    }
    let shape = [examples as i64, 3, size as i64, size as i64];
    Ok(Ragged::new(Tensor::f_from_slice(values)?.f_view(shape)?, std::iter::repeat_n(1, examples)))
}

/// Examples of this shape, mapped into memory from their file.
fn from_file(shape: &[i64], kind: Kind, examples: &Stored) -> Result<Ragged, TrainError> {
    let shape = [&[examples.all as i64], shape].concat();
    let rows = mapped(examples.file(), shape.iter().product(), kind)?.f_view(shape.as_slice())?;
    Ok(Ragged::scattered(rows, examples.places.clone()))
}

/// The tokens of texts in a file, in another file.
fn of_stored(tokens: &Tokens, texts: &StoredTexts) -> Result<Ragged, TrainError> {
    let mut ids = TokenFile::beside(texts)?;
    for start in (0..texts.len()).step_by(tokenize::CHUNK) {
        let end = texts.len().min(start + tokenize::CHUNK);
        ids.write(&tokens.encode_from(start, &texts.read(start..end)?, true)?)?;
    }
    ids.map()
}

/// The sequences that a language model learns of texts in a file, in two other files. Answers are in memory, as labels are.
fn sequences_of_stored(
    form: &Form<'_>,
    texts: &StoredTexts,
    targets: &Targets,
) -> Result<(Ragged, Foretold), TrainError> {
    let (mut inputs, mut foretold) = (TokenFile::beside(texts)?, TokenFile::beside(texts)?);
    for start in (0..texts.len()).step_by(tokenize::CHUNK) {
        let examples = start..texts.len().min(start + tokenize::CHUNK);
        let targets = targets.select(&examples.clone().collect::<Vec<_>>());
        let sequences = form.sequences(start, &texts.read(examples)?, &targets)?;
        inputs.write(&sequences.inputs)?;
        foretold.write(&sequences.foretold)?;
    }
    let (file, lengths) = foretold.finish()?;
    Ok((inputs.map()?, Foretold::in_file(file, lengths)))
}

/// Tokens of examples, which go to a file as they are made.
struct TokenFile {
    file: BufWriter<File>,
    lengths: Vec<usize>,
}

impl TokenFile {
    fn beside(texts: &StoredTexts) -> Result<Self, TrainError> {
        Ok(Self { file: BufWriter::new(texts.beside()?), lengths: Vec::with_capacity(texts.len()) })
    }

    fn write(&mut self, examples: &[Vec<i64>]) -> Result<(), TrainError> {
        for ids in examples {
            self.lengths.push(ids.len());
            ids.iter().try_for_each(|id| self.file.write_all(&id.to_ne_bytes()))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(File, Vec<usize>), TrainError> {
        Ok((self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?, self.lengths))
    }

    fn map(self) -> Result<Ragged, TrainError> {
        let (file, lengths) = self.finish()?;
        match lengths.iter().sum::<usize>() {
            // Nothing cannot be mapped.
            0 => of_tokens(&[]),
            all => Ok(Ragged::new(mapped(&file, all as i64, Kind::Int64)?, lengths)),
        }
    }
}

/// So many values of a file: pages come as they are read, and go when memory is short.
fn mapped(file: &File, values: i64, kind: Kind) -> Result<Tensor, TrainError> {
    // The file has no name but this one. The mapping outlives it.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(Tensor::f_from_file(&path, true, values, (kind, Device::Cpu))?)
}

fn check_width(width: usize, inputs: u64) -> Result<(), TrainError> {
    if width as u64 == inputs && width > 0 {
        return Ok(());
    }
    Err(TrainError::Failed(format!("the data set has rows of {width}, and the model takes rows of {inputs}")))
}

fn wrong_kind(input: &TaskInput) -> TrainError {
    let wanted = match input {
        TaskInput::Text { .. } => "texts",
        TaskInput::Table { .. } => "rows of a table",
        TaskInput::Image { .. } => "images",
        TaskInput::Nothing => "nothing",
    };
    TrainError::Failed(format!("the run learns from {wanted}, and the data set is something else"))
}
