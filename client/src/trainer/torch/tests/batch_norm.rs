//! What becomes of running statistics in a federation: averaged like parameters, or kept by each site. That they are
//! PyTorch's is seen in `vision`.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use sheaf_common::aggregate::{Aggregate, FedAvg, ServerOptimizer};
use sheaf_common::message::Job;
use sheaf_common::metrics::Kind;
use sheaf_common::model::vision::is_statistic;
use sheaf_common::model::{ModelConfig, WEIGHTS_FILE};
use sheaf_common::params::{ParamTensor, from_bytes};
use sheaf_common::run::*;
use tch::Device;
use tempfile::TempDir;

use super::fixture::{job, text_spec};
use super::images::model;
use crate::data::{Dataset, Inputs, Split, Targets};
use crate::trainer::torch::TorchTrainer;
use crate::trainer::{Local, Round, TrainError, Trainer, Unwatched};

const SIDE: usize = 32;

fn spec(batch_norm: BatchNorm) -> RunSpec {
    let mut spec = text_spec(Trainable::All, Pooling::Mean);
    spec.model.dropout = 0.0;
    spec.model.batch_norm = batch_norm;
    spec.task.input = TaskInput::Image { column: "scan".into(), size: None };
    let labels = ["dark", "light"].map(str::to_owned).into();
    spec.task.target = Target::Label { column: "shade".into(), labels };
    spec.training = Training {
        optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false },
        learning_rate: 0.05,
        batch_size: 4,
        local: LocalWork::Epochs(1),
        ..Training::default()
    };
    spec
}

/// So many images, the brighter the larger `shade` is.
fn images(count: usize, shade: usize) -> Split {
    let pixel = |at: usize| ((at * 37 + at / 97 * 11) % 100 + shade) as u8;
    let values = (0..count * 3 * SIDE * SIDE).map(pixel).collect();
    let labels = (0..count).map(|example| (example % 2) as u32).collect();
    let train = Dataset { inputs: Inputs::Images { size: SIDE, values }, targets: Targets::Label(labels) };
    Split { validation: train.empty_like(), train }
}

/// A model folder, and a job of a run on it.
fn a_job(spec: RunSpec) -> (TempDir, ModelConfig, Job) {
    let folder = tempfile::tempdir().unwrap();
    let config = model(folder.path());
    let job = job(spec, Some(&config));
    (folder, config, job)
}

fn open(job: &Job, folder: &Path, site: &str, data: Split) -> TorchTrainer {
    TorchTrainer::open(job, Some(folder), site, data, Device::Cpu).unwrap()
}

/// Rounds of 2.
fn round(number: u32) -> Round {
    Round { number, of: 2 }
}

/// Where the statistics are among the values that travel.
fn statistics(job: &Job) -> std::ops::Range<usize> {
    let counted: u64 = job.params.tensors.iter().filter(|t| is_statistic(&t.name)).map(|t| t.numel()).sum();
    let all = job.params.numel() as usize;
    all - counted as usize..all
}

#[test]
fn averaged_statistics_are_the_mean_weighted_by_examples() {
    let (folder, _config, job) = a_job(spec(BatchNorm::Averaged));
    let start = start(&job, folder.path());
    let mut sum = Aggregate::zero(start.len());
    let mut sites = Vec::new();
    for (site, count, shade) in [("a", 12, 0), ("b", 4, 150)] {
        let mut trainer = open(&job, folder.path(), site, images(count, shade));
        let trained = trainer.train(start.clone(), round(1), &Unwatched).unwrap().params;
        let delta: Vec<f32> = trained.iter().zip(&start).map(|(local, global)| local - global).collect();
        sum.add(&delta, trainer.num_examples());
        assert!(trainer.local().unwrap().is_empty(), "nothing stays at the site");
        sites.push(trained);
    }
    let mut global = start.clone();
    FedAvg { learning_rate: 1.0 }.step(&mut global, sum.mean());
    let counted = statistics(&job);
    assert!(counted.len() > 40);
    let mut apart = 0.0f32;
    for at in counted {
        let expected = (12.0 * sites[0][at] + 4.0 * sites[1][at]) / 16.0;
        assert!((global[at] - expected).abs() <= 1e-5 * expected.abs().max(1.0), "{at}");
        apart = apart.max((sites[0][at] - sites[1][at]).abs());
    }
    assert!(apart > 0.05, "the sites have counted different things: {apart}");
}

