//! A BERT encoder small enough for nested loops, runs that train it, and observers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::RngExt;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::json;
use sheaf_common::blob::BlobId;
use sheaf_common::compression::Compression;
use sheaf_common::message::Job;
use sheaf_common::model::{ModelConfig, plan};
use sheaf_common::params::to_bytes;
use sheaf_common::run::*;
use sheaf_common::seed;
use sheaf_common::status::{Phase, Progress};
use tempfile::TempDir;

use crate::data::{Dataset, Inputs, Split, Targets};
use crate::trainer::torch::TorchTrainer;
use crate::trainer::{TrainError, Watch};

/// Values and shapes by canonical name.
pub(super) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(super) const ADAM: AdamSpec = AdamSpec { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
pub(super) const HIDDEN: usize = 32;
pub(super) const HEADS: usize = 4;
pub(super) const LAYERS: usize = 2;
pub(super) const EPSILON: f64 = 1e-6;
const INNER: usize = 48;
const WORDS: [&str; 12] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "oil", "rises", "wheat", "falls", "bank", "profit", "ship", "trade"];

/// A model folder and what is in it.
pub(super) struct TinyBert {
    pub(super) folder: TempDir,
    pub(super) tensors: Tensors,
}

impl TinyBert {
    /// Random weights; in the file their names begin with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        // Threads have nothing to share out in tensors so small, and wait for each other when tests run side by side.
        tch::set_num_threads(1);
        let folder = tempfile::tempdir().unwrap();
        let tensors = random_tensors();
        write(folder.path(), "config.json", &config());
        write(folder.path(), "tokenizer.json", &tokenizer());
        let bytes: Vec<_> = tensors.values().map(|(_, values)| to_bytes(values)).collect();
        let views = tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
            (format!("{prefix}{name}"), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        fs::write(folder.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap())
            .unwrap();
        Self { folder, tensors }
    }

    /// A job of `spec` on this model.
    pub(super) fn job(&self, spec: RunSpec) -> Job {
        let config = fs::read(self.folder.path().join("config.json")).unwrap();
        job(spec, Some(&ModelConfig::parse(&config).unwrap()))
    }

    /// The parameters of `job` as the file has them; the head's are random.
    pub(super) fn start(&self, job: &Job) -> Vec<f32> {
        let mut random = seed::stream(5, &["head"]);
        job.params
            .tensors
            .iter()
            .flat_map(|tensor| match self.tensors.get(&tensor.name) {
                Some((_, values)) => values.clone(),
                None => (0..tensor.numel()).map(|_| random.random_range(-0.5..0.5)).collect(),
            })
            .collect()
    }

    /// A trainer for `job`.
    pub(super) fn open(&self, job: &Job, site: &str, split: Split) -> Result<TorchTrainer, TrainError> {
        TorchTrainer::open(job, Some(self.folder.path()), site, split, tch::Device::Cpu)
    }

    /// Trained and frozen tensors together, with these `params` of `job`.
    pub(super) fn with(&self, job: &Job, params: &[f32]) -> Tensors {
        let mut all = self.tensors.clone();
        let mut rest = params;
        for tensor in &job.params.tensors {
            let (values, after) = rest.split_at(tensor.numel() as usize);
            let shape = tensor.shape.iter().map(|size| *size as usize).collect();
            all.insert(tensor.name.clone(), (shape, values.to_vec()));
            rest = after;
        }
        all
    }
}

fn config() -> serde_json::Value {
    json!({
        "model_type": "bert", "vocab_size": WORDS.len(), "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "intermediate_size": INNER, "max_position_embeddings": 16,
        "type_vocab_size": 2, "layer_norm_eps": EPSILON, "hidden_act": "gelu", "pad_token_id": 0,
    })
}

/// Like MiniLM's, it asks for padding and truncation of its own, which must not matter.
fn tokenizer() -> serde_json::Value {
    let vocab: BTreeMap<_, _> = WORDS.iter().enumerate().map(|(id, word)| (*word, id)).collect();
    let special = |id: usize| json!({"id": WORDS[id], "ids": [id], "tokens": [WORDS[id]]});
    json!({
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {
            "strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        },
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": special(2), "[SEP]": special(3)},
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    })
}

fn random_tensors() -> Tensors {
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_owned(), vec![WORDS.len(), HIDDEN]),
        ("embeddings.position_embeddings.weight".to_owned(), vec![16, HIDDEN]),
        ("embeddings.token_type_embeddings.weight".to_owned(), vec![2, HIDDEN]),
    ];
    let mut linear = |name: String, outputs: usize, inputs: usize| {
        let weight = if inputs == 1 { vec![outputs] } else { vec![outputs, inputs] };
        shapes.extend([(format!("{name}.weight"), weight), (format!("{name}.bias"), vec![outputs])]);
    };
    linear("embeddings.LayerNorm".into(), HIDDEN, 1);
    linear("pooler.dense".into(), HIDDEN, HIDDEN);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            linear(name(&format!("attention.{part}")), HIDDEN, HIDDEN);
        }
        linear(name("attention.output.LayerNorm"), HIDDEN, 1);
        linear(name("intermediate.dense"), INNER, HIDDEN);
        linear(name("output.dense"), HIDDEN, INNER);
        linear(name("output.LayerNorm"), HIDDEN, 1);
    }
    let mut random = seed::stream(4, &["tiny"]);
    let mut values = |name: &str, shape: &[usize]| {
        let centre = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
        (0..shape.iter().product()).map(|_| centre + random.random_range(-0.3..0.3)).collect()
    };
    shapes.into_iter().map(|(name, shape)| (name.clone(), (shape.clone(), values(&name, &shape)))).collect()
}

