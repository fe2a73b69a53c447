//! ResNets, EfficientNet-Lite0 and a vision transformer against torchvision and timm (`scripts/reference/vision.py`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Instant;

use sheaf_common::model::foreign::kind::Kind;
use sheaf_common::model::foreign::{ForeignTensor, Format, Index, torch};
use sheaf_common::model::vision::{Image, is_statistic};
use sheaf_common::model::{CONFIG_FILE, ModelConfig, WEIGHTS_FILE};
use sheaf_common::params::{ParamSpec, ParamTensor, to_bytes};
use sheaf_common::run::*;
use tch::{Device, Kind as Type, Tensor};
use tempfile::TempDir;

use super::fixture::text_spec;
use super::minilm::cached;
use crate::data::Targets;
use crate::trainer::batches::Batches;
use crate::trainer::torch::network::{Mode, Network};
use crate::trainer::torch::parameters::Parameters;
use crate::trainer::torch::prepared::Prepared;
use crate::trainer::torch::ragged::Ragged;
use crate::trainer::torch::source::Source;
use crate::trainer::torch::{TorchTrainer, training, values, vision};
use crate::trainer::{Local, Round, Unwatched};

const SITE: &str = "site";
const ONE_ROUND: Round = Round { number: 1, of: 1 };

#[derive(serde::Deserialize)]
struct Reference {
    training: Steps,
    counting: Counting,
    #[serde(flatten)]
    logits: BTreeMap<String, Vec<Vec<f32>>>,
}

#[derive(serde::Deserialize)]
struct Steps {
    batch_size: u32,
    side: usize,
    learning_rate: f64,
    momentum: f64,
    weight_decay: f64,
    losses: Vec<f64>,
}

/// Steps in which batch normalisation counts.
#[derive(serde::Deserialize)]
struct Counting {
    batch_size: u32,
    learning_rate: f64,
    #[serde(flatten)]
    nets: BTreeMap<String, Counted>,
}

#[derive(serde::Deserialize)]
struct Counted {
    losses: Vec<f64>,
    /// Of each tensor of statistics the value in its middle.
    counted: BTreeMap<String, f32>,
    /// Of the trained model.
    logits: Vec<Vec<f32>>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../../../tests/data/vision_reference.json")).unwrap()
}

