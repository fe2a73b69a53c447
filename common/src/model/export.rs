//! A trained model as a folder again. A model of Hugging Face's is written so that `transformers` opens it,
//! as `BertForSequenceClassification` or as a bare `BertModel`, for instance; a tabular one so that Sheaf imports it again.
//!
//! The weights are described, not written: a header and a list of pieces to copy, so that the caller streams
//! them with the memory of one buffer.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom, Write};

use serde_json::{Map, Value, json};

use crate::message::ExportPlan;
use crate::params::{ParamSpec, ParamTensor, VALUE_BYTES, from_bytes, to_bytes};
use crate::run::{Architecture, Lora, ModelSource, Pooling, RunSpec, Target, TaskInput};

use super::config::ModelConfig;
use super::encoder::Family;
use super::features::{FeatureJson, NumberJson};
use super::lora::{self, factor_names, transposed};
use super::plan::{PlanError, blocks};
use super::tensors;
use super::vision::is_variance;
use super::weights::{BadWeights, Weights, f32_header};

/// Values of a weight that are merged at a time.
const ROWS_VALUES: usize = 1 << 16;

/// A model cannot be put together, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// The run does not fit its model.
    #[error("the model cannot be exported: {0}")]
    Plan(#[from] PlanError),
    /// The imported weights lack something.
    #[error("the model cannot be exported: {0}")]
    Weights(#[from] BadWeights),
    /// PEFT asks for the whole classifier, and the run has a part of it.
    #[error(
        "PEFT opens no adapters without the classifier's `{0}`, which a run with pooling = \"mean\" does not have: leave \
         out --adapter to write the whole model"
    )]
    HalfHead(&'static str),
    /// The run trained no adapters.
    #[error("the run has no adapters: leave out --adapter to write the whole model")]
    NoAdapters,
    /// Adapters of a model of images.
    #[error("adapters alone are written of text models only: leave out --adapter to write the whole model")]
    ImageAdapters,
    /// The imported `config.json` cannot be changed.
    #[error("the model cannot be exported: the imported config.json is no JSON object")]
    Config,
}

/// A file of tensors to be written: the header, then the pieces one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightsPlan {
    /// The first bytes of `model.safetensors`; none where only values are wanted.
    pub header: Vec<u8>,
    /// What follows.
    pub pieces: Vec<Piece>,
    /// What adapters are merged by.
    lora: Option<Lora>,
}

/// What a source of bytes must be able to do.
pub trait Source: Read + Seek {}

impl<T: Read + Seek> Source for T {}

impl WeightsPlan {
    /// Writes the file: from the imported `model.safetensors` and the global parameters, with the memory of one buffer
    /// and of one adapter. Returns its bytes.
    pub fn write(
        &self,
        out: &mut impl Write,
        mut base: Option<&mut dyn Source>,
        global: &mut dyn Source,
    ) -> io::Result<u64> {
        out.write_all(&self.header)?;
        let mut total = self.header.len() as u64;
        for piece in &self.pieces {
            let copied = match *piece {
                Piece::Global { offset, bytes } => copy(global, offset, bytes, out)?,
                Piece::Variance { offset, bytes } => {
                    let values = read(global, (offset, bytes))?;
                    let values: Vec<f32> = values.into_iter().map(|value| value.max(0.0)).collect();
                    out.write_all(&to_bytes(&values))?;
                    values.len() as u64 * VALUE_BYTES
                }
                Piece::Base { offset, bytes } => copy(some(&mut base)?, offset, bytes, out)?,
                Piece::Merged { offset, bytes, factors, inputs_first } => {
                    let lora =
                        self.lora.as_ref().ok_or_else(|| io::Error::other("the run has no adapters"))?;
                    let [mut a, mut b] = [read(global, factors[0])?, read(global, factors[1])?];
                    if inputs_first {
                        // (B A)^T = A^T B^T
                        let rank = lora.rank as usize;
                        (a, b) = (transposed(&b, rank), transposed(&a, a.len() / rank.max(1)));
                    }
                    merge(lora, some(&mut base)?, (offset, bytes), (&a, &b), out)?
                }
            };
            if copied != piece.bytes() {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "a source ends before the tensor does",
                ));
            }
            total += copied;
        }
        Ok(total)
    }
}

fn some<'a>(base: &'a mut Option<&mut dyn Source>) -> io::Result<&'a mut dyn Source> {
    match base {
        Some(base) => Ok(&mut **base),
        None => Err(io::Error::other("there is no base model to copy from")),
    }
}

