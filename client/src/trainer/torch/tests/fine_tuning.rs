//! Fifty steps of fine-tuning all of MiniLM against PyTorch and Hugging Face's transformers, step by step
//! (`scripts/reference/fine_tuning.py`).

use std::path::Path;
use std::time::Instant;

use safetensors::SafeTensors;
use serde::Deserialize;
use sheaf_common::message::Job;
use sheaf_common::model::ModelConfig;
use sheaf_common::run::*;
use tch::Device;

use super::fixture::{ADAM, both, job, text_spec};
use super::minilm::cached;
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::batches::Batches;
use crate::trainer::torch::{TorchTrainer, training};
use crate::trainer::{Round, Unwatched};

const SITE: &str = "site";
const ONE_ROUND: Round = Round { number: 1, of: 1 };

#[derive(Deserialize)]
struct Reference {
    batch_size: u32,
    max_length: u32,
    learning_rate: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    topics: Vec<String>,
    losses: Vec<f64>,
    bf16_losses: Vec<f64>,
}

/// The first documents of each topic, in turns, as the script takes them.
fn documents(topics: &[String], count: usize) -> Vec<(String, u32)> {
    let table = std::fs::read_to_string(cached("reuters-r8").join("reuters-r8-train.tab")).unwrap();
    let header: Vec<&str> = table.lines().next().unwrap().split('\t').collect();
    let column = |wanted| header.iter().position(|name| *name == wanted).unwrap();
    let (label, text) = (column("Category"), column("Text"));
    let rows: Vec<Vec<&str>> = table.lines().skip(3).map(|line| line.split('\t').collect()).collect();
    let of_topic = |topic: &String| rows.iter().filter(|row| row[label] == *topic).collect::<Vec<_>>();
    let topics: Vec<_> = topics.iter().map(of_topic).collect();
    let turn = |at: usize| (topics[at % topics.len()][at / topics.len()][text], at % topics.len());
    (0..count).map(turn).map(|(text, label)| (text.to_owned(), label as u32)).collect()
}

/// The pretrained parameters, and the script's head.
fn start(job: &Job, folder: &Path) -> Vec<f32> {
    let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = job.params.tensors.iter().flat_map(|tensor| match tensor.name.as_str() {
        "classifier.weight" => {
            (0..tensor.numel()).map(|at| (0.02 * (1.7 * at as f64).sin()) as f32).collect()
        }
        "classifier.bias" => vec![0.0; tensor.numel() as usize],
        name => {
            let (values, rest) = file.tensor(name).unwrap().data().as_chunks::<4>();
            assert!(rest.is_empty());
            values.iter().map(|value| f32::from_le_bytes(*value)).collect()
        }
    });
    values.collect()
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../../../tests/data/fine_tuning_reference.json")).unwrap()
}

#[test]
fn losses_are_those_of_transformers() {
    let reference = reference();
    assert_losses(&reference, Precision::F32, &reference.losses);
}

#[test]
fn losses_in_bf16_are_those_of_transformers_with_autocast() {
    let reference = reference();
    assert_losses(&reference, Precision::Bf16, &reference.bf16_losses);
}

fn assert_losses(reference: &Reference, precision: Precision, expected: &[f64]) {
    let folder = cached("minilm");
    let config = ModelConfig::parse(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    let mut spec = text_spec(Trainable::All, Pooling::Cls);
    spec.model.dropout = 0.0;
    spec.task.target = Target::Label { column: "topic".into(), labels: reference.topics.clone() };
    spec.task.input = TaskInput::Text { column: "text".into(), max_length: reference.max_length };
    spec.training = Training {
        optimizer: Optimizer::AdamW(ADAM),
        learning_rate: reference.learning_rate,
        weight_decay: reference.weight_decay,
        batch_size: reference.batch_size,
        local: LocalWork::Epochs(1),
        schedule: Schedule { kind: ScheduleKind::Linear, per: Per::Step, warmup_steps: 0 },
        max_grad_norm: Some(reference.max_grad_norm),
        precision,
        ..Training::default()
    };

    // The data set is laid out so that the site's own order is the script's.
    let examples = documents(&reference.topics, expected.len() * reference.batch_size as usize);
    let batches = Batches::new(&spec.training, examples.len());
    let order = batches.of_round(spec.seed, SITE, ONE_ROUND.number, Sampling::Shuffle, &[]).flatten();
    let mut laid_out = vec![(String::new(), 0); examples.len()];
    for (place, example) in order.zip(examples) {
        laid_out[place] = example;
    }
    let (texts, labels) = laid_out.into_iter().unzip();
    let data = Dataset { inputs: Inputs::Text(texts), targets: Targets::Label(labels) };

    let job = job(spec, Some(&config));
    let mut trainer = TorchTrainer::open(&job, Some(&folder), SITE, both(data), Device::Cpu).unwrap();
    trainer.parameters.set(&start(&job, &folder)).unwrap();
    let (mut losses, mut times, mut since) = (Vec::new(), Vec::new(), Instant::now());
    training::train_and_tell(&mut trainer, ONE_ROUND, &Unwatched, |loss| {
        losses.push(loss);
        times.push(since.elapsed());
        since = Instant::now();
    })
    .unwrap();

    assert_eq!(losses.len(), expected.len());
    let off = losses.iter().zip(expected).map(|(found, expected)| (found - expected).abs());
    let furthest = off.fold(0.0, f64::max);
    times.sort();
    println!("furthest loss: {furthest:.1e}; median {:?} a step", times[times.len() / 2]);
    assert!(furthest < 1e-3, "the losses are off by {furthest}: {losses:?}");
}
