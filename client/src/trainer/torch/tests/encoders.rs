//! Tiny encoders of every family against Hugging Face's transformers (`scripts/reference/encoders.py`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use sheaf_common::message::Job;
use sheaf_common::model::ModelConfig;
use sheaf_common::params::to_bytes;
use sheaf_common::run::*;
use tch::Device;

use super::fixture::{both, job, text_spec};
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::torch::network::Mode;
use crate::trainer::torch::{TorchTrainer, training, values};
use crate::trainer::{Round, Unwatched};

#[derive(Deserialize)]
struct Reference {
    ids: Vec<Vec<i64>>,
    labels: Vec<u32>,
    multi_labels: Vec<Vec<u8>>,
    numbers: Vec<f32>,
    learning_rate: f64,
    rank: u32,
    alpha: f64,
    families: BTreeMap<String, Family>,
}

#[derive(Deserialize)]
struct Family {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
    logits: BTreeMap<String, Vec<Vec<f32>>>,
    losses: BTreeMap<String, Vec<f64>>,
    /// Of training adapters, by the biases that are trained beside them.
    adapter_losses: BTreeMap<String, Vec<f64>>,
}

fn reference() -> Reference {
    tch::set_num_threads(1);
    serde_json::from_str(include_str!("../../../../tests/data/encoders_reference.json")).unwrap()
}

impl Reference {
    /// The texts of which the ids are the script's.
    fn data(&self, targets: Targets) -> Dataset {
        let text = |ids: &Vec<i64>| ids.iter().map(|id| format!("t{id}")).collect::<Vec<_>>().join(" ");
        Dataset { inputs: Inputs::Text(self.ids.iter().map(text).collect()), targets }
    }
}

impl Family {
    /// Writes the model, and a tokenizer of which token `t7` is 7.
    fn write(&self, folder: &Path) -> ModelConfig {
        let config = self.config.to_string();
        fs::write(folder.join("config.json"), &config).unwrap();
        let vocab: BTreeMap<String, usize> = (0..24).map(|id| (format!("t{id}"), id)).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
        });
        fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let values: Vec<Vec<u8>> = self
            .tensors
            .iter()
            .enumerate()
            .map(|(number, (name, shape))| to_bytes(&wave(number, name, shape.iter().product())))
            .collect();
        let views = self.tensors.iter().zip(&values).map(|((name, shape), values)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), values);
            (name, view.unwrap())
        });
        fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        ModelConfig::parse(config.as_bytes()).unwrap()
    }

    /// The trained part of the model, adapters too, by the formulas: a head may have another number of outputs than the file's.
    fn start(&self, job: &Job) -> Vec<f32> {
        let of = |tensor: &sheaf_common::params::ParamTensor| {
            if let Some(phase) =
                [".lora_A.weight", ".lora_B.weight"].iter().position(|it| tensor.name.ends_with(it))
            {
                let value = |at: u64| 0.2 * (1.7 * at as f64 + phase as f64).sin();
                return (0..tensor.numel()).map(|at| value(at) as f32).collect();
            }
            let mut named = self.tensors.keys().enumerate();
            let is_it = |stored: &str| {
                stored == tensor.name || stored.split_once('.').is_some_and(|(_, name)| name == tensor.name)
            };
            let (number, name) = named.find(|(_, stored)| is_it(stored)).unwrap();
            wave(number, name, tensor.numel() as usize)
        };
        job.params.tensors.iter().flat_map(of).collect()
    }
}

impl Reference {
    /// How far the losses of the script's steps are from those `expected`.
    fn furthest_loss(
        &self,
        family: &Family,
        mut spec: RunSpec,
        (folder, config): (&Path, &ModelConfig),
        data: Dataset,
        expected: &[f64],
    ) -> f64 {
        spec.training = Training {
            learning_rate: self.learning_rate,
            weight_decay: 0.0,
            batch_size: self.ids.len() as u32,
            local: LocalWork::Steps(expected.len() as u32),
            max_grad_norm: None,
            schedule: Schedule { kind: ScheduleKind::Constant, per: Per::Step, warmup_steps: 0 },
            ..spec.training
        };
        let job = job(spec, Some(config));
        let mut trainer = TorchTrainer::open(&job, Some(folder), "site", both(data), Device::Cpu).unwrap();
        trainer.parameters.set(&family.start(&job)).unwrap();
        let mut found = Vec::new();
        let round = Round { number: 1, of: 1 };
        training::train_and_tell(&mut trainer, round, &Unwatched, |loss| found.push(loss)).unwrap();
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }
}

