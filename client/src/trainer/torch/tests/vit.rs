//! A tiny vision transformer of Hugging Face's against transformers and peft (`scripts/reference/vit.py`), and adapters, under
//! its names and timm's, against the sum that they stand for.

use std::collections::BTreeMap;
use std::fs;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use sheaf_common::message::Job;
use sheaf_common::model::config::with_pixels;
use sheaf_common::model::lora::factor_names;
use sheaf_common::model::{CONFIG_FILE, ModelConfig, WEIGHTS_FILE};
use sheaf_common::params::to_bytes;
use sheaf_common::run::*;
use tch::Device;
use tempfile::TempDir;

use super::fixture::{Tensors, both, job, text_spec};
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::torch::network::Mode;
use crate::trainer::torch::{TorchTrainer, training, values};
use crate::trainer::{Round, Unwatched};

const SIDE: usize = 16;
const ONE_ROUND: Round = Round { number: 1, of: 1 };
const TIMM: &str = r#"{"model_type": "timm_vit", "image_size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 20,
    "num_tokens": 5, "layer_norm_eps": 1e-6}"#;

#[derive(Deserialize)]
struct Reference {
    config: serde_json::Value,
    processor: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
    labels: Vec<u32>,
    logits: Vec<Vec<f32>>,
    learning_rate: f64,
    losses: Vec<f64>,
    rank: u32,
    alpha: f64,
    adapter_losses: Vec<f64>,
}

fn reference() -> Reference {
    tch::set_num_threads(1);
    serde_json::from_str(include_str!("../../../../tests/data/vit_reference.json")).unwrap()
}

impl Reference {
    /// The script's model, as it is imported.
    fn model(&self) -> Imported {
        let json = with_pixels(self.config.to_string().as_bytes(), self.processor.to_string().as_bytes());
        let shapes = self.tensors.iter().map(|(name, shape)| (name.clone(), shape.clone()));
        Imported::new(&String::from_utf8(json.unwrap()).unwrap(), waves(shapes.collect()))
    }

    fn lora(&self) -> Lora {
        let Self { rank, alpha, .. } = *self;
        Lora { rank, alpha, targets: Vec::new(), dropout: 0.0, bias: LoraBias::None }
    }

    /// The script's images.
    fn data(&self) -> Dataset {
        let value = |at: usize| (at * at * 7 % 251) as u8;
        let values = (0..2 * 3 * SIDE * SIDE).map(value).collect();
        Dataset {
            inputs: Inputs::Images { size: SIDE, values },
            targets: Targets::Label(self.labels.clone()),
        }
    }

    /// How far the losses of the script's steps are from those `expected`.
    fn furthest_loss(&self, lora: Option<Lora>, expected: &[f64]) -> f64 {
        let model = self.model();
        let (mut trainer, _) = model.open(self.spec(Trainable::All, lora), self.data());
        let mut found = Vec::new();
        training::train_and_tell(&mut trainer, ONE_ROUND, &Unwatched, |loss| found.push(loss)).unwrap();
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    fn spec(&self, trainable: Trainable, lora: Option<Lora>) -> RunSpec {
        let mut spec = text_spec(trainable, Pooling::Mean);
        spec.model.dropout = 0.0;
        spec.model.lora = lora;
        spec.task.input = TaskInput::Image { column: "scan".into(), size: None };
        let labels = ["a", "b", "c"].map(str::to_owned).into();
        spec.task.target = Target::Label { column: "finding".into(), labels };
        spec.training = Training {
            learning_rate: self.learning_rate,
            weight_decay: 0.0,
            batch_size: self.labels.len() as u32,
            local: LocalWork::Steps(self.losses.len() as u32),
            max_grad_norm: None,
            schedule: Schedule { kind: ScheduleKind::Constant, per: Per::Step, warmup_steps: 0 },
            ..spec.training
        };
        spec
    }
}

/// The script's values of its tensors, of which each has the number that its name has among all.
fn waves(shapes: BTreeMap<String, Vec<usize>>) -> Tensors {
    let numbered = shapes.into_iter().enumerate();
    let made = numbered.map(|(number, (name, shape))| {
        let centre = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
        let value = |at: usize| (centre + 0.4 * (0.37 * (at * at) as f64 + number as f64).sin()) as f32;
        let values = (0..shape.iter().product()).map(value).collect();
        (name, (shape, values))
    });
    made.collect()
}

/// A model's folder and its tensors by the names in it.
struct Imported {
    folder: TempDir,
    config: ModelConfig,
    tensors: Tensors,
}

impl Imported {
    fn new(config: &str, tensors: Tensors) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_FILE), config).unwrap();
        let bytes: Vec<_> = tensors.values().map(|(_, values)| to_bytes(values)).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        let file = safetensors::serialize(views, None).unwrap();
        fs::write(folder.path().join(WEIGHTS_FILE), file).unwrap();
        Self { folder, config: ModelConfig::parse(config.as_bytes()).unwrap(), tensors }
    }

    /// A model under timm's names, with a head.
    fn timm() -> Self {
        let ModelConfig::Image(image) = ModelConfig::parse(TIMM.as_bytes()).unwrap() else { panic!("a ViT") };
        let blocks = image.architecture.tensors(Some(3));
        let shape = |shape: &[u64]| shape.iter().map(|size| *size as usize).collect();
        Self::new(
            TIMM,
            waves(blocks.all().map(|tensor| (tensor.name.clone(), shape(&tensor.shape))).collect()),
        )
    }

    /// A trainer whose parameters are those of the file, and adapters by the script's formula.
    fn open(&self, spec: RunSpec, data: Dataset) -> (TorchTrainer, Job) {
        let job = job(spec, Some(&self.config));
        let path = Some(self.folder.path());
        let mut trainer = TorchTrainer::open(&job, path, "site", both(data), Device::Cpu).unwrap();
        let start = job.params.tensors.iter().flat_map(|tensor| {
            let factor = [".lora_A.", ".lora_B."].iter().position(|part| tensor.name.contains(part));
            match factor {
                Some(phase) => {
                    let value = |at: u64| (0.2 * (1.7 * at as f64 + phase as f64).sin()) as f32;
                    (0..tensor.numel()).map(value).collect()
                }
                None => self.tensors[&self.stored(&tensor.name)].1.clone(),
            }
        });
        trainer.parameters.set(&start.collect::<Vec<f32>>()).unwrap();
        (trainer, job)
    }

    /// The name in the file.
    fn stored(&self, name: &str) -> String {
        let prefixed = format!("vit.{name}");
        if self.tensors.contains_key(&prefixed) { prefixed } else { name.to_owned() }
    }
}

