//! A round's steps at a site.

use sheaf_common::seed;
use tch::{TchError, Tensor};

use super::fitting::Fitting;
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
    train_and_tell(trainer, round, watch, |_| ())
}

/// [`train`], with the mean loss of every step told to `on_loss`.
pub(super) fn train_and_tell(
    trainer: &mut TorchTrainer,
    round: Round,
    watch: &dyn Watch,
    mut on_loss: impl FnMut(f64),
) -> Result<Trained, TrainError> {
    let TorchTrainer { spec, site, device, parameters, depths, network, train: data, .. } = trainer;
    if data.is_empty() {
        return Err(TrainError::Failed("the site has no example to train on".into()));
    }
    network.freeze(data, watch)?;

    let number = round.number.to_string();
    let batches = Batches::new(&spec.training, data.len());
    let loss_of = Loss::new(&spec.training.loss, spec.task.labels().len(), &data.targets, *device)?;
    let mut optimizer = Optimizer::new(&spec.training, parameters.spec(), depths);
    let mut last_epoch = MeanLoss::default();
    let global = (spec.training.proximal_mu > 0.0).then(|| parameters.copy()).transpose()?;

    let classes = data.targets.classes();
    let order = batches.of_round(spec.seed, site, round.number, spec.training.sampling, &classes);
    let mut fitting = Fitting::new(batches.batch_size);
    let mut batch = 0u64;
    for (done, examples) in (0..).zip(order) {
        step(watch, batches.progress(done))?;
        let (mut gradient, mut loss) = (None, 0.0);
        // What all examples of the step count: so their gradients add up to that of one large batch.
        let weight = loss_of.weight(&data.targets, &examples);
        for examples in examples.chunks(batches.batch_size) {
            let mut at = 0;
            fitting.run(examples, |part| {
                let counted = parameters.statistics()?;
                let batch = batch.to_string();
                let (start, whole) = (at.to_string(), part.len() == examples.len());
                let names = ["dropout", site, &number, &batch, &start];
                let seed = seed::integer(spec.seed, if whole { &names[..4] } else { &names });
                let dropout = spec.model.dropout;
                let adapter_dropout = spec.model.lora.as_ref().map_or(0.0, |lora| lora.dropout);
                let mode = Mode::Training { dropout, adapter_dropout, seed };
                let of_part = || {
                    let logits = network.logits(data, part, mode)?;
                    let sum = match data.augment.as_ref().and_then(|augment| augment.mix(part.len(), seed)) {
                        Some(mix) => loss_of.sum_of_pairs(&logits, &data.targets, part, &mix)?,
                        None => loss_of.sum(&logits, &data.targets, part)?,
                    };
                    let mean = sum.f_div_scalar(weight)?;
                    Ok((parameters.gradient(&mean)?, mean.f_double_value(&[])?))
                };
                let (part_gradient, part_loss) = match of_part() {
                    Ok(found) => found,
                    // What is done again on each half must not be counted twice.
                    Err(error) => return parameters.set_statistics(&counted).and(Err(error)),
                };
                add(&mut gradient, part_gradient)?;
                loss += part_loss;
                at += part.len();
                Ok(())
            })?;
            batch += 1;
        }
        let loss = finite(loss, done + 1, round)?;
        on_loss(loss);
        if batches.is_last_epoch(done) {
            last_epoch.add(loss, weight);
        }
        let Some(mut gradient) = gradient else { continue };
        if let Some(global) = &global {
            let away = parameters.flat().f_sub(global)?.f_mul_scalar(spec.training.proximal_mu)?;
            let _ = gradient.f_add_(&away)?;
        }
        optimizer.step(parameters.flat(), gradient, batches.learning_rate(&spec.training, round, done))?;
    }
    // The last step can leave the finite numbers, too.
    finite(parameters.sum()?, batches.steps, round)?;
    step(watch, batches.progress(batches.steps))?;
    Ok(Trained { params: parameters.values()?, train_loss: last_epoch.mean() })
}

/// `sum += part`, in place.
fn add(sum: &mut Option<Tensor>, part: Tensor) -> Result<(), TchError> {
    match sum {
        None => *sum = Some(part),
        Some(sum) => drop(sum.f_add_(&part)?),
    }
    Ok(())
}

fn finite(loss: f64, step: u64, round: Round) -> Result<f64, TrainError> {
    if loss.is_finite() { Ok(loss) } else { Err(TrainError::Diverged { loss, step, round: round.number }) }
}

/// A mean over all steps from the means of each, by what their examples count.
#[derive(Default)]
struct MeanLoss {
    sum: f64,
    weight: f64,
}

impl MeanLoss {
    fn add(&mut self, mean: f64, weight: f64) {
        self.sum += mean * weight;
        self.weight += weight;
    }

    fn mean(&self) -> f64 {
        if self.weight > 0.0 { self.sum / self.weight } else { 0.0 }
    }
}
