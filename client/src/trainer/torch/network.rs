//! A model as a row of stages, the lower of which may be frozen.
//!
//! Whatever lies below the first stage with a trained parameter gives the same output for an example in every
//! round. [`Network::freeze`] computes it once, without dropout, and keeps it (f32, unpadded, in main memory);
//! training and evaluation begin there. Examples that are changed each time they are trained on go through the frozen
//! stages each time, too.

use std::sync::{Mutex, PoisonError};

use sheaf_common::status::{Phase, Progress};
use tch::{Device, Kind, TchError, Tensor};

use super::precision::Products;
use super::prepared::Prepared;
use super::ragged::{Batch, Ragged};
use super::source::Source;
use super::step;
use crate::trainer::{TrainError, Watch};

/// Rows with padding that go through the network at a time when no gradient is needed.
pub(super) const ROWS_PER_BATCH: usize = 2048;

/// One stage of a model.
pub(super) trait Stage: Send {
    /// Its parameters.
    fn parameters(&self) -> Vec<&Tensor>;

    /// What it makes of `values`, `[batch, length, ...]`. `real` is that of [`Batch`].
    fn apply(&self, values: &Tensor, real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError>;

    /// Whether it may draw random numbers when it is trained, whatever the run's dropout.
    fn draws(&self) -> bool {
        false
    }

    /// Whether it makes one row of all the rows of an example.
    fn pools(&self) -> bool {
        false
    }
}

/// How a forward pass is made.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    /// As it is used: no dropout, and batch normalisation by what was counted.
    Inference,
    /// With dropout of this probability, drawn from this seed, and batch normalisation by the batch where the run has it
    /// counted.
    Training {
        /// In [0, 1).
        dropout: f64,
        /// The same for what goes into adapters.
        adapter_dropout: f64,
        /// Fixes what is dropped.
        seed: i64,
    },
}

impl Mode {
    /// Whether it is part of a step.
    pub(super) fn is_training(self) -> bool {
        matches!(self, Self::Training { .. })
    }

    /// The probability with which a value is dropped.
    pub(super) fn dropout(self) -> f64 {
        match self {
            Self::Inference => 0.0,
            Self::Training { dropout, .. } => dropout,
        }
    }

    /// What an adapter sees of its layer's input: in training some of it may be dropped.
    fn adapter_input(self, values: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Self::Training { adapter_dropout, .. } if adapter_dropout > 0.0 => {
                values.f_dropout(adapter_dropout, true)
            }
            Self::Inference | Self::Training { .. } => Ok(values.shallow_clone()),
        }
    }
}

/// All stages. The last one is the head, which gives logits, `[rows, outputs]`, of the rows that are looked at.
pub(super) struct Network {
    stages: Vec<Box<dyn Stage>>,
    /// The first stage with a trained parameter: what comes before is frozen.
    first_trained: usize,
    device: Device,
}

impl Network {
    /// A network of at least one stage, on `device`.
    pub(super) fn new(stages: Vec<Box<dyn Stage>>, device: Device) -> Self {
        let is_trained = |stage: &dyn Stage| stage.parameters().iter().any(|tensor| tensor.requires_grad());
        let first_trained = stages.iter().position(|stage| is_trained(&**stage)).unwrap_or(stages.len() - 1);
        Self { stages, first_trained, device }
    }

    /// Takes `data` through the frozen stages, unless that was done before.
    pub(super) fn freeze(&self, data: &mut Prepared, watch: &dyn Watch) -> Result<(), TrainError> {
        let todo = data.stage..self.first_trained;
        if todo.is_empty() || data.features.len() == 0 || data.augment.is_some() {
            return Ok(());
        }
        let pooled = self.stages[todo.clone()].iter().any(|stage| stage.pools());
        let lengths: Vec<usize> = (0..data.features.len())
            .map(|example| if pooled { 1 } else { data.features.length(example) })
            .collect();
        let _guard = tch::no_grad_guard();
        let mut frozen: Option<Ragged> = None;
        let mut done = 0;
        for examples in data.features.by_length(ROWS_PER_BATCH) {
            step(watch, Progress::new(Phase::Preparing, done as u64, lengths.len() as u64))?;
            let batch = data.features.batch(&examples, self.device)?;
            let values = self.apply(todo.clone(), &batch, Mode::Inference)?;
            let store = match &mut frozen {
                Some(store) => store,
                None => frozen.insert(empty(&lengths, &values)?),
            };
            store.put(&examples, &values)?;
            done += examples.len();
        }
        step(watch, Progress::new(Phase::Preparing, done as u64, lengths.len() as u64))?;
        if let Some(frozen) = frozen {
            data.features = frozen;
            data.stage = self.first_trained;
        }
        Ok(())
    }