fn logits(trainer: &mut TorchTrainer) -> Vec<f32> {
    trainer.network.freeze(&mut trainer.train, &Unwatched).unwrap();
    values(&trainer.network.logits(&trainer.train, &[0, 1], Mode::Inference).unwrap()).unwrap()
}

fn furthest(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_transformers_whatever_is_trained() {
    let reference = reference();
    let model = reference.model();
    let patterns = ["attention\\.query", "^classifier"].map(str::to_owned).into();
    for trainable in [Trainable::Head, Trainable::Last(1), Trainable::All, Trainable::Matching(patterns)] {
        let (mut trainer, _) = model.open(reference.spec(trainable.clone(), None), reference.data());
        let off = furthest(&logits(&mut trainer), &reference.logits.concat());
        assert!(off < 1e-5, "{trainable}: {off}");
    }
}

#[test]
fn a_few_steps_of_training_everything_have_the_losses_of_transformers() {
    let reference = reference();
    let off = reference.furthest_loss(None, &reference.losses);
    assert!(off < 1e-5, "{off}");
}

#[test]
fn a_few_steps_of_training_adapters_have_the_losses_of_peft() {
    let reference = reference();
    let off = reference.furthest_loss(Some(reference.lora()), &reference.adapter_losses);
    assert!(off < 1e-5, "{off}");
}

#[test]
fn trained_adapters_add_their_product_to_the_weights_of_their_layers() {
    let reference = reference();
    for (model, adapted) in [(reference.model(), 2 * 2), (Imported::timm(), 2)] {
        let lora = Some(reference.lora());
        let (mut trainer, job) = model.open(reference.spec(Trainable::All, lora), reference.data());
        let before = logits(&mut trainer);
        training::train(&mut trainer, ONE_ROUND, &Unwatched).unwrap();
        let trained: BTreeMap<String, Vec<f32>> =
            trainer.parameters.named().map(|(name, part)| (name.to_owned(), values(part).unwrap())).collect();
        let after = logits(&mut trainer);
        assert!(furthest(&before, &after) > 1e-3);

        // W + alpha / rank B A, and the trained head.
        let (mut merged, mut sums) = (model.tensors.clone(), 0);
        for (name, (shape, weight)) in &mut merged {
            let own = name.strip_prefix("vit.").unwrap_or(name);
            let [a, b] = factor_names(own);
            if let Some(values) = trained.get(own) {
                weight.clone_from(values);
            } else if let (Some(a), Some(b)) = (trained.get(&a), trained.get(&b)) {
                let (rank, inputs) = (reference.rank as usize, shape[1]);
                sums += 1;
                for (at, value) in weight.iter_mut().enumerate() {
                    let (row, column) = (at / inputs, at % inputs);
                    let product: f32 =
                        (0..rank).map(|low| b[row * rank + low] * a[low * inputs + column]).sum();
                    *value += (reference.alpha / f64::from(reference.rank)) as f32 * product;
                }
            }
        }
        assert_eq!((sums, job.params.tensors.len()), (adapted, 2 * adapted + 2));
        let config = fs::read_to_string(model.folder.path().join(CONFIG_FILE)).unwrap();
        let merged = Imported::new(&config, merged);
        let (mut whole, _) = merged.open(reference.spec(Trainable::Head, None), reference.data());
        let off = furthest(&logits(&mut whole), &after);
        assert!(off < 1e-5, "{off}");
    }
}