/// The script's `uniform`.
fn uniform(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = name.bytes().fold(0u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    (0..count).map(move |at| {
        let mut x = (at as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
        x = (x ^ (x >> 15)).wrapping_mul(2_246_822_519);
        x = (x ^ (x >> 13)).wrapping_mul(3_266_489_917);
        f64::from(x ^ (x >> 16)) / (f64::from(u32::MAX) + 1.0)
    })
}

/// The script's `made`.
fn made(name: &str, shape: &[u64]) -> Vec<f32> {
    let values = uniform(name, shape.iter().product::<u64>() as usize);
    let inputs = shape[1..].iter().product::<u64>() as f64;
    let is_scale = name.ends_with("weight") || name.ends_with("running_var");
    let of = |value: f64| match shape.len() {
        1 if is_scale => value + 0.5,
        1 => 0.2 * (value - 0.5),
        _ => (value - 0.5) * 2.0 * (3.0 / inputs).sqrt(),
    };
    values.map(|value| of(value) as f32).collect()
}

/// The script's `images`, `[count, 3, side, side]`.
fn images(count: usize, side: usize) -> Tensor {
    let values: Vec<f32> =
        uniform(&format!("images {side}"), count * 3 * side * side).map(|v| v as f32).collect();
    Tensor::from_slice(&values).view([count as i64, 3, side as i64, side as i64])
}

/// A model's folder, as `sheaf model import` makes it, and what its file of weights held.
struct Imported {
    folder: TempDir,
    image: Image,
    head: BTreeMap<String, Vec<f32>>,
}

impl Imported {
    /// Converts a file of weights.
    fn new(kind: Kind, file: &mut File, index: &Index, head: BTreeMap<String, Vec<f32>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (image, conversion) = kind.convert(index).unwrap();
        let mut out = File::create_new(folder.path().join(WEIGHTS_FILE)).unwrap();
        conversion.write(file, &mut out, &mut |_| ()).unwrap();
        let json = serde_json::to_vec(&image).unwrap();
        assert_eq!(ModelConfig::parse(&json).unwrap(), ModelConfig::Image(image.clone()));
        fs::write(folder.path().join(CONFIG_FILE), json).unwrap();
        Self { folder, image, head }
    }

    /// A model of the script's values, with a head of so many labels.
    fn made(kind: Kind, labels: u64, shape_of: &Image) -> Self {
        let (mut bytes, mut tensors) = (Vec::new(), Vec::new());
        let blocks = shape_of.architecture.tensors(Some(labels));
        for tensor in blocks.all() {
            let values = to_bytes(&made(&tensor.name, &tensor.shape));
            let (name, shape) = (tensor.name.clone(), tensor.shape.clone());
            let (offset, format) = (bytes.len() as u64, Format::F32);
            let bytes_of = values.len() as u64;
            tensors.push(ForeignTensor { name, shape, format, offset, bytes: bytes_of, strides: None });
            bytes.extend(values);
        }
        let index = Index::new(tensors, bytes.len() as u64).unwrap();
        let head = blocks.head.iter().map(|t| (t.name.clone(), made(&t.name, &t.shape))).collect();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        Self::new(kind, &mut file, &index, head)
    }

    /// The real EfficientNet-Lite0, read from its state dict.
    fn lite0() -> Self {
        let path = cached("efficientnet-lite0").join("efficientnet-lite0.pth");
        let mut file = File::open(&path).unwrap();
        let bytes = file.metadata().unwrap().len();
        let index = torch::index(&mut file, bytes).unwrap();
        let all = fs::read(path).unwrap();
        let head = ["weight", "bias"].map(|part| {
            let tensor = index.tensor(&format!("_fc.{part}")).unwrap();
            let mut values = Vec::new();
            let start = tensor.offset as usize;
            tensor.format.decode(&all[start..start + tensor.bytes as usize], &mut values);
            (format!("classifier.{part}"), tensor.row_major(values))
        });
        Self::new(Kind::EfficientNetLite0, &mut file, &index, head.into())
    }

    /// The script's `lite0_with_new_head`.
    fn lite0_with_new_head() -> Self {
        let weight = ("classifier.weight".to_owned(), made("classifier.weight", &[2, 1280]));
        let head = [weight, ("classifier.bias".into(), vec![0.0; 2])].into();
        Self { head, ..Self::lite0() }
    }

    /// A network that trains the head or all of it, and its parameters.
    fn open(&self, labels: u64, head_alone: bool, precision: Precision) -> (Network, Parameters) {
        let blocks = self.image.architecture.tensors(Some(labels));
        let all = if head_alone { blocks.head.clone() } else { blocks.all().cloned().collect() };
        let tensors = all.into_iter().filter(|tensor| !is_statistic(&tensor.name)).collect();
        self.training(labels, tensors, precision)
    }

    /// A network that trains all of it and counts.
    fn open_counting(&self, labels: u64) -> (Network, Parameters) {
        let blocks = self.image.architecture.tensors(Some(labels));
        let (counted, mut tensors): (Vec<_>, Vec<_>) =
            blocks.all().cloned().partition(|tensor| is_statistic(&tensor.name));
        tensors.extend(counted);
        self.training(labels, tensors, Precision::F32)
    }

    /// A network of which `tensors` travel, and its parameters.
    fn training(
        &self,
        labels: u64,
        tensors: Vec<ParamTensor>,
        precision: Precision,
    ) -> (Network, Parameters) {
        let spec = ParamSpec { tensors };
        let mut parameters = Parameters::zeros(spec.clone(), ParamSpec::default(), Device::Cpu).unwrap();
        let mut source =
            Source::open(&parameters, Some(self.folder.path()), None, precision, Device::Cpu).unwrap();
        let stages = vision::stages(&mut source, &self.image, labels, Device::Cpu).unwrap();
        parameters.set(&self.start(&spec)).unwrap();
        (Network::new(stages, Device::Cpu), parameters)
    }

    /// The imported values of the parameters.
    fn start(&self, spec: &ParamSpec) -> Vec<f32> {
        let bytes = fs::read(self.folder.path().join(WEIGHTS_FILE)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let of = |name: &str| match self.head.get(name) {
            Some(values) => values.clone(),
            None => sheaf_common::params::from_bytes(file.tensor(name).unwrap().data()),
        };
        spec.tensors.iter().flat_map(|tensor| of(&tensor.name)).collect()
    }
}

fn prepared(images: Tensor, labels: Vec<u32>) -> Prepared {
    let examples = labels.len();
    Prepared {
        features: Ragged::new(images, std::iter::repeat_n(1, examples)),
        stage: 0,
        targets: Targets::Label(labels),
        augment: None,
    }
}

fn furthest(found: &Tensor, expected: &[Vec<f32>]) -> f32 {
    let (found, expected) = (values(found).unwrap(), expected.concat());
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Logits of the script's images, where everything is trained and where all but the head is frozen.
fn assert_logits(name: &str, imported: &Imported, labels: u64, side: usize) {
    let expected = &reference().logits[name];
    for head_alone in [false, true] {
        let found = logits(imported, labels, side, head_alone, Precision::F32);
        let off = furthest(&found, expected);
        println!("{name}, head alone {head_alone}: off by {off:.1e}");
        assert!(off < 1e-4, "{name} is off by {off}");
    }
}

fn logits(imported: &Imported, labels: u64, side: usize, head_alone: bool, precision: Precision) -> Tensor {
    let (network, _parameters) = imported.open(labels, head_alone, precision);
    let mut data = prepared(images(2, side), vec![0; 2]);
    network.freeze(&mut data, &Unwatched).unwrap();
    assert_eq!(data.stage > 0, head_alone);
    network.logits(&data, &[0, 1], Mode::Inference).unwrap()
}

/// A vision transformer's shapes, which its kind reads from its weights.
const VIT_TINY: &str = r#"{"model_type": "timm_vit", "image_size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
    "patch_size": 16, "hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3, "intermediate_size": 768,
    "num_tokens": 197, "layer_norm_eps": 1e-6}"#;

fn resnet(block: &str, depths: [u64; 4]) -> Image {
    serde_json::from_value(serde_json::json!({
        "model_type": "torchvision_resnet", "image_size": 224, "mean": [0, 0, 0], "std": [1, 1, 1], "block": block,
        "depths": depths, "widths": [64, 128, 256, 512], "batch_norm_eps": 1e-5,
    }))
    .unwrap()
}

#[test]
fn resnets_are_those_of_torchvision() {
    let kinds = [
        ("resnet18", Kind::ResNet18, resnet("basic", [2, 2, 2, 2])),
        ("resnet34", Kind::ResNet34, resnet("basic", [3, 4, 6, 3])),
        ("resnet50", Kind::ResNet50, resnet("bottleneck", [3, 4, 6, 3])),
    ];
    for (name, kind, shapes) in kinds {
        assert_logits(name, &Imported::made(kind, 8, &shapes), 8, 64);
    }
}

#[test]
fn a_vision_transformer_is_that_of_timm() {
    let shapes: Image = serde_json::from_str(VIT_TINY).unwrap();
    let imported = Imported::made(Kind::Vit, 8, &shapes);
    assert_eq!(imported.image, shapes);
    assert_logits("vit", &imported, 8, 224);
}

#[test]
fn the_real_efficientnet_lite0_is_that_of_timm() {
    assert_logits("efficientnet-lite0", &Imported::lite0(), 1000, 224);
}

#[test]
fn products_in_bf16_are_those_of_autocast() {
    let vit: Image = serde_json::from_str(VIT_TINY).unwrap();
    let resnet18 = Imported::made(Kind::ResNet18, 8, &resnet("basic", [2, 2, 2, 2]));
    let models = [
        ("resnet18", resnet18, 8, 64),
        ("vit", Imported::made(Kind::Vit, 8, &vit), 8, 224),
        ("efficientnet-lite0", Imported::lite0(), 1000, 224),
    ];
    for (name, imported, labels, side) in models {
        let found = logits(&imported, labels, side, false, Precision::Bf16);
        let reference = reference().logits;
        let [off, from_f32] = [&reference[&format!("{name} in bf16")], &reference[name]]
            .map(|expected| furthest(&found, expected));
        println!("{name}: off by {off:.1e}, and from f32 by {from_f32:.1e}");
        assert!(off < 0.2 * from_f32, "{name} is off by {off}, and from f32 by {from_f32}");
    }
}

#[test]
fn grey_bytes_are_three_equal_channels_of_floats() {
    let imported = Imported::made(Kind::ResNet18, 8, &resnet("basic", [2, 2, 2, 2]));
    let (network, _parameters) = imported.open(8, false, Precision::F32);
    let grey = (images(2, 64).narrow(1, 0, 1) * 255.0).to_kind(Type::Uint8);
    let colour = (grey.to_kind(Type::Float) / 255.0).repeat([1, 3, 1, 1]);
    let logits = |images| network.logits(&prepared(images, vec![0; 2]), &[0, 1], Mode::Inference).unwrap();
    let expected = vec![values(&logits(colour)).unwrap()];
    assert!(furthest(&logits(grey), &expected) < 1e-5);
}

#[test]
fn fifty_steps_of_efficientnet_lite0_have_the_losses_of_pytorch() {
    let Steps { batch_size, side, learning_rate, momentum, weight_decay, losses: expected } =
        reference().training;
    let imported = Imported::lite0_with_new_head();
    let (network, parameters) = imported.open(2, false, Precision::F32);
    let mut spec = text_spec(Trainable::All, Pooling::Mean);
    spec.model.dropout = 0.0;
    let labels = ["even", "odd"].map(str::to_owned).into();
    spec.task.target = Target::Label { column: "parity".into(), labels };
    spec.training = Training {
        optimizer: Optimizer::Sgd { momentum, nesterov: false },
        learning_rate,
        weight_decay,
        batch_size,
        local: LocalWork::Epochs(1),
        ..Training::default()
    };

    let places = places(&spec, expected.len() * batch_size as usize);
    let labels: Vec<u32> = places.iter().map(|example| (example % 2) as u32).collect();
    let odd: Vec<f32> = labels.iter().map(|label| *label as f32).collect();
    let brighter = Tensor::from_slice(&odd).view([-1, 1, 1, 1]) * 0.1;
    let pixels = images(places.len(), side).index_select(0, &Tensor::from_slice(&places)) * 0.9 + brighter;
    let mut trainer = trainer(&imported, (network, parameters), spec, prepared(pixels, labels));
    let (mut losses, mut times, mut since) = (Vec::new(), Vec::new(), Instant::now());
    training::train_and_tell(&mut trainer, ONE_ROUND, &Unwatched, |loss| {
        losses.push(loss);
        times.push(since.elapsed());
        since = Instant::now();
    })
    .unwrap();
    let furthest = furthest_loss(&losses, &expected);
    times.sort();
    println!("furthest loss: {furthest:.1e}; median {:?} a step", times[times.len() / 2]);
    assert!(furthest < 1e-3, "the losses are off by {furthest}: {losses:?}");
}

/// Where each example of a data set lies, so that the site's own order is the script's.
fn places(spec: &RunSpec, count: usize) -> Vec<i64> {
    let batches = Batches::new(&spec.training, count);
    let order = batches.of_round(spec.seed, SITE, ONE_ROUND.number, Sampling::Shuffle, &[]).flatten();
    let mut places = vec![0i64; count];
    order.zip(0..).for_each(|(place, example)| places[place] = example);
    places
}

fn trainer(
    imported: &Imported,
    (network, parameters): (Network, Parameters),
    spec: RunSpec,
    train: Prepared,
) -> TorchTrainer {
    let blocks = imported.image.architecture.tensors(Some(2));
    TorchTrainer {
        spec,
        site: SITE.into(),
        device: Device::Cpu,
        depths: blocks.depths(parameters.spec()),
        parameters,
        imported: Local::new(),
        network,
        tokens: None,
        train,
        validation: prepared(images(1, 8), vec![0]),
    }
}

fn furthest_loss(losses: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(losses.len(), expected.len());
    losses.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max)
}

#[test]
fn batch_normalisation_counts_as_in_pytorch() {
    let Reference { counting, training: Steps { side, .. }, .. } = reference();
    let nets = [
        ("resnet18", Imported::made(Kind::ResNet18, 2, &resnet("basic", [2, 2, 2, 2]))),
        ("efficientnet-lite0", Imported::lite0_with_new_head()),
    ];
    for (name, imported) in nets {
        let expected = &counting.nets[name];
        let mut spec = text_spec(Trainable::All, Pooling::Mean);
        spec.model.dropout = 0.0;
        let labels = ["even", "odd"].map(str::to_owned).into();
        spec.task.target = Target::Label { column: "parity".into(), labels };
        spec.training = Training {
            optimizer: Optimizer::Sgd { momentum: 0.0, nesterov: false },
            learning_rate: counting.learning_rate,
            batch_size: counting.batch_size,
            local: LocalWork::Epochs(1),
            ..Training::default()
        };
        let places = places(&spec, expected.losses.len() * counting.batch_size as usize);
        let labels = places.iter().map(|example| (example % 2) as u32).collect();
        let pixels = images(places.len(), side).index_select(0, &Tensor::from_slice(&places));
        let mut trainer = trainer(&imported, imported.open_counting(2), spec, prepared(pixels, labels));
        let mut losses = Vec::new();
        training::train_and_tell(&mut trainer, ONE_ROUND, &Unwatched, |loss| losses.push(loss)).unwrap();
        let off = furthest_loss(&losses, &expected.losses);
        let counted: BTreeMap<&str, Vec<f32>> =
            trainer.parameters.named().map(|(name, part)| (name, values(part).unwrap())).collect();
        let mut most = 0.0f32;
        for (name, expected) in &expected.counted {
            let found = counted[name.as_str()][counted[name.as_str()].len() / 2];
            most = most.max((found - expected).abs() / expected.abs().max(1.0));
        }
        let data = prepared(images(2, side), vec![0; 2]);
        let logits = trainer.network.logits(&data, &[0, 1], Mode::Inference).unwrap();
        let apart = furthest(&logits, &expected.logits);
        println!("{name}: losses off by {off:.1e}, statistics by {most:.1e}, logits by {apart:.1e}");
        assert!(off < 1e-3 && most < 1e-3 && apart < 1e-3, "{name}: {off}, {most}, {apart}");
    }
}
