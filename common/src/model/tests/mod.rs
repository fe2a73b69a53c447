//! Model folders, planned, started and exported; and bytes that are no models.

mod card;
mod config;
mod decoder;
mod encoder;
mod export;
mod growth;
mod image;
mod initial;
mod manifest;
mod plan;
mod script;
mod vit;
mod weights;

use std::collections::BTreeMap;

use crate::message::{ExportPlan, Job};
use crate::params::ParamSpec;
use crate::run::{Pooling, RunSpec};
use crate::time::Timestamp;

use super::*;

/// A BERT encoder small enough to be written out.
const TINY_BERT: &str = r#"{
    "_name_or_path": "somewhere/tiny", "architectures": ["BertModel"], "model_type": "bert",
    "vocab_size": 11, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 6, "max_position_embeddings": 16, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0
}"#;

/// A perceptron as Sheaf exports it.
const TINY_MLP: &str = r#"{
    "model_type": "mlp", "hidden": [5, 3], "inputs": 5, "labels": ["healthy", "ill"],
    "features": [
        {"column": "age", "type": "numeric", "mean": 54.5, "std": 9.0, "missing": ["?"]},
        {"column": "sex", "type": "categorical", "categories": ["f", "m", "x"]}
    ]
}"#;

fn spec(model: &str, task: &str) -> RunSpec {
    let text = format!(
        "name = \"trial\"\nrounds = 3\nseed = 7\nsecure_aggregation = \"off\"\n[model]\n{model}\n[task]\n{task}\n"
    );
    RunSpec::parse("run.toml", &text).unwrap()
}

/// A text run on `TINY_BERT` with more lines for `[model]`.
fn text_spec(model: &str) -> RunSpec {
    spec(
        &format!("name = \"tiny\"\n{model}"),
        "type = \"text-classification\"\ndataset = \"news\"\ntext = \"body\"\nlabel = \"topic\"\n\
         labels = [\"earn\", \"acq\", \"ship\"]\nmax_length = 16",
    )
}

/// A tabular run with the columns of `TINY_MLP`.
fn table_spec(model: &str) -> RunSpec {
    spec(
        model,
        "type = \"tabular-classification\"\ndataset = \"hearts\"\nlabel = \"disease\"\nlabels = [\"healthy\", \"ill\"]\n\
         [[task.features]]\ncolumn = \"age\"\ntype = \"numeric\"\nmean = 54.5\nstd = 9.0\nmissing = [\"?\"]\n\
         [[task.features]]\ncolumn = \"sex\"\ntype = \"categorical\"\ncategories = [\"f\", \"m\", \"x\"]",
    )
}

fn config(json: &str) -> ModelConfig {
    ModelConfig::parse(json.as_bytes()).unwrap()
}

fn bert_config() -> EncoderConfig {
    match config(TINY_BERT) {
        ModelConfig::Encoder(bert) => bert,
        ModelConfig::Gpt2(_)
        | ModelConfig::Llama(_)
        | ModelConfig::Mlp(_)
        | ModelConfig::Image(_)
        | ModelConfig::Script(_) => panic!("TINY_BERT is a BERT"),
    }
}

/// A safetensors file of f32 tensors under these names, written by the crate that defines the format. Each
/// value is the number of its tensor in the list plus a small part that counts up.
fn safetensors(tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
    let values: Vec<Vec<u8>> = tensors
        .iter()
        .enumerate()
        .map(|(index, (_, shape))| {
            let count = shape.iter().product::<u64>();
            crate::params::to_bytes(&(0..count).map(|i| index as f32 + i as f32 / 1024.0).collect::<Vec<_>>())
        })
        .collect();
    let views = tensors.iter().zip(&values).map(|((name, shape), values)| {
        let shape = shape.iter().map(|size| *size as usize).collect();
        (name.as_str(), safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, values).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// The weights file of a whole `TINY_BERT` with its pooler, and a head if there are labels for one.
fn bert_file(prefix: &str, num_labels: Option<u64>) -> Vec<u8> {
    let blocks = tensors::encoder(&bert_config(), Pooling::Cls, num_labels);
    let name = |name: &str| {
        if name.starts_with("classifier.") { name.to_owned() } else { format!("{prefix}{name}") }
    };
    safetensors(&blocks.all().map(|tensor| (name(&tensor.name), tensor.shape.clone())).collect::<Vec<_>>())
}

fn weights(file: &[u8]) -> Weights {
    Weights::parse(file, file.len() as u64).unwrap()
}

fn names(params: &ParamSpec) -> Vec<&str> {
    params.tensors.iter().map(|tensor| tensor.name.as_str()).collect()
}

/// What an operator gets of a run of which nothing is known but its spec and parameters.
fn export_plan(spec: &RunSpec, params: ParamSpec) -> ExportPlan {
    let global = BlobId::of(b"global");
    let summary = crate::status::RunSummary {
        run: "trial-2".parse().unwrap(),
        state: crate::status::RunState::Completed,
        completed_rounds: 3,
        rounds: 3,
        submitted_by: "ada".parse().unwrap(),
        submitted_at: crate::time::Timestamp(0),
        detail: String::new(),
    };
    let status = crate::status::RunStatus {
        summary,
        spec: spec.clone(),
        num_params: params.numel(),
        held: Vec::new(),
        current: None,
        earlier_records: 0,
        history: Vec::new(),
        final_metrics: None,
        test_metrics: None,
        best: None,
        result: 3,
        global,
    };
    ExportPlan {
        status,
        round: 3,
        job: Job {
            spec: spec.clone(),
            model: None,
            params,
            global,
            submitted_at: Timestamp(0),
            author: None,
        },
    }
}