/// The values of the script's tensor of this number.
fn wave(number: usize, name: &str, numel: usize) -> Vec<f32> {
    let is_norm = name.to_lowercase().replace('_', "").ends_with("layernorm.weight");
    let centre = if is_norm { 1.0 } else { 0.0 };
    let value = |at: usize| centre + 0.4 * (0.37 * (at * at) as f64 + number as f64).sin();
    (0..numel).map(|at| value(at) as f32).collect()
}

/// A run without dropout on texts of at most so many tokens.
fn spec(trainable: Trainable, pooling: Pooling) -> RunSpec {
    let mut spec = text_spec(trainable, pooling);
    spec.model.dropout = 0.0;
    spec.task.input = TaskInput::Text { column: "text".into(), max_length: 12 };
    spec
}

#[test]
fn logits_are_those_of_transformers_whatever_is_trained() {
    let reference = reference();
    let everything = [0, 1, 2, 3];
    for (name, family) in &reference.families {
        let folder = tempfile::tempdir().unwrap();
        let config = family.write(folder.path());
        assert_eq!(config.model_type(), name);
        for (key, pooling) in [("cls", Pooling::Cls), ("mean", Pooling::Mean)] {
            for trainable in [Trainable::Head, Trainable::Last(1), Trainable::All] {
                let job = job(spec(trainable.clone(), pooling), Some(&config));
                let data = both(reference.data(Targets::Label(reference.labels.clone())));
                let mut trainer =
                    TorchTrainer::open(&job, Some(folder.path()), "site", data, Device::Cpu).unwrap();
                trainer.parameters.set(&family.start(&job)).unwrap();
                trainer.network.freeze(&mut trainer.train, &Unwatched).unwrap();
                let found = trainer.network.logits(&trainer.train, &everything, Mode::Inference).unwrap();
                let expected: Vec<f32> = family.logits[key].concat();
                let found = values(&found).unwrap();
                assert_eq!(found.len(), expected.len());
                let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-5, "{name}, {key}, {trainable}: {off}");
            }
        }
    }
}

#[test]
fn a_few_steps_of_training_everything_have_the_losses_of_transformers() {
    let reference = reference();
    let labels: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
    let column = "topic".to_owned();
    let rows = reference.multi_labels.concat();
    let tasks = [
        (
            "single_label_classification",
            Target::Label { column: column.clone(), labels: labels.clone() },
            Targets::Label(reference.labels.clone()),
        ),
        (
            "multi_label_classification",
            Target::Labels { column: column.clone(), separator: " ".into(), labels },
            Targets::Labels { width: 3, values: rows.iter().map(|has| *has == 1).collect() },
        ),
        (
            "regression",
            Target::Number(NumberTarget { column, mean: 0.0, std: 1.0 }),
            Targets::Number(reference.numbers.clone()),
        ),
    ];
    for (name, family) in &reference.families {
        let folder = tempfile::tempdir().unwrap();
        let config = family.write(folder.path());
        for (task, target, targets) in &tasks {
            let mut spec = spec(Trainable::All, Pooling::Cls);
            spec.task.target = target.clone();
            let data = reference.data(targets.clone());
            let off =
                reference.furthest_loss(family, spec, (folder.path(), &config), data, &family.losses[*task]);
            assert!(off < 1e-5, "{name}, {task}: {off}");
        }
    }
}

#[test]
fn a_few_steps_of_training_adapters_and_biases_have_the_losses_of_peft() {
    let reference = reference();
    for (name, family) in &reference.families {
        let folder = tempfile::tempdir().unwrap();
        let config = family.write(folder.path());
        for bias in [LoraBias::None, LoraBias::All, LoraBias::LoraOnly] {
            let mut spec = spec(Trainable::All, Pooling::Cls);
            let Reference { rank, alpha, .. } = reference;
            spec.model.lora = Some(Lora { rank, alpha, targets: Vec::new(), dropout: 0.0, bias });
            let data = reference.data(Targets::Label(reference.labels.clone()));
            let expected = &family.adapter_losses[bias.name()];
            let off = reference.furthest_loss(family, spec, (folder.path(), &config), data, expected);
            assert!(off < 1e-5, "{name}, {bias:?}: {off}");
        }
    }
}
