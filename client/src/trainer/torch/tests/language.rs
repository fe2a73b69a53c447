//! Decoders against Hugging Face's transformers and peft (`scripts/reference/language.py`): tiny ones in full, and the
//! real SmolLM2 from its GGUF file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Deserialize;
use serde_json::json;
use sheaf_common::metrics::{Counts, Kind, Report};
use sheaf_common::model::ModelConfig;
use sheaf_common::model::foreign::gguf::{Gguf, HEADER_MAX};
use sheaf_common::params::to_bytes;
use sheaf_common::run::*;
use tch::Device;

use super::fixture::{ADAM, both, job, text_spec};
use super::minilm::cached;
use crate::data::{Dataset, Inputs, Targets};
use crate::trainer::batches::Batches;
use crate::trainer::torch::network::Mode;
use crate::trainer::torch::{TorchTrainer, training, values};
use crate::trainer::{Round, Trainer, Unwatched};

const SITE: &str = "site";
const ONE_ROUND: Round = Round { number: 1, of: 1 };

#[derive(Deserialize)]
struct Reference {
    every: usize,
    texts: Vec<Text>,
    tiny_llama: Tiny,
    tiny_gpt2: Tiny,
    tuning: Tuning,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    tokens: Vec<i64>,
    largest: f32,
    logits: BTreeMap<usize, Vec<f32>>,
}

#[derive(Deserialize)]
struct Tiny {
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
    ids: Vec<Vec<i64>>,
    logits: Vec<Vec<f32>>,
    losses: Vec<f64>,
}

#[derive(Deserialize)]
struct Tuning {
    template: String,
    pairs: Vec<(String, String)>,
    batch_size: u32,
    max_length: u32,
    learning_rate: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    rank: u32,
    alpha: f64,
    losses: Vec<f64>,
}

fn reference() -> Reference {
    serde_json::from_str(include_str!("../../../../tests/data/language_reference.json")).unwrap()
}

/// A run that learns to go on with texts of at most so many tokens.
fn language_spec(trainable: Trainable, max_length: u32) -> RunSpec {
    let mut spec = text_spec(trainable, Pooling::Mean);
    spec.model.dropout = 0.0;
    spec.task.input = TaskInput::Text { column: "text".into(), max_length };
    spec.task.target = Target::NextToken { answer: None, template: "{text}".into() };
    spec
}

fn texts(texts: Vec<String>) -> Dataset {
    Dataset { targets: Targets::Inputs(texts.len()), inputs: Inputs::Text(texts) }
}

fn config_of(folder: &Path) -> ModelConfig {
    ModelConfig::parse(&fs::read(folder.join("config.json")).unwrap()).unwrap()
}

fn furthest(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

impl Tiny {
    /// Writes the model: the values of the script's formula, and a tokenizer of which token `t7` is 7.
    fn write(&self, folder: &Path) {
        fs::write(folder.join("config.json"), self.config.to_string()).unwrap();
        let vocab: BTreeMap<String, usize> = (0..50).map(|id| (format!("t{id}"), id)).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"},
        });
        fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let values: Vec<Vec<u8>> = (0..)
            .zip(&self.tensors)
            .map(|(number, (name, shape))| {
                let is_norm = name.contains("norm") || name.contains(".ln_");
                let centre = if is_norm && name.ends_with("weight") { 1.0 } else { 0.0 };
                let numel: usize = shape.iter().product();
                let wave = |at: usize| centre + (0.4 * (1.7 * at as f64 + f64::from(number)).sin()) as f32;
                to_bytes(&(0..numel).map(wave).collect::<Vec<f32>>())
            })
            .collect();
        let views = self.tensors.iter().zip(&values).map(|((name, shape), values)| {
            (
                name,
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), values).unwrap(),
            )
        });
        fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    }

    /// The texts of which the ids are the script's; the last id is the end that every text gets.
    fn texts(&self) -> Dataset {
        let text = |ids: &Vec<i64>| {
            ids[..ids.len() - 1].iter().map(|id| format!("t{id}")).collect::<Vec<_>>().join(" ")
        };
        texts(self.ids.iter().map(text).collect())
    }
}

/// The trained part of a model as its file has it; an adapter's `A` is 0.1 and its `B` 0.
fn start(job: &sheaf_common::message::Job, folder: &Path) -> Vec<f32> {
    let bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let of = |tensor: &sheaf_common::params::ParamTensor| {
        let stored = [tensor.name.clone(), format!("transformer.{}", tensor.name)];
        match stored.iter().find_map(|name| file.tensor(name).ok()) {
            Some(stored) => sheaf_common::params::from_bytes(stored.data()),
            None if tensor.name.contains("lora_A") => vec![0.1; tensor.numel() as usize],
            None => vec![0.0; tensor.numel() as usize],
        }
    };
    job.params.tensors.iter().flat_map(of).collect()
}

