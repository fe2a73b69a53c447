//! Softmax regression in plain Rust: a real model on real data without libtorch.
//!
//! It is small enough to be read whole, which makes it the measure for everything around a trainer, and fast
//! enough for the protocol's tests. `model` is the model, `optimizer` what moves it.

mod model;
mod optimizer;
#[cfg(test)]
mod tests;

use sheaf_common::message::Job;
use sheaf_common::metrics::{Classification, Counts};
use sheaf_common::params::{ParamSpec, ParamTensor};
use sheaf_common::run::{DecayOn, Training};
use sheaf_common::status::{Phase, Progress};

use self::model::Model;
use self::optimizer::Optimizer;
use super::batches::Batches;
use super::{Round, TrainError, Trained, Trainer, Watch};
use crate::data::{Dataset, Inputs, Split, Stored, Targets};

/// Examples between two looks at whoever waits.
const EVALUATED_AT_ONCE: usize = 4096;

/// Trains softmax regression on a table.
pub struct SoftmaxTrainer {
    model: Model,
    training: Training,
    seed: u64,
    site_label: String,
    train: Table,
    validation: Table,
}

/// Encoded rows and their labels, `labels.len()` of each.
struct Table {
    width: usize,
    rows: Rows,
    labels: Vec<u32>,
}

enum Rows {
    Memory(Vec<f32>),
    Stored(Stored),
}

impl SoftmaxTrainer {
    /// A trainer for `job` on `split`, at the site `site_label`.
    ///
    /// # Errors
    /// When the data is no table of the job's width, or the job's parameters are not softmax regression's.
    pub fn open(job: &Job, site_label: &str, split: Split) -> Result<Self, TrainError> {
        let model =
            Model { inputs: job.spec.task.num_inputs() as usize, labels: job.spec.task.labels().len() };
        if job.params != model.param_spec() {
            return Err(TrainError::Failed(
                "the run's parameters are not those of softmax regression on its features: server and site \
                 differ in version, update the older one"
                    .to_owned(),
            ));
        }
        Ok(Self {
            train: Table::new(split.train, &model)?,
            validation: Table::new(split.validation, &model)?,
            model,
            training: job.spec.training.clone(),
            seed: job.spec.seed,
            site_label: site_label.to_owned(),
        })
    }

    /// Weight decay reaches so many parameters from the first on.
    fn decaying(&self) -> usize {
        match self.training.weight_decay_on {
            DecayOn::Weights => self.model.num_weights(),
            DecayOn::All => self.model.numel(),
        }
    }

    fn check_length(&self, params: &[f32]) -> Result<(), TrainError> {
        let (has, needs) = (params.len(), self.model.numel());
        if has == needs {
            return Ok(());
        }
        Err(TrainError::Failed(format!(
            "softmax regression of this run has {needs} parameters, and {has} were given"
        )))
    }
}

impl Trainer for SoftmaxTrainer {
    fn num_examples(&self) -> u64 {
        self.train.labels.len() as u64
    }

    fn train(&mut self, params: Vec<f32>, round: Round, watch: &dyn Watch) -> Result<Trained, TrainError> {
        self.check_length(&params)?;
        let batches = Batches::new(&self.training, self.train.labels.len());
        let mut params: Vec<f64> = params.into_iter().map(f64::from).collect();
        let mut optimizer = Optimizer::new(&self.training, self.decaying());
        let mut gradient = vec![0.0; params.len()];
        let (mut loss_sum, mut loss_examples) = (0.0, 0);
        let global = params.clone();
        let (sampling, labels) = (self.training.sampling, &self.train.labels);
        let order = batches.of_round(self.seed, &self.site_label, round.number, sampling, labels);
        for (step, batch) in (0..).zip(order) {
            if watch.is_cancelled() {
                return Err(TrainError::Cancelled);
            }
            gradient.fill(0.0);
            let rows = self.train.rows(&batch)?;
            let examples = rows.chunks_exact(self.train.width).zip(self.train.labels(&batch));
            let loss = self.model.loss_and_gradient(&params, examples, &mut gradient);
            if !loss.is_finite() {
                return Err(TrainError::Diverged { loss, step: step + 1, round: round.number });
            }
            for ((slope, param), global) in gradient.iter_mut().zip(&params).zip(&global) {
                *slope += self.training.proximal_mu * (param - global);
            }
            optimizer.step(&mut params, &mut gradient, batches.learning_rate(&self.training, round, step));
            if batches.is_last_epoch(step) {
                loss_sum += loss * batch.len() as f64;
                loss_examples += batch.len();
            }
            watch.progress(batches.progress(step + 1));
        }
        let params: Vec<f32> = params.into_iter().map(|value| value as f32).collect();
        if params.iter().any(|value| !value.is_finite()) {
            // The last step's loss is never computed; with such parameters it has no end.
            return Err(TrainError::Diverged {
                loss: f64::INFINITY,
                step: batches.steps,
                round: round.number,
            });
        }
        Ok(Trained { params, train_loss: loss_sum / loss_examples.max(1) as f64 })
    }