fn copy(source: &mut dyn Source, offset: u64, bytes: u64, out: &mut impl Write) -> io::Result<u64> {
    source.seek(SeekFrom::Start(offset))?;
    io::copy(&mut source.take(bytes), out)
}

fn read(source: &mut dyn Source, (offset, bytes): (u64, u64)) -> io::Result<Vec<f32>> {
    let mut values = Vec::new();
    source.seek(SeekFrom::Start(offset))?;
    source.take(bytes).read_to_end(&mut values)?;
    Ok(from_bytes(&values))
}

/// The weight with its adapter, a few rows at a time.
fn merge(
    lora: &Lora,
    base: &mut dyn Source,
    (offset, bytes): (u64, u64),
    (a, b): (&[f32], &[f32]),
    out: &mut impl Write,
) -> io::Result<u64> {
    let inputs = (a.len() / lora.rank.max(1) as usize).max(1);
    let rows = (ROWS_VALUES / inputs).max(1);
    let step = (rows * inputs) as u64 * VALUE_BYTES;
    for (chunk, start) in (0..bytes).step_by(step as usize).enumerate() {
        let mut values = read(base, (offset + start, step.min(bytes - start)))?;
        lora.merge(&mut values, chunk * rows, a, b);
        out.write_all(&to_bytes(&values))?;
    }
    Ok(bytes)
}

/// Bytes to be copied, or made of two sources.
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
    /// Variances from the blob of the global parameters, of which one that rounding left below 0 is 0.
    Variance {
        /// Where they start.
        offset: u64,
        /// How many.
        bytes: u64,
    },
    /// A weight with its adapter merged into it ([`crate::run::Lora::merge`]).
    Merged {
        /// Where the weight starts in the imported `model.safetensors`.
        offset: u64,
        /// Its bytes.
        bytes: u64,
        /// Where its factors start in the blob of the global parameters, and their bytes.
        factors: [(u64, u64); 2],
        /// Whether the weight is `[inputs, outputs]`.
        inputs_first: bool,
    },
}

