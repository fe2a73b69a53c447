//! A round's steps at a site.

use sheaf_common::seed;
use sheaf_common::status::Phase;
use tch::Tensor;

use super::loss::Loss;
use super::network::Mode;
use super::optimizer::Optimizer;
use super::{TorchTrainer, step};
use crate::trainer::batches::Batches;
use crate::trainer::{Round, TrainError, Trained, Watch};

/// Trains from the parameters that `trainer` holds. Everything random in it follows from the run's seed, the site
/// and the round.
pub(super) fn train(
    trainer: &mut TorchTrainer,
    round: Round,
    watch: &dyn Watch,
) -> Result<Trained, TrainError> {
    let TorchTrainer { spec, site, device, parameters, network, train: data, .. } = trainer;
    if data.is_empty() {
        return Err(TrainError::Failed("the site has no example to train on".into()));
    }
    network.freeze(data, watch)?;

    let number = round.number.to_string();
    let batches = Batches::new(&spec.training, data.len());
    let loss_of = Loss::new(&spec.training.loss, spec.num_labels(), &data.labels, *device)?;
    let mut optimizer = Optimizer::new(&spec.training, parameters.spec());
    let mut last_epoch = MeanLoss::default();
    let global = (spec.training.proximal_mu > 0.0).then(|| parameters.copy()).transpose()?;

    let labels: Vec<u32> = data.labels.iter().map(|label| *label as u32).collect();
    let order = batches.of_round(spec.seed, site, round.number, spec.training.sampling, &labels);
    let mut batch = 0u64;
    for (done, examples) in (0..).zip(order) {
        step(watch, Phase::Training, done as usize, batches.steps as usize)?;
        let mut gradient: Option<Tensor> = None;
        // A step sees the examples of all its batches, each batch in its turn.
        for examples in examples.chunks(batches.batch_size) {
            let seed = seed::integer(spec.seed, &["dropout", site, &number, &batch.to_string()]);
            batch += 1;
            let logits =
                network.logits(data, examples, Mode::Training { dropout: spec.model.dropout, seed })?;
            let labels: Vec<i64> = examples.iter().map(|example| data.labels[*example]).collect();
            let loss = loss_of.of(&logits, &Tensor::f_from_slice(&labels)?.f_to(*device)?)?;
            let part = parameters.gradient(&loss)?;
            gradient = Some(match gradient {
                None => part,
                Some(mut sum) => sum.f_add_(&part)?,
            });
            let loss = finite(loss.f_double_value(&[])?, done + 1, round)?;
            if batches.is_last_epoch(done) {
                last_epoch.add(loss, labels.len());
            }
        }
        let parts = examples.len().div_ceil(batches.batch_size);
        let Some(mut gradient) = gradient else { continue };
        if parts > 1 {
            let _ = gradient.f_div_scalar_(parts as f64)?;
        }
        if let Some(global) = &global {
            let away = parameters.flat().f_sub(global)?.f_mul_scalar(spec.training.proximal_mu)?;
            let _ = gradient.f_add_(&away)?;
        }
        optimizer.step(parameters.flat(), gradient, batches.learning_rate(&spec.training, round, done))?;
    }
    // The last step can leave the finite numbers, too.
    let sum = parameters.flat().f_sum(None)?.f_double_value(&[])?;
    finite(sum, batches.steps, round)?;
    step(watch, Phase::Training, batches.steps as usize, batches.steps as usize)?;
    Ok(Trained { params: parameters.values()?, train_loss: last_epoch.mean() })
}

fn finite(loss: f64, step: u64, round: Round) -> Result<f64, TrainError> {
    if loss.is_finite() { Ok(loss) } else { Err(TrainError::Diverged { loss, step, round: round.number }) }
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
