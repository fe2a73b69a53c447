//! A trained model as a folder again. A text model is written so that Hugging Face `transformers` opens it,
//! as `BertForSequenceClassification` or as a bare `BertModel`; a tabular one so that Sheaf imports it again.
//!
//! The weights are described, not written: a header and a list of pieces to copy, so that the caller streams
//! them with the memory of one buffer.

use serde_json::{Map, Value, json};

use crate::message::ExportPlan;
use crate::params::{ParamTensor, VALUE_BYTES};
use crate::run::{Architecture, ModelSource, RunSpec, TaskInput};

use super::config::ModelConfig;
use super::features::FeatureJson;
use super::plan::{PlanError, blocks};
use super::tensors;
use super::weights::{BadWeights, Weights};

/// A model cannot be put together, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The run does not fit its model.
    #[error("the model cannot be exported: {0}")]
    Plan(#[from] PlanError),
    /// The imported weights lack something.
    #[error("the model cannot be exported: {0}")]
    Weights(#[from] BadWeights),
    /// The imported `config.json` cannot be changed.
    #[error("the model cannot be exported: the imported config.json is no JSON object")]
    Config,
}

/// `model.safetensors` to be written: the header, then the pieces one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightsPlan {
    /// The file's first bytes.
    pub header: Vec<u8>,
    /// What follows.
    pub pieces: Vec<Piece>,
}

/// Bytes to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// From the imported `model.safetensors`.
    Base {
        /// Where they start.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// From the blob of the global parameters.
    Global {
        /// Where they start.
        offset: u64,
        /// How many.
        bytes: u64,
    },
}

impl Piece {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Base { bytes, .. } | Self::Global { bytes, .. } => *bytes,
        }
    }
}

/// `config.json` of the exported model. `base` is the imported model's, `None` for a fresh one.
///
/// A text model's keeps what the imported one says of the encoder; the head, its labels and dropout are the
/// run's. What `transformers` has no word for (pooling, text length) is under the key `sheaf`.
pub fn export_config(plan: &ExportPlan, base: Option<&[u8]>) -> Result<Vec<u8>, ExportError> {
    let spec = &plan.job.spec;
    let mut config = match (&spec.model.source, base) {
        (ModelSource::Imported(name), None) => return Err(PlanError::NoModel(name.clone()).into()),
        (ModelSource::Imported(_), Some(base)) => {
            serde_json::from_slice(base).map_err(|_| ExportError::Config)?
        }
        (ModelSource::Fresh(architecture), _) => fresh_config(architecture),
    };
    match spec.task.input {
        TaskInput::Text { .. } => config.extend(text_keys(spec)),
        TaskInput::Table { .. } => config.extend(table_keys(spec)),
        TaskInput::Nothing => {}
    }
    // It names where the base came from, which transformers takes for where this model is.
    config.remove("_name_or_path");
    config.insert("sheaf".into(), origin(plan));
    let mut bytes = serde_json::to_vec_pretty(&config).map_err(|_| ExportError::Config)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn fresh_config(architecture: &Architecture) -> Map<String, Value> {
    let keys = match architecture {
        Architecture::Mlp(hidden) => vec![("model_type", json!("mlp")), ("hidden", json!(hidden))],
        Architecture::Softmax => vec![("model_type", json!("softmax"))],
        Architecture::Constant(values) => {
            vec![("model_type", json!("constant")), ("parameters", json!(values))]
        }
    };
    owned(keys)
}

fn text_keys(spec: &RunSpec) -> Map<String, Value> {
    let labels = || spec.task.labels.iter().enumerate();
    let id2label: Map<_, _> = labels().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: Map<_, _> = labels().map(|(id, label)| (label.clone(), json!(id))).collect();
    owned(vec![
        ("architectures", json!(["BertForSequenceClassification"])),
        ("problem_type", json!("single_label_classification")),
        ("classifier_dropout", json!(spec.model.dropout)),
        ("id2label", Value::Object(id2label)),
        ("label2id", Value::Object(label2id)),
        ("torch_dtype", json!("float32")),
    ])
}

fn table_keys(spec: &RunSpec) -> Map<String, Value> {
    let features: Vec<FeatureJson> = match &spec.task.input {
        TaskInput::Table { features } => features.iter().map(FeatureJson::from).collect(),
        TaskInput::Text { .. } | TaskInput::Nothing => Vec::new(),
    };
    owned(vec![
        ("inputs", json!(spec.num_inputs())),
        ("labels", json!(spec.task.labels)),
        ("features", json!(features)),
    ])
}

/// Where the model comes from, and what else its user must know.
fn origin(plan: &ExportPlan) -> Value {
    let spec = &plan.job.spec;
    let mut origin = vec![
        ("run", json!(plan.status.summary.run)),
        ("round", json!(plan.round)),
        ("dataset", json!(spec.task.dataset)),
    ];
    if let ModelSource::Imported(name) = &spec.model.source {
        origin.push(("base_model", json!(name)));
    }
    if let TaskInput::Text { max_length, .. } = &spec.task.input {
        origin.extend([("pooling", json!(spec.model.pooling)), ("max_length", json!(max_length))]);
    }
    Value::Object(owned(origin))
}

fn owned(keys: Vec<(&str, Value)>) -> Map<String, Value> {
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// `model.safetensors` of the exported model. `config` and `base` are the imported model's, `None` for a
/// fresh one. Whatever the imported file holds besides the model (buffers, other heads) is left behind.
pub fn export_weights(
    plan: &ExportPlan,
    config: Option<&ModelConfig>,
    base: Option<&Weights>,
) -> Result<WeightsPlan, ExportError> {
    let mut header = owned(vec![("__metadata__", json!({ "format": "pt" }))]);
    let mut pieces = Vec::new();
    let mut end = 0;
    for tensor in exported_tensors(&plan.job.spec, config, base)? {
        let piece = piece(plan, base, &tensor)?;
        let start = end;
        end += piece.bytes();
        header.insert(
            exported_name(config, &tensor.name),
            json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end] }),
        );
        pieces.push(piece);
    }
    Ok(WeightsPlan { header: framed(&header), pieces })
}