    /// Logits, `[rows, outputs]`, of examples of `data`, which has been through [`Network::freeze`]: a row for each
    /// example, or for each token that a language model foretells.
    pub(super) fn logits(&self, data: &Prepared, examples: &[usize], mode: Mode) -> Result<Tensor, TchError> {
        let forward = |batch| self.head(&self.rows(data, examples, batch, mode)?, mode);
        let draws = self.stages.iter().any(|stage| stage.draws());
        match mode {
            Mode::Training { dropout, adapter_dropout, seed }
                if dropout.max(adapter_dropout) > 0.0 || draws =>
            {
                let batch = self.frozen(data, examples, Some(seed))?;
                seeded(seed, || forward(batch))
            }
            Mode::Training { seed, .. } => forward(self.frozen(data, examples, Some(seed))?),
            Mode::Inference => forward(self.frozen(data, examples, None)?),
        }
    }

    /// What goes into the head in inference, `[rows, ...]`, so that a language model gives no logits that nobody looks
    /// at.
    pub(super) fn below_head(&self, data: &Prepared, examples: &[usize]) -> Result<Tensor, TchError> {
        self.rows(data, examples, self.frozen(data, examples, None)?, Mode::Inference)
    }

    /// What goes into the first trained stage: examples of `data`, changed as `seed` says if they are to be.
    fn frozen(&self, data: &Prepared, examples: &[usize], seed: Option<i64>) -> Result<Batch, TchError> {
        let mut batch = data.features.batch(examples, self.device)?;
        let _guard = tch::no_grad_guard();
        if let (Some(augment), Some(seed)) = (&data.augment, seed) {
            batch = augment.apply(batch, seed)?;
        }
        batch.values = self.apply(data.stage..self.first_trained.max(data.stage), &batch, Mode::Inference)?;
        Ok(batch)
    }

    /// What goes into the head, `[rows, ...]`, of what goes into the first trained stage.
    fn rows(
        &self,
        data: &Prepared,
        examples: &[usize],
        batch: Batch,
        mode: Mode,
    ) -> Result<Tensor, TchError> {
        let first = self.first_trained.max(data.stage);
        let rows = self.apply(first..self.stages.len() - 1, &batch, mode)?.f_flatten(0, 1)?;
        match data.foretelling(examples) {
            Some(places) => rows.f_index_select(0, &Tensor::f_from_slice(&places)?.f_to(self.device)?),
            None => Ok(rows),
        }
    }

    /// Logits, `[rows, outputs]` of f32, of what goes into the head.
    pub(super) fn head(&self, rows: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        match self.stages.last() {
            Some(head) => head.apply(rows, None, mode)?.f_to_kind(Kind::Float),
            None => Ok(rows.shallow_clone()),
        }
    }

    fn apply(&self, stages: std::ops::Range<usize>, batch: &Batch, mode: Mode) -> Result<Tensor, TchError> {
        let Batch { values, real } = batch;
        let mut values = values.shallow_clone();
        for stage in &self.stages[stages] {
            values = stage.apply(&values, real.as_ref(), mode)?;
        }
        Ok(values)
    }
}

/// Room for the output of the frozen stages, of which `sample` is one batch.
fn empty(lengths: &[usize], sample: &Tensor) -> Result<Ragged, TchError> {
    let mut shape = sample.size().split_off(1);
    shape[0] = lengths.iter().sum::<usize>() as i64;
    Ok(Ragged::new(Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?, lengths.iter().copied()))
}

/// Runs `forward` with libtorch's random numbers beginning at `seed`. There is one generator for the whole
/// process, so forward passes with dropout take turns; backward passes draw nothing.
pub(super) fn seeded<T>(seed: i64, forward: impl FnOnce() -> T) -> T {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let _turn = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    forward()
}

/// How a dense layer is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// PyTorch's `Linear`: a weight `[outputs, inputs]` and a bias.
    Dense,
    /// The same without a bias.
    Unbiased,
    /// GPT-2's `Conv1D`: a weight `[inputs, outputs]` and a bias.
    InputsFirst,
}