#[test]
fn nothing_but_the_forward_pass_changes_statistics() {
    let plain = spec(BatchNorm::Averaged);
    let mut pulled = plain.clone();
    let Training { weight_decay, weight_decay_on, proximal_mu, max_grad_norm, .. } = &mut pulled.training;
    (*weight_decay, *weight_decay_on, *proximal_mu) = (0.5, DecayOn::All, 3.0);
    *max_grad_norm = Some(1e-3);
    // One step: its statistics are counted before anything moves.
    let trained = [plain, pulled].map(|mut spec| {
        spec.training.local = LocalWork::Steps(1);
        let (folder, _config, job) = a_job(spec);
        let start = start(&job, folder.path());
        let mut trainer = open(&job, folder.path(), "a", images(8, 0));
        (trainer.train(start, round(1), &Unwatched).unwrap().params, statistics(&job))
    });
    let [(plain, counted), (pulled, _)] = trained;
    assert_eq!(plain[counted.clone()], pulled[counted.clone()]);
    assert_ne!(plain[..counted.start], pulled[..counted.start]);
}

#[test]
fn frozen_statistics_neither_travel_nor_change() {
    let (folder, _config, job) = a_job(spec(BatchNorm::Frozen));
    assert!(statistics(&job).is_empty());
    let mut trainer = open(&job, folder.path(), "a", images(8, 90));
    let before: Vec<f32> = trainer.parameters.statistics().unwrap().try_into().unwrap();
    trainer.train(start(&job, folder.path()), round(1), &Unwatched).unwrap();
    assert!(before.is_empty() && trainer.local().unwrap().is_empty());
}

#[test]
fn what_a_site_kept_goes_on_in_another_process_as_if_it_had_never_stopped() {
    let (folder, _config, job) = a_job(spec(BatchNorm::Local));
    assert!(statistics(&job).is_empty());
    let start = start(&job, folder.path());
    let of_round = |trainer: &mut TorchTrainer, number| {
        let params = trainer.train(start.clone(), round(number), &Unwatched).unwrap().params;
        (params, trainer.local().unwrap())
    };
    let mut trainer = open(&job, folder.path(), "a", images(8, 90));
    let imported = trainer.local().unwrap();
    let first = of_round(&mut trainer, 1);
    assert_ne!(imported, first.1);
    let second = of_round(&mut trainer, 2);
    assert_ne!(first.1, second.1);

    let mut again = open(&job, folder.path(), "a", images(8, 90));
    again.set_local(&first.1).unwrap();
    assert_eq!(of_round(&mut again, 2), second);
    // What an attempt that came to nothing has counted is forgotten.
    again.set_local(&Local::new()).unwrap();
    assert_eq!(again.local().unwrap(), imported);
    assert_eq!(of_round(&mut again, 1), first);
}

#[test]
fn each_site_evaluates_with_its_own_statistics() {
    let (folder, _config, job) = a_job(spec(BatchNorm::Local));
    let start = start(&job, folder.path());
    let loss = |kept: &Local| -> Result<f64, TrainError> {
        let data = images(8, 90);
        let split = Split { train: data.train.empty_like(), validation: data.train };
        let mut trainer = open(&job, folder.path(), "a", split);
        trainer.set_local(kept)?;
        let counts = trainer.evaluate(&start, &Unwatched)?.unwrap();
        Ok(counts.report(&Kind::of(&job.spec)).classification().unwrap().loss)
    };
    let mut trainer = open(&job, folder.path(), "a", images(8, 90));
    trainer.train(start.clone(), round(1), &Unwatched).unwrap();
    let own = trainer.local().unwrap();
    assert_ne!(loss(&own).unwrap(), loss(&Local::new()).unwrap());
}

#[test]
fn one_value_a_channel_is_normalised_by_what_was_counted() {
    // An image of 8 pixels is one value a channel in the last block.
    let (folder, _config, job) = a_job(spec(BatchNorm::Averaged));
    let start = start(&job, folder.path());
    let train = Dataset {
        inputs: Inputs::Images { size: 8, values: (0..3 * 8 * 8).map(|at| (at % 251) as u8).collect() },
        targets: Targets::Label(vec![1]),
    };
    let data = Split { validation: train.empty_like(), train };
    let mut trainer = open(&job, folder.path(), "a", data);
    let trained = trainer.train(start.clone(), round(1), &Unwatched).unwrap().params;
    assert!(trained.iter().all(|value| value.is_finite()));
    let changed: Vec<bool> = statistics(&job).map(|at| trained[at] != start[at]).collect();
    assert!(changed[0] && !changed[changed.len() - 1], "the first layer counted, the last did not");
}

/// The parameters before the first round; the head, which the model does not bring, is made up.
fn start(job: &Job, folder: &Path) -> Vec<f32> {
    let bytes = fs::read(folder.join(WEIGHTS_FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let of = |tensor: &ParamTensor| match file.tensor(&tensor.name) {
        Ok(found) => from_bytes(found.data()),
        Err(_) => (0..tensor.numel()).map(|at| (at % 7) as f32 / 10.0 - 0.3).collect(),
    };
    job.params.tensors.iter().flat_map(of).collect()
}