/// A run that pools by the mean neither uses nor trains the pooler, but a model that has one keeps it, so
/// that `transformers` finds all it looks for.
fn exported_tensors(
    spec: &RunSpec,
    config: Option<&ModelConfig>,
    base: Option<&Weights>,
) -> Result<Vec<ParamTensor>, ExportError> {
    let mut blocks = blocks(spec, config)?;
    if let (Some(ModelConfig::Bert(bert)), Some(base)) = (config, base)
        && blocks.pooler.is_empty()
    {
        let pooler = tensors::bert(bert, true, None).pooler;
        if pooler.iter().all(|tensor| base.require(&tensor.name, &tensor.shape).is_ok()) {
            blocks.pooler = pooler;
        }
    }
    Ok(blocks.all().cloned().collect())
}

/// Where a tensor's bytes are: in the global parameters if it was trained, else in the imported file.
fn piece(plan: &ExportPlan, base: Option<&Weights>, tensor: &ParamTensor) -> Result<Piece, ExportError> {
    let mut offset = 0;
    for trained in &plan.job.params.tensors {
        let bytes = trained.numel() * VALUE_BYTES;
        if trained == tensor {
            return Ok(Piece::Global { offset, bytes });
        }
        offset += bytes;
    }
    let base = base.ok_or_else(|| BadWeights::Missing(tensor.name.clone()))?;
    let stored = base.require(&tensor.name, &tensor.shape)?;
    Ok(Piece::Base { offset: stored.offset, bytes: stored.bytes })
}

/// The encoder of a model with a head has the prefix `bert.`; `transformers` opens it as a bare encoder too.
fn exported_name(config: Option<&ModelConfig>, name: &str) -> String {
    match config {
        Some(ModelConfig::Bert(_)) if !name.starts_with("classifier.") => format!("bert.{name}"),
        Some(ModelConfig::Bert(_) | ModelConfig::Mlp(_)) | None => name.to_owned(),
    }
}

/// The header behind its length, padded with spaces so that the values start at a multiple of eight.
fn framed(header: &Map<String, Value>) -> Vec<u8> {
    let mut json = Value::Object(header.clone()).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut framed = (json.len() as u64).to_le_bytes().to_vec();
    framed.append(&mut json);
    framed
}
