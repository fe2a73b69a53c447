//! A round's steps at a site.

use sheaf_common::run::{LocalWork, RunSpec};
use sheaf_common::seed;
use sheaf_common::status::Phase;
use tch::{Reduction, Tensor};

use super::network::Mode;
use super::optimizer::Optimizer;
use super::order::Batches;
use super::{TorchTrainer, step};
use crate::trainer::{Round, TrainError, Trained, Watch};

/// Trains from the parameters that `trainer` holds. Everything random in it follows from the run's seed, the site
/// and the round.
pub(super) fn train(
    trainer: &mut TorchTrainer,
    round: Round,
    watch: &dyn Watch,
) -> Result<Trained, TrainError> {
    let TorchTrainer {
        spec,
        site,
        device,
        parameters,
        network,
        train: data,
        ..
    } = trainer;
    if data.is_empty() {
        return Err(TrainError::Failed("the site has no example to train on".into()));
    }
    network.freeze(data, watch)?;

    let number = round.number.to_string();
    let random = seed::stream(spec.seed, &["order", site, &number]);
    let mut batches = Batches::new(data.len(), spec.training.batch_size as usize, random);
    let per_pass = batches.per_pass();
    let steps = steps_per_round(spec, per_pass);
    let mut optimizer = Optimizer::new(&spec.training, parameters.spec());
    let mut last_pass = MeanLoss::default();

    for done in 0..steps {
        step(watch, Phase::Training, done as usize, steps as usize)?;
        let examples = batches.next_batch();
        let seed = seed::integer(spec.seed, &["dropout", site, &number, &done.to_string()]);
        let logits = network.logits(
            data,
            examples,
            Mode::Training {
                dropout: spec.model.dropout,
                seed,
            },
        )?;
        let labels: Vec<i64> = examples.iter().map(|example| data.labels[*example]).collect();
        let labels = Tensor::f_from_slice(&labels)?.f_to(*device)?;
        // -100 is the label that PyTorch leaves out; no example has it.
        let loss = logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::Mean, -100, 0.0)?;
        let gradient = parameters.gradient(&loss)?;

        let loss = finite(loss.f_double_value(&[])?, done + 1, round)?;
        if done + per_pass >= steps {
            last_pass.add(loss, labels.numel());
        }
        optimizer.step(parameters.flat(), gradient, rate(spec, round, done, steps))?;
    }
    // The last step can leave the finite numbers, too.
    let sum = parameters.flat().f_sum(None)?.f_double_value(&[])?;
    finite(sum, steps, round)?;
    step(watch, Phase::Training, steps as usize, steps as usize)?;
    Ok(Trained {
        params: parameters.values()?,
        train_loss: last_pass.mean(),
    })
}

/// Optimizer steps of one round.
fn steps_per_round(spec: &RunSpec, per_pass: u64) -> u64 {
    match spec.training.local {
        LocalWork::Epochs(epochs) => u64::from(epochs) * per_pass,
        LocalWork::Steps(steps) => u64::from(steps),
    }
}

/// The learning rate at this step (from 0) of the round.
pub(super) fn rate(spec: &RunSpec, round: Round, step: u64, steps: u64) -> f64 {
    let before = u64::from(round.number.saturating_sub(1)) * steps;
    let factor = spec
        .training
        .schedule
        .factor(before + step, u64::from(round.of) * steps);
    spec.training.learning_rate * factor
}

fn finite(loss: f64, step: u64, round: Round) -> Result<f64, TrainError> {
    if loss.is_finite() {
        Ok(loss)
    } else {
        Err(TrainError::Diverged {
            loss,
            step,
            round: round.number,
        })
    }
}

/// A mean over examples, from means over batches.
#[derive(Default)]
struct MeanLoss {
    sum: f64,
    examples: usize,
}

impl MeanLoss {
    fn add(&mut self, mean: f64, examples: usize) {
        self.sum += mean * examples as f64;
        self.examples += examples;
    }

    fn mean(&self) -> f64 {
        self.sum / self.examples.max(1) as f64
    }
}