impl Piece {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Base { bytes, .. }
            | Self::Global { bytes, .. }
            | Self::Variance { bytes, .. }
            | Self::Merged { bytes, .. } => *bytes,
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
        TaskInput::Text { .. } => {
            let family = config.get("model_type").and_then(Value::as_str).and_then(Family::of);
            config.extend(text_keys(spec, family));
        }
        TaskInput::Table { .. } => config.extend(table_keys(spec)),
        // Hugging Face's, which take images of one size.
        TaskInput::Image { .. } if config.get("model_type").and_then(Value::as_str) == Some("vit") => {
            config.extend(head_keys(spec, "ViTForImageClassification"));
        }
        TaskInput::Image { size, .. } => {
            config.insert("labels".into(), json!(spec.task.labels()));
            if let Some(size) = size {
                config.insert("image_size".into(), json!(size));
            }
        }
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

fn text_keys(spec: &RunSpec, family: Option<Family>) -> Map<String, Value> {
    let Some(family) = family else {
        return owned(vec![("torch_dtype", json!("float32"))]);
    };
    let mut keys = head_keys(spec, family.architecture());
    keys.insert(family.layout().dropout_key.into(), json!(spec.model.dropout));
    keys
}

/// The head's class, its task and its labels, as `transformers` reads them.
fn head_keys(spec: &RunSpec, architecture: &str) -> Map<String, Value> {
    let problem = match &spec.task.target {
        Target::Number(_) => "regression",
        Target::Labels { .. } => "multi_label_classification",
        Target::Label { .. } | Target::NextToken { .. } | Target::Nothing => "single_label_classification",
    };
    // The one output of a regression has a name, too: by its names transformers counts the outputs.
    let names: Vec<&str> = match &spec.task.target {
        Target::Number(number) => vec![&number.column],
        Target::Label { labels, .. } | Target::Labels { labels, .. } => {
            labels.iter().map(String::as_str).collect()
        }
        Target::NextToken { .. } | Target::Nothing => Vec::new(),
    };
    let names = || names.iter().enumerate();
    let id2label: Map<_, _> = names().map(|(id, name)| (id.to_string(), json!(name))).collect();
    let label2id: Map<_, _> = names().map(|(id, name)| ((*name).to_owned(), json!(id))).collect();
    owned(vec![
        ("architectures", json!([architecture])),
        ("problem_type", json!(problem)),
        ("id2label", Value::Object(id2label)),
        ("label2id", Value::Object(label2id)),
        ("torch_dtype", json!("float32")),
    ])
}

fn table_keys(spec: &RunSpec) -> Map<String, Value> {
    let features: Vec<FeatureJson> = match &spec.task.input {
        TaskInput::Table { features } => features.iter().map(FeatureJson::from).collect(),
        TaskInput::Text { .. } | TaskInput::Image { .. } | TaskInput::Nothing => Vec::new(),
    };
    let mut keys = vec![("inputs", json!(spec.task.num_inputs())), ("features", json!(features))];
    keys.push(match &spec.task.target {
        Target::Number(number) => ("number", json!(NumberJson::from(number))),
        Target::Label { .. } | Target::Labels { .. } | Target::NextToken { .. } | Target::Nothing => {
            ("labels", json!(spec.task.labels()))
        }
    });
    owned(keys)
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
        origin.push(("max_length", json!(max_length)));
        match &spec.task.target {
            Target::NextToken { template, .. } => origin.push(("template", json!(template))),
            Target::Label { .. } | Target::Labels { .. } | Target::Number(_) | Target::Nothing => {
                origin.push(("pooling", json!(spec.model.pooling)));
            }
        }
        if let Target::Number(number) = &spec.task.target {
            origin.push(("number", json!(NumberJson::from(number))));
        }
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
    let tensors = exported_tensors(&plan.job.spec, config, base)?;
    let inputs_first = matches!(config, Some(ModelConfig::Gpt2(_)));
    let pieces = tensors.iter().map(|tensor| piece(&plan.job.params, base, tensor, inputs_first));
    let pieces = pieces.collect::<Result<_, _>>()?;
    let header = header(&tensors, |name| exported_name(config, name));
    Ok(WeightsPlan { header, pieces, lora: plan.job.spec.model.lora.clone() })
}

/// The global parameters `before` in the form of the next phase, `after`: what is trained from now on is in between, as
/// `base`, the imported model, has it.
pub fn grown(before: &ParamSpec, after: &ParamSpec, base: &Weights) -> Result<WeightsPlan, BadWeights> {
    let pieces = after
        .tensors
        .iter()
        .map(|tensor| piece(before, Some(base), tensor, false))
        .collect::<Result<_, _>>()?;
    Ok(WeightsPlan { header: Vec::new(), pieces, lora: None })
}

/// The adapters of a run as PEFT's `adapter_config.json` and `adapter_model.safetensors`: what
/// `peft.PeftModel.from_pretrained` puts on top of the base model of this `config`, to which a classifier of the run's
/// labels comes if the model is none of language.
pub fn export_adapter(
    plan: &ExportPlan,
    config: Option<&ModelConfig>,
) -> Result<(Vec<u8>, WeightsPlan), ExportError> {
    let spec = &plan.job.spec;
    let lora = spec.model.lora.as_ref().ok_or(ExportError::NoAdapters)?;
    let (ModelSource::Imported(base), Some(model)) = (&spec.model.source, config) else {
        return Err(ExportError::NoAdapters);
    };
    if let (ModelConfig::Encoder(encoder), Pooling::Mean) = (model, spec.model.pooling)
        && let Some(hidden) = encoder.family.layout().hidden
    {
        return Err(ExportError::HalfHead(hidden.name));
    }
    if matches!(model, ModelConfig::Image(_)) {
        return Err(ExportError::ImageAdapters);
    }
    let is_decoder = model.is_decoder();
    let params = &plan.job.params;
    // By their whole names: other layers and other parts of the model have modules of the same last names.
    let adapted: Vec<String> = params
        .tensors
        .iter()
        .filter_map(|tensor| lora::adapted(&tensor.name))
        .map(|name| exported_name(config, name))
        .collect();
    // The modules of the head, whole: `classifier`, and where it is trained `pre_classifier`.
    let blocks = blocks(spec, config)?;
    let head: BTreeSet<&str> =
        blocks.head.iter().filter_map(|tensor| tensor.name.split('.').next()).collect();
    let modules_to_save = if is_decoder { Value::Null } else { json!(head) };
    let adapter_config = json!({
        "peft_type": "LORA",
        "task_type": if is_decoder { "CAUSAL_LM" } else { "SEQ_CLS" },
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "bias": lora.bias.name(),
        "fan_in_fan_out": matches!(model, ModelConfig::Gpt2(_)),
        "inference_mode": true,
        "modules_to_save": modules_to_save,
        "target_modules": adapted,
    });
    let mut bytes = serde_json::to_vec_pretty(&adapter_config).map_err(|_| ExportError::Config)?;
    bytes.push(b'\n');
    let header = header(&params.tensors, |name| {
        let exported = exported_name(config, name);
        // What an adapter is put on is a part of the layer that PEFT puts in its place.
        let exported =
            match exported.strip_suffix(".bias").filter(|layer| adapted.iter().any(|it| it == layer)) {
                Some(layer) => format!("{layer}.base_layer.bias"),
                None => exported,
            };
        format!("base_model.model.{exported}")
    });
    let pieces = vec![Piece::Global { offset: 0, bytes: params.bytes() }];
    Ok((bytes, WeightsPlan { header, pieces, lora: None }))
}

/// A run that pools by the mean neither uses nor trains the pooler, but a model that has one keeps it, so
/// that `transformers` finds all it looks for.
fn exported_tensors(
    spec: &RunSpec,
    config: Option<&ModelConfig>,
    base: Option<&Weights>,
) -> Result<Vec<ParamTensor>, ExportError> {
    let mut blocks = blocks(spec, config)?;
    if let (Some(ModelConfig::Encoder(encoder)), Some(base)) = (config, base)
        && blocks.pooler.is_empty()
    {
        let pooler = tensors::encoder(encoder, Pooling::Cls, None).pooler;
        if pooler.iter().all(|tensor| base.require(&tensor.name, &tensor.shape).is_ok()) {
            blocks.pooler = pooler;
        }
    }
    Ok(blocks.all().cloned().collect())
}

/// Where a tensor's bytes are: in the global parameters if it was trained, else in the imported file, to which an
/// adapter may come; `inputs_first` says that it is stored `[inputs, outputs]`.
fn piece(
    params: &ParamSpec,
    base: Option<&Weights>,
    tensor: &ParamTensor,
    inputs_first: bool,
) -> Result<Piece, BadWeights> {
    let trained = |name: &str| {
        let mut offset = 0;
        for trained in &params.tensors {
            let bytes = trained.numel() * VALUE_BYTES;
            if trained.name == name {
                return Some((trained, (offset, bytes)));
            }
            offset += bytes;
        }
        None
    };
    if let Some((_, (offset, bytes))) = trained(&tensor.name).filter(|(found, _)| *found == tensor) {
        return Ok(match is_variance(&tensor.name) {
            true => Piece::Variance { offset, bytes },
            false => Piece::Global { offset, bytes },
        });
    }
    let base = base.ok_or_else(|| BadWeights::Missing(tensor.name.clone()))?;
    let stored = base.require(&tensor.name, &tensor.shape)?;
    let (offset, bytes) = (stored.offset, stored.bytes);
    let [a, b] = factor_names(&tensor.name).map(|name| trained(&name).map(|(_, place)| place));
    Ok(match (a, b) {
        (Some(a), Some(b)) => Piece::Merged { offset, bytes, factors: [a, b], inputs_first },
        _ => Piece::Base { offset, bytes },
    })
}

/// What is below a head has its family's prefix, as `bert.` or `transformer.`; `transformers` opens it as a bare encoder too.
fn exported_name(config: Option<&ModelConfig>, name: &str) -> String {
    match config {
        Some(ModelConfig::Image(image)) => match image.architecture.hugging_face() {
            Some(layout) if !name.starts_with(layout.head) => format!("{}{name}", layout.prefix),
            Some(_) | None => name.to_owned(),
        },
        Some(ModelConfig::Encoder(encoder)) => {
            let layout = encoder.family.layout();
            if layout.is_head(name) { name.to_owned() } else { format!("{}{name}", layout.prefix) }
        }
        Some(ModelConfig::Gpt2(_)) if !name.starts_with("lm_head.") => format!("transformer.{name}"),
        Some(ModelConfig::Gpt2(_) | ModelConfig::Llama(_) | ModelConfig::Mlp(_) | ModelConfig::Script(_))
        | None => name.to_owned(),
    }
}

/// The header of a file of these tensors under other names.
fn header(tensors: &[ParamTensor], named: impl Fn(&str) -> String) -> Vec<u8> {
    let names: Vec<String> = tensors.iter().map(|tensor| named(&tensor.name)).collect();
    f32_header(names.iter().map(String::as_str).zip(tensors.iter().map(|tensor| tensor.shape.as_slice())))
}