#[test]
fn texts_in_a_file_teach_a_decoder_the_same() {
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    reference().tiny_llama.write(folder.path());
    for answer in [None, Some("answer".to_owned())] {
        let mut spec = language_spec(Trainable::All, 6);
        spec.task.input = TaskInput::Text { column: "tokens".into(), max_length: 6 };
        spec.task.target = Target::NextToken { answer, template: "t20 {text} t21".into() };
        spec.validation.held_out = HeldOut::Share(0.25);
        let job = job(spec, Some(&config_of(folder.path())));
        super::stored::check(&job, Some(folder.path()), &start(&job, folder.path()));
    }
}

#[test]
fn tiny_decoders_are_those_of_transformers_whatever_is_trained() {
    tch::set_num_threads(1);
    let Reference { tiny_llama, tiny_gpt2, .. } = reference();
    for tiny in [tiny_llama, tiny_gpt2] {
        let folder = tempfile::tempdir().unwrap();
        tiny.write(folder.path());
        let config = config_of(folder.path());
        let lora = Lora { rank: 2, alpha: 4.0, targets: Vec::new(), dropout: 0.0, bias: LoraBias::None };
        for (trainable, lora) in
            [(Trainable::All, None), (Trainable::Last(1), None), (Trainable::All, Some(lora))]
        {
            let mut spec = language_spec(trainable, 8);
            spec.model.lora = lora;
            let job = job(spec, Some(&config));
            let open =
                || TorchTrainer::open(&job, Some(folder.path()), SITE, both(tiny.texts()), Device::Cpu);
            let mut trainer = open().unwrap();
            let params = start(&job, folder.path());
            trainer.parameters.set(&params).unwrap();
            trainer.network.freeze(&mut trainer.train, &Unwatched).unwrap();
            // Both texts as one batch, of which the second has padding.
            let found = trainer.network.logits(&trainer.train, &[0, 1], Mode::Inference).unwrap();
            // Nothing comes after the last token.
            let expected: Vec<f32> =
                tiny.logits.iter().flat_map(|logits| &logits[..logits.len() - 50]).copied().collect();
            let off = furthest(&values(&found).unwrap(), &expected);
            assert!(off < 1e-5, "{} is off by {off}", config.model_type());

            let counts = trainer.evaluate(&params, &Unwatched).unwrap().unwrap();
            let report = counts.report(&Kind::Language);
            let Report::Language(report) = report else { panic!("{report:?}") };
            let tokens: Vec<f64> = tiny.ids.iter().map(|ids| (ids.len() - 1) as f64).collect();
            let sum: f64 = tiny.losses.iter().zip(&tokens).map(|(loss, tokens)| loss * tokens).sum();
            let expected = sum / tokens.iter().sum::<f64>();
            assert!((report.loss - expected).abs() < 1e-5, "{} is not {expected}", report.loss);
            assert_eq!((report.num_examples, report.num_tokens), (2, tokens.iter().sum::<f64>() as u64));

            // The mean over all tokens of a step, in however many batches it is computed.
            let mut means = Vec::new();
            for (batch_size, accumulation_steps) in [(2, 1), (1, 2)] {
                let mut trainer = open().unwrap();
                trainer.parameters.set(&params).unwrap();
                trainer.spec.training.batch_size = batch_size;
                trainer.spec.training.accumulation_steps = accumulation_steps;
                trainer.spec.training.local = LocalWork::Steps(1);
                let trained =
                    training::train_and_tell(&mut trainer, ONE_ROUND, &Unwatched, |loss| means.push(loss));
                let moved = trained.unwrap().params;
                assert!(moved.iter().zip(&params).any(|(a, b)| a != b));
            }
            assert!(means.iter().all(|mean| (mean - expected).abs() < 1e-5), "{means:?} is not {expected}");
        }
    }
}

