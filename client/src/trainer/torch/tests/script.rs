//! TorchScript modules against PyTorch, which made them (`scripts/reference/torchscript.py`), and those that do not work.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::PathBuf;

use serde::Deserialize;
use sheaf_common::blob::BlobId;
use sheaf_common::message::Job;
use sheaf_common::model::foreign::convert::{Conversion, Converted};
use sheaf_common::model::foreign::script::module;
use sheaf_common::model::{
    CONFIG_FILE, MODULE_FILE, ModelConfig, ScriptConfig, ScriptInput, WEIGHTS_FILE, Weights,
};
use sheaf_common::params::{ParamTensor, from_bytes};
use sheaf_common::run::*;
use tch::Device;
use tempfile::TempDir;

use super::fixture::{both, job, table_spec};
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::torch::network::Mode;
use crate::trainer::torch::{TorchTrainer, training, values};
use crate::trainer::{Round, TrainError, Trainer, Unwatched};

const ONE_ROUND: Round = Round { number: 1, of: 1 };

#[derive(Deserialize)]
struct Reference {
    learning_rate: f64,
    rows: Vec<f32>,
    labels: Vec<u32>,
    sets: Vec<u8>,
    numbers: Vec<f32>,
    pixels: Vec<u8>,
    of: BTreeMap<String, Trained>,
}

#[derive(Deserialize)]
struct Trained {
    logits: Vec<Vec<f32>>,
    losses: Vec<f64>,
    parameters: BTreeMap<String, Vec<f32>>,
}

fn reference() -> Reference {
    tch::set_num_threads(1);
    serde_json::from_str(include_str!("../../../../tests/data/torchscript_reference.json")).unwrap()
}

impl Reference {
    fn rows(&self, targets: Targets) -> Dataset {
        Dataset { inputs: Inputs::Table { width: 4, values: self.rows.clone() }, targets }
    }

    fn labelled_rows(&self) -> Dataset {
        self.rows(Targets::Label(self.labels.clone()))
    }

    /// The grey images as sites read images: in three equal channels.
    fn images(&self) -> Dataset {
        let values = self.pixels.chunks_exact(64).flat_map(|image| image.repeat(3)).collect();
        let labels = self.labels.iter().map(|label| label % 2).collect();
        Dataset { inputs: Inputs::Images { size: 8, values }, targets: Targets::Label(labels) }
    }
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/torchscript/{name}.pt"))
}

/// A module's folder, as `sheaf model import` makes it.
struct Imported {
    folder: TempDir,
    config: ModelConfig,
}

impl Imported {
    fn new(name: &str, input: ScriptInput, outputs: u64) -> Self {
        let mut source = File::open(file(name)).unwrap();
        let module = module(&mut source, fs::metadata(file(name)).unwrap().len()).unwrap();
        let tensor = |p: &sheaf_common::model::foreign::ForeignTensor| ParamTensor {
            name: p.name.clone(),
            shape: p.shape.clone(),
        };
        let (parameters, has_statistics) =
            (module.parameters.iter().map(tensor).collect(), module.has_statistics);
        let config = ScriptConfig { input, outputs, labels: Vec::new(), has_statistics, parameters };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG_FILE), config.to_json()).unwrap();
        fs::copy(file(name), folder.path().join(MODULE_FILE)).unwrap();
        let conversion = Conversion::new(module.parameters.into_iter().map(Converted::from).collect());
        let mut out = File::create_new(folder.path().join(WEIGHTS_FILE)).unwrap();
        conversion.write(&mut source, &mut out, &mut |_| ()).unwrap();
        Self { folder, config: ModelConfig::Script(config) }
    }

    fn rows(name: &str, outputs: u64) -> Self {
        Self::new(name, ScriptInput::Table { width: 4 }, outputs)
    }

    fn grey() -> Self {
        Self::new("image", ScriptInput::Image { size: 8, mean: vec![0.5], std: vec![0.25] }, 2)
    }

    /// The parameters of `job` as they were imported.
    fn start(&self, job: &Job) -> Vec<f32> {
        let bytes = fs::read(self.folder.path().join(WEIGHTS_FILE)).unwrap();
        let weights = Weights::parse(&bytes, bytes.len() as u64).unwrap();
        let of = |tensor: &ParamTensor| {
            let stored = weights.require(&tensor.name, &tensor.shape).unwrap();
            from_bytes(&bytes[stored.offset as usize..][..stored.bytes as usize])
        };
        job.params.tensors.iter().flat_map(of).collect()
    }

    /// At a site that lists the module.
    fn open(&self, job: &Job, data: Dataset) -> Result<TorchTrainer, TrainError> {
        let hash = BlobId::of(&fs::read(self.folder.path().join(MODULE_FILE)).unwrap());
        let allowed = [hash].into();
        let folder = Some(self.folder.path());
        TorchTrainer::open_allowing(job, folder, "site", both(data), Device::Cpu, &allowed)
    }

    fn opened(&self, job: &Job, data: Dataset) -> TorchTrainer {
        let mut trainer = self.open(job, data).unwrap();
        trainer.parameters.set(&self.start(job)).unwrap();
        trainer
    }
}