    fn evaluate(&mut self, params: &[f32], watch: &dyn Watch) -> Result<Option<Counts>, TrainError> {
        self.check_length(params)?;
        let examples = self.validation.labels.len();
        if examples == 0 {
            return Ok(None);
        }
        let params: Vec<f64> = params.iter().copied().map(f64::from).collect();
        let mut counts = Classification::new(self.model.labels);
        for start in (0..examples).step_by(EVALUATED_AT_ONCE) {
            if watch.is_cancelled() {
                return Err(TrainError::Cancelled);
            }
            let end = examples.min(start + EVALUATED_AT_ONCE);
            let batch: Vec<usize> = (start..end).collect();
            let rows = self.validation.rows(&batch)?;
            for (row, label) in rows.chunks_exact(self.model.inputs).zip(self.validation.labels(&batch)) {
                let logits: Vec<f32> = self.model.logits(&params, row).map(|logit| logit as f32).collect();
                counts.observe(label, &logits);
            }
            watch.progress(Progress::new(Phase::Evaluating, end as u64, examples as u64));
        }
        Ok(Some(counts.into()))
    }
}

impl Model {
    fn param_spec(&self) -> ParamSpec {
        let (labels, inputs) = (self.labels as u64, self.inputs as u64);
        let tensor = |name: &str, shape: Vec<u64>| ParamTensor { name: name.to_owned(), shape };
        ParamSpec { tensors: vec![tensor("weight", vec![labels, inputs]), tensor("bias", vec![labels])] }
    }
}

impl Table {
    fn new(dataset: Dataset, model: &Model) -> Result<Self, TrainError> {
        let failed = |why: &str| Err(TrainError::Failed(why.to_owned()));
        let Targets::Label(labels) = dataset.targets else {
            return failed("softmax regression learns one label an example");
        };
        let (width, rows) = match dataset.inputs {
            Inputs::Table { width, values } if values.len() == width * labels.len() => {
                (width, Rows::Memory(values))
            }
            Inputs::StoredTable { width, rows } if rows.places.len() == labels.len() => {
                (width, Rows::Stored(rows))
            }
            Inputs::Table { .. } | Inputs::StoredTable { .. } => {
                return failed("the data has not as many rows as labels");
            }
            Inputs::Text(_) | Inputs::StoredText(_) | Inputs::Images { .. } | Inputs::StoredImages { .. } => {
                return failed("softmax regression reads tables only");
            }
        };
        if width != model.inputs || width == 0 {
            return failed("the data's rows are not as wide as the run's features");
        }
        if labels.iter().any(|label| *label as usize >= model.labels) {
            return failed("a label of the data is none of the run's labels");
        }
        Ok(Self { width, rows, labels })
    }

    /// The rows of these examples, one after the other.
    fn rows(&self, examples: &[usize]) -> Result<Vec<f32>, TrainError> {
        match &self.rows {
            Rows::Memory(values) => {
                let row = |example: &usize| &values[example * self.width..][..self.width];
                Ok(examples.iter().flat_map(row).copied().collect())
            }
            Rows::Stored(rows) => Ok(rows.rows(self.width, examples)?),
        }
    }

    /// The labels of these examples.
    fn labels(&self, examples: &[usize]) -> impl ExactSizeIterator<Item = usize> {
        examples.iter().map(|example| self.labels[*example] as usize)
    }
}