/// SmolLM2 as `sheaf model import` makes it of its GGUF file.
fn convert(folder: &Path) {
    let mut file = File::open(cached("smollm2").join("SmolLM2-135M-Instruct.Q4_1.gguf")).unwrap();
    let mut start = Vec::new();
    (&file).take(HEADER_MAX).read_to_end(&mut start).unwrap();
    let length = file.metadata().unwrap().len();
    let converted = Gguf::parse(&start, length).unwrap().convert().unwrap();
    fs::write(folder.join("config.json"), &converted.config).unwrap();
    fs::write(folder.join("tokenizer.json"), &converted.tokenizer).unwrap();
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for tensor in &converted.tensors {
        let bytes = 4 * tensor.stored.numel().unwrap();
        let entry = json!({"dtype": "F32", "shape": tensor.stored.shape, "data_offsets": [end, end + bytes]});
        header.insert(tensor.name.clone(), entry);
        end += bytes;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut out = BufWriter::new(File::create(folder.join("model.safetensors")).unwrap());
    out.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    out.write_all(&header).unwrap();
    for tensor in &converted.tensors {
        let mut bytes = vec![0; tensor.stored.bytes as usize];
        file.seek(SeekFrom::Start(tensor.stored.offset)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        out.write_all(&to_bytes(&tensor.values(&bytes))).unwrap();
    }
    out.flush().unwrap();
}

#[test]
fn the_real_smollm2_is_that_of_transformers() {
    let reference = reference();
    let folder = tempfile::tempdir().unwrap();
    convert(folder.path());
    tokens_and_logits(&reference, folder.path());
    losses(&reference.tuning, folder.path());
}

fn tokens_and_logits(reference: &Reference, folder: &Path) {
    let data = texts(reference.texts.iter().map(|text| text.text.clone()).collect());
    let mut spec = language_spec(Trainable::All, 64);
    spec.model.lora =
        Some(Lora { rank: 1, alpha: 1.0, targets: Vec::new(), dropout: 0.0, bias: LoraBias::None });
    let job = job(spec, Some(&config_of(folder)));
    let trainer = TorchTrainer::open(&job, Some(folder), SITE, both(data), Device::Cpu).unwrap();
    let _guard = tch::no_grad_guard();
    for (example, text) in reference.texts.iter().enumerate() {
        let batch = trainer.train.features.batch(&[example], Device::Cpu).unwrap();
        assert_eq!(
            Vec::<i64>::try_from(batch.values.flatten(0, -1)).unwrap(),
            text.tokens,
            "{:?}",
            text.text
        );
        let found = trainer.network.logits(&trainer.train, &[example], Mode::Inference).unwrap();
        for (place, expected) in &text.logits {
            let found = values(&found.get(*place as i64)).unwrap();
            let found: Vec<f32> = found.into_iter().step_by(reference.every).collect();
            let off = furthest(&found, expected) / text.largest;
            println!("logits of token {place} of {:?} are off by {off:.1e} of the largest", text.text);
            assert!(off < 1e-4, "{:?} is off by {off} of the largest logit", text.text);
        }
    }
}

/// A few steps of instruction tuning with adapters, step by step.
fn losses(tuning: &Tuning, folder: &Path) {
    let mut spec = language_spec(Trainable::All, tuning.max_length);
    spec.model.lora = Some(Lora {
        rank: tuning.rank,
        alpha: tuning.alpha,
        targets: Vec::new(),
        dropout: 0.0,
        bias: LoraBias::None,
    });
    spec.task.target = Target::NextToken { answer: Some("answer".into()), template: tuning.template.clone() };
    spec.training = Training {
        optimizer: Optimizer::AdamW(ADAM),
        learning_rate: tuning.learning_rate,
        weight_decay: tuning.weight_decay,
        batch_size: tuning.batch_size,
        local: LocalWork::Epochs(1),
        max_grad_norm: Some(tuning.max_grad_norm),
        ..Training::default()
    };
    // The data set is laid out so that the site's own order is the script's.
    let examples = tuning.losses.len() * tuning.batch_size as usize;
    let batches = Batches::new(&spec.training, examples);
    let order = batches.of_round(spec.seed, SITE, ONE_ROUND.number, Sampling::Shuffle, &[]).flatten();
    let mut laid_out = vec![(String::new(), String::new()); examples];
    for (place, pair) in order.zip(tuning.pairs.iter().cycle()) {
        laid_out[place] = pair.clone();
    }
    let (texts, answers) = laid_out.into_iter().unzip();
    let data = Dataset { inputs: Inputs::Text(texts), targets: Targets::Answer(answers) };
    let job = job(spec, Some(&config_of(folder)));
    let mut trainer = TorchTrainer::open(&job, Some(folder), SITE, both(data), Device::Cpu).unwrap();
    let values = job.params.tensors.iter().flat_map(|tensor| {
        let is_a = tensor.name.contains("lora_A");
        (0..tensor.numel()).map(move |at| if is_a { (0.02 * (1.7 * at as f64).sin()) as f32 } else { 0.0 })
    });
    trainer.parameters.set(&values.collect::<Vec<f32>>()).unwrap();
    let mut losses = Vec::new();
    training::train_and_tell(&mut trainer, ONE_ROUND, &Unwatched, |loss| losses.push(loss)).unwrap();
    assert_eq!(losses.len(), tuning.losses.len());
    let off = losses.iter().zip(&tuning.losses).map(|(found, expected)| (found - expected).abs());
    let furthest = off.fold(0.0, f64::max);
    println!("furthest loss: {furthest:.1e}");
    assert!(furthest < 1e-3, "the losses are off by {furthest}: {losses:?}");
    let counts = trainer.evaluate(&trainer.parameters.values().unwrap(), &Unwatched).unwrap();
    assert!(matches!(counts, Some(Counts::Language(_))));
}