/// A run like the script's: all examples in a step, plain AdamW.
fn spec(reference: &Reference, steps: usize, target: Option<Target>) -> RunSpec {
    let feature = |column: &str| Feature {
        column: column.into(),
        kind: FeatureKind::Numeric { mean: 0.0, std: 1.0 },
        missing: Vec::new(),
    };
    let mut spec = table_spec(vec![feature("x"), feature("y")], Vec::new());
    spec.model.source = ModelSource::Imported("own".into());
    spec.model.dropout = 0.0;
    spec.task.target = target.unwrap_or(spec.task.target);
    spec.training = Training {
        learning_rate: reference.learning_rate,
        weight_decay: 0.0,
        batch_size: 6,
        local: LocalWork::Steps(steps as u32),
        max_grad_norm: None,
        schedule: Schedule { kind: ScheduleKind::Constant, per: Per::Step, warmup_steps: 0 },
        ..spec.training
    };
    spec
}

fn image_spec(reference: &Reference, steps: usize) -> RunSpec {
    let labels = ["none", "some"].map(str::to_owned).into();
    let mut spec = spec(reference, steps, Some(Target::Label { column: "label".into(), labels }));
    spec.task.input = TaskInput::Image { column: "image".into(), size: None };
    spec
}

fn furthest(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Logits, losses of each step and what is left of the parameters.
fn assert_as_pytorch(name: &str, imported: &Imported, spec: RunSpec, data: Dataset) {
    let expected = &reference().of[name];
    let job = job(spec, Some(&imported.config));
    let mut trainer = imported.opened(&job, data);
    let logits = trainer.network.logits(&trainer.train, &[0, 1, 2, 3, 4, 5], Mode::Inference).unwrap();
    let logits = furthest(&values(&logits).unwrap(), &expected.logits.concat());
    let mut losses = Vec::new();
    training::train_and_tell(&mut trainer, ONE_ROUND, &Unwatched, |loss| losses.push(loss)).unwrap();
    assert_eq!(losses.len(), expected.losses.len());
    let loss = losses.iter().zip(&expected.losses).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let left: Vec<f32> =
        job.params.tensors.iter().flat_map(|t| expected.parameters[&t.name].clone()).collect();
    let left = furthest(&trainer.parameters.values().unwrap(), &left);
    println!("{name}: logits off by {logits:.1e}, losses by {loss:.1e}, parameters by {left:.1e}");
    assert!(logits < 1e-6 && loss < 1e-6 && left < 1e-5, "{name}: {logits}, {loss}, {left}");
}

#[test]
fn modules_compute_and_train_as_in_pytorch() {
    let reference = reference();
    let steps = reference.of["table"].losses.len();
    let labels = ["left", "right", "above"].map(str::to_owned).into();
    let sets = Target::Labels { column: "sides".into(), separator: ";".into(), labels };
    let number = Target::Number(NumberTarget { column: "z".into(), mean: 0.0, std: 1.0 });

    let table = Imported::rows("table", 3);
    assert_as_pytorch("table", &table, spec(&reference, steps, None), reference.labelled_rows());
    let has = Targets::Labels { width: 3, values: reference.sets.iter().map(|has| *has == 1).collect() };
    assert_as_pytorch("table-multi-label", &table, spec(&reference, steps, Some(sets)), reference.rows(has));
    let numbers = reference.rows(Targets::Number(reference.numbers.clone()));
    assert_as_pytorch("traced", &Imported::rows("traced", 1), spec(&reference, steps, Some(number)), numbers);
    assert_as_pytorch("image", &Imported::grey(), image_spec(&reference, steps), reference.images());
}

#[test]
fn a_run_changes_only_what_it_trains() {
    let reference = reference();
    let imported = Imported::rows("table", 3);
    let mut spec = spec(&reference, 3, None);
    spec.model.trainable = Trainable::Matching(vec!["^head".into()]);
    let job = job(spec, Some(&imported.config));
    assert_eq!(job.params.tensors.len(), 2);
    let mut trainer = imported.opened(&job, reference.labelled_rows());
    let logits = trainer.network.logits(&trainer.train, &[0, 1, 2, 3, 4, 5], Mode::Inference).unwrap();
    // What is frozen is as it was imported, or these would be others.
    assert!(furthest(&values(&logits).unwrap(), &reference.of["table"].logits.concat()) < 1e-6);
    let start = imported.start(&job);
    let trained = trainer.train(start.clone(), ONE_ROUND, &Unwatched).unwrap().params;
    assert!(start.iter().zip(&trained).all(|(before, after)| before != after));
}

#[test]
fn dropout_is_the_module_s_own_and_follows_from_the_seed() {
    let reference = reference();
    let imported = Imported::rows("dropping", 3);
    let trained = |seed| {
        let job = job(RunSpec { seed, ..spec(&reference, 4, None) }, Some(&imported.config));
        let mut trainer = imported.opened(&job, reference.labelled_rows());
        trainer.train(imported.start(&job), ONE_ROUND, &Unwatched).unwrap().params
    };
    assert_eq!(trained(1), trained(1));
    assert_ne!(trained(1), trained(2));
    let job = job(spec(&reference, 4, None), Some(&imported.config));
    let mut trainer = imported.opened(&job, reference.labelled_rows());
    let start = imported.start(&job);
    trainer.train(start.clone(), ONE_ROUND, &Unwatched).unwrap();
    let counts = trainer.evaluate(&start, &Unwatched).unwrap();
    assert_eq!(counts, trainer.evaluate(&start, &Unwatched).unwrap());
    let fresh = imported.opened(&job, reference.labelled_rows()).evaluate(&start, &Unwatched).unwrap();
    assert_eq!(counts, fresh);
}

#[test]
fn a_module_that_is_not_listed_is_not_loaded() {
    let reference = reference();
    let imported = Imported::rows("table", 3);
    let job = job(spec(&reference, 1, None), Some(&imported.config));
    let hash = BlobId::of(&fs::read(file("table")).unwrap());
    let another: BTreeSet<BlobId> = [BlobId::of(b"another")].into();
    for allowed in [BTreeSet::new(), another] {
        let data = both(reference.labelled_rows());
        let folder = Some(imported.folder.path());
        let error = TorchTrainer::open_allowing(&job, folder, "site", data, Device::Cpu, &allowed).map(drop);
        let error = error.unwrap_err();
        assert!(matches!(&error, TrainError::Unlisted(found) if *found == hash), "{error}");
        assert!(error.for_operator().contains(&hash.to_string()), "{error}");
    }
}

#[test]
fn a_module_that_is_not_what_its_folder_says_or_does_not_work_has_a_sentence() {
    let reference = reference();
    let refusal = |imported: &Imported| {
        let job = job(spec(&reference, 1, None), Some(&imported.config));
        let outcome = imported.open(&job, reference.labelled_rows());
        outcome
            .and_then(|mut trainer| trainer.evaluate(&imported.start(&job), &Unwatched))
            .unwrap_err()
            .to_string()
    };
    let exchanged = Imported::rows("table", 3);
    fs::copy(file("dropping"), exchanged.folder.path().join(MODULE_FILE)).unwrap();
    let said = refusal(&exchanged);
    assert!(
        said.contains("model.pt has another parameter `again` than the model's config.json, or none"),
        "{said}"
    );
    let damaged = Imported::rows("table", 3);
    fs::write(damaged.folder.path().join(MODULE_FILE), b"PK\x03\x04").unwrap();
    assert!(refusal(&damaged).contains("the TorchScript module failed"), "{}", refusal(&damaged));
    let said = refusal(&Imported::rows("raising", 3));
    assert!(said.contains("this module never works"), "{said}");
    let said = refusal(&Imported::rows("pair", 3));
    assert!(said.contains("the TorchScript module failed: forward did not return a tensor"), "{said}");
    // The module gives one value, where the folder says three.
    let said = refusal(&Imported::rows("traced", 3));
    assert!(
        said.contains("gives Float of the shape [6, 1], and must give floats of the shape [6, 3]"),
        "{said}"
    );
}