fn write(folder: &Path, file: &str, value: &serde_json::Value) {
    fs::write(folder.join(file), serde_json::to_vec(value).unwrap()).unwrap();
}

/// A run that trains `trainable` of an imported text model.
pub(super) fn text_spec(trainable: Trainable, pooling: Pooling) -> RunSpec {
    RunSpec {
        model: ModelSpec {
            source: ModelSource::Imported("tiny".into()),
            trainable,
            unfreeze: BTreeMap::new(),
            lora: None,
            pooling,
            dropout: 0.1,
            batch_norm: BatchNorm::Frozen,
        },
        task: Task {
            dataset: "news".into(),
            group: None,
            input: TaskInput::Text { column: "text".into(), max_length: 8 },
            target: label("topic", ["crude", "grain", "other"]),
        },
        ..table_spec(Vec::new(), Vec::new())
    }
}

fn label(column: &str, labels: [&str; 3]) -> Target {
    Target::Label { column: column.into(), labels: labels.map(str::to_owned).into() }
}

/// A run that trains a fresh perceptron.
pub(super) fn table_spec(features: Vec<Feature>, hidden: Vec<u64>) -> RunSpec {
    RunSpec {
        name: "tiny".parse().unwrap(),
        purpose: None,
        rounds: 4,
        seed: 11,
        secure_aggregation: SecureAggregation::Off,
        model: ModelSpec {
            source: ModelSource::Fresh(Architecture::Mlp(hidden)),
            trainable: Trainable::All,
            unfreeze: BTreeMap::new(),
            lora: None,
            pooling: Pooling::Mean,
            dropout: 0.1,
            batch_norm: BatchNorm::Frozen,
        },
        task: Task {
            dataset: "points".into(),
            group: None,
            input: TaskInput::Table { features },
            target: label("side", ["left", "right", "above"]),
        },
        training: Training {
            optimizer: Optimizer::AdamW(ADAM),
            learning_rate: 0.01,
            weight_decay: 0.01,
            batch_size: 2,
            local: LocalWork::Epochs(2),
            schedule: Schedule { kind: ScheduleKind::Linear, per: Per::Step, warmup_steps: 2 },
            max_grad_norm: Some(1.0),
            ..Training::default()
        },
        validation: Validation::default(),
        cohort: CohortSpec {
            sites: None,
            selection: Selection::All,
            min_sites: 1,
            min_updates: 1,
            round_timeout: Duration::from_secs(60),
            max_attempts: 1,
            max_examples: 1 << 20,
        },
        server: ServerSpec { learning_rate: 1.0 },
        compression: Compression::default(),
    }
}

/// The job of `spec` on a model with this `config`.
pub(super) fn job(spec: RunSpec, config: Option<&ModelConfig>) -> Job {
    let params = plan(&spec, config).unwrap();
    Job {
        spec,
        model: None,
        params,
        global: BlobId::of(b""),
        submitted_at: sheaf_common::time::Timestamp(0),
        author: None,
    }
}

/// Texts of four different lengths, one of them too long for the run, one with a word that the model lacks.
pub(super) fn news() -> Dataset {
    let texts = [
        "oil rises",
        "wheat falls oil falls wheat rises bank falls ship falls",
        "profit",
        "bank strike profit falls trade",
        "ship oil",
    ];
    Dataset {
        inputs: Inputs::Text(texts.map(str::to_owned).into()),
        targets: Targets::Label(vec![0, 1, 2, 2, 0]),
    }
}

/// Trained on and validated on the same.
pub(super) fn both(data: Dataset) -> Split {
    Split { train: data.clone(), validation: data }
}

/// Writes down what it is told, and calls the task off after so many reports.
pub(super) struct Recorder {
    pub(super) reports: RefCell<Vec<Progress>>,
    pub(super) patience: Cell<usize>,
}

impl Recorder {
    pub(super) fn new(patience: usize) -> Self {
        Self { reports: RefCell::default(), patience: Cell::new(patience) }
    }

    /// The reports of one phase.
    pub(super) fn of(&self, phase: Phase) -> Vec<(u64, u64)> {
        let reports = self.reports.borrow();
        reports
            .iter()
            .filter(|report| report.phase == phase)
            .map(|report| (report.done, report.total))
            .collect()
    }
}

impl Watch for Recorder {
    fn progress(&self, progress: Progress) {
        self.reports.borrow_mut().push(progress);
        self.patience.update(|left| left.saturating_sub(1));
    }
    fn is_cancelled(&self) -> bool {
        self.patience.get() == 0
    }
}