/// `x W^T + b`, and with an adapter `scale * (x A^T) B^T` on top.
pub(super) struct Linear {
    /// `[outputs, inputs]`, or the other way round.
    weight: Tensor,
    inputs_first: bool,
    /// `[outputs]`.
    bias: Option<Tensor>,
    adapter: Option<Adapter>,
    products: Products,
}

/// A low-rank adapter.
struct Adapter {
    /// `[rank, inputs]`.
    a: Tensor,
    /// `[outputs, rank]`.
    b: Tensor,
    scale: f64,
}

impl Linear {
    /// The tensors `{name}.weight` and `{name}.bias`, and the adapter if one is trained.
    pub(super) fn open(
        source: &mut Source<'_>,
        name: &str,
        inputs: u64,
        outputs: u64,
    ) -> Result<Self, TrainError> {
        Self::open_as(source, name, inputs, outputs, Form::Dense)
    }

    /// [`Linear::open`] of a layer that is stored in this form.
    pub(super) fn open_as(
        source: &mut Source<'_>,
        name: &str,
        inputs: u64,
        outputs: u64,
        form: Form,
    ) -> Result<Self, TrainError> {
        let weight = format!("{name}.weight");
        let adapter = source.adapter(&weight, inputs, outputs)?;
        let inputs_first = form == Form::InputsFirst;
        let shape = if inputs_first { [inputs, outputs] } else { [outputs, inputs] };
        let weight = source.take(&weight, &shape)?;
        let bias = match form {
            Form::Dense | Form::InputsFirst => Some(source.take(&format!("{name}.bias"), &[outputs])?),
            Form::Unbiased => None,
        };
        let adapter = adapter.map(|(a, b, scale)| Adapter { a, b, scale });
        Ok(Self { weight, inputs_first, bias, adapter, products: source.products() })
    }

    pub(super) fn parameters(&self) -> Vec<&Tensor> {
        let adapter = self.adapter.iter().flat_map(|adapter| [&adapter.a, &adapter.b]);
        [&self.weight].into_iter().chain(&self.bias).chain(adapter).collect()
    }

    /// `[..., inputs]` to `[..., outputs]`.
    pub(super) fn apply(&self, values: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let transposed = self.inputs_first.then(|| self.weight.f_tr()).transpose()?;
        let weight = transposed.as_ref().unwrap_or(&self.weight);
        let dense = self.products.dense(values, weight, self.bias.as_ref())?;
        let Some(Adapter { a, b, scale }) = &self.adapter else { return Ok(dense) };
        let kept = mode.adapter_input(values)?;
        let low = self.products.dense(&self.products.dense(&kept, a, None)?, b, None)?;
        dense.f_add(&low.f_mul_scalar(*scale)?)
    }
}

/// Dropout in training; with probability 0 the values as they are.
pub(super) fn drop_some(values: Tensor, mode: Mode) -> Result<Tensor, TchError> {
    if mode.dropout() > 0.0 { values.f_dropout(mode.dropout(), true) } else { Ok(values) }
}

#[cfg(test)]
mod tests {
    use sheaf_common::run::Precision;

    use super::*;

    /// As in PEFT: what the layer itself makes of its input is whole, and its adapter sees some of it dropped and the
    /// rest scaled up.
    #[test]
    fn an_adapter_sees_some_of_its_input_dropped_in_training_alone() {
        let eye = || Tensor::eye(64, (Kind::Float, Device::Cpu));
        let adapter = Adapter { a: eye(), b: eye(), scale: 3.0 };
        let products = Products::new(Precision::F32);
        let layer =
            Linear { weight: eye(), inputs_first: false, bias: None, products, adapter: Some(adapter) };
        let ones = Tensor::ones([8, 64], (Kind::Float, Device::Cpu));
        let mode = Mode::Training { dropout: 0.0, adapter_dropout: 0.25, seed: 5 };
        let apply = |mode| -> Vec<f32> {
            seeded(5, || layer.apply(&ones, mode)).unwrap().flatten(0, -1).try_into().unwrap()
        };
        assert!(apply(Mode::Inference).iter().all(|value| *value == 4.0));
        let found = apply(mode);
        assert!(found.iter().all(|value| *value == 1.0 || *value == 5.0));
        let dropped = found.iter().filter(|value| **value == 1.0).count();
        // Of 512 a quarter, with a standard deviation of 10.
        assert!((78..178).contains(&dropped), "{dropped}");
        assert_eq!(apply(mode), found);
    }
}
