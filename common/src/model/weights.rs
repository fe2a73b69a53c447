//! Where in `model.safetensors` each tensor lies, read from the file's first bytes alone.
//!
//! The file is 8 bytes (little-endian length of the header), the header (JSON) and the tensors, one after the
//! other without a gap. Reading it this way costs the memory of the header, whatever the size of the model.

use std::collections::BTreeMap;

use safetensors::tensor::Metadata;
use serde_json::{Value, json};

use super::encoder::Family;
use super::vision::VitNames;
use crate::params::VALUE_BYTES;

/// Longest header, in bytes.
pub const HEADER_MAX: u64 = 16 << 20;

/// Bytes of the header's length at the start of the file.
const LENGTH_BYTES: u64 = 8;

/// The header of a safetensors file: its tensors by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    tensors: BTreeMap<String, StoredTensor>,
}

/// A tensor in a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Type of its values, as the format names it: `F32`, `BF16`, `I64` …
    pub dtype: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl StoredTensor {
    /// Whether its values are little-endian f32, the only type that Sheaf uses.
    pub fn is_f32(&self) -> bool {
        self.dtype == "F32"
    }
}

/// Weights that cannot be used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWeights {
    /// The file is cut short, too long, or no safetensors file at all.
    #[error("model.safetensors is no whole safetensors file: {0}")]
    Format(String),
    /// The header is longer than [`HEADER_MAX`].
    #[error("model.safetensors has a header of {0} bytes; at most {HEADER_MAX} are allowed")]
    HeaderTooLong(u64),
    /// Two tensors have one name once prefixes and old spellings are taken away.
    #[error("model.safetensors holds `{0}` twice under different names")]
    Duplicate(String),
    /// A tensor that is needed is not there.
    #[error("model.safetensors has no tensor `{0}`: the file and its config.json do not belong together")]
    Missing(String),
    /// A run with `pooling = "cls"` needs a pooler, and the model has none.
    #[error("model.safetensors has no pooler: write pooling = \"mean\", or import a model with `{0}`")]
    NoPooler(String),
    /// A tensor has another shape than `config.json` gives it.
    #[error("`{name}` in model.safetensors has the shape {found:?} where config.json makes it {expected:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        found: Vec<u64>,
        /// The shape that the model needs.
        expected: Vec<u64>,
    },
    /// A tensor has another type than f32.
    #[error(
        "`{name}` in model.safetensors is {dtype}, not F32: convert the model to float32 first \
         (in Python: model.float().save_pretrained(DIR))"
    )]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type in the file.
        dtype: String,
    },
}

impl Weights {
    /// Bytes of the file's start that [`parse`](Self::parse) needs, from its first eight.
    pub fn header_bytes(first: &[u8]) -> Result<u64, BadWeights> {
        let Some((length, _)) = first.split_first_chunk() else {
            return Err(BadWeights::Format(format!("it has only {} bytes", first.len())));
        };
        let length = u64::from_le_bytes(*length);
        if length > HEADER_MAX { Err(BadWeights::HeaderTooLong(length)) } else { Ok(LENGTH_BYTES + length) }
    }

    /// Reads the header of a file of `file_bytes` bytes from its start, of which at least the
    /// [`header_bytes`](Self::header_bytes) are needed.
    pub fn parse(start: &[u8], file_bytes: u64) -> Result<Self, BadWeights> {
        let data_start = Self::header_bytes(start)?;
        let header = usize::try_from(data_start).ok().and_then(|end| start.get(LENGTH_BYTES as usize..end));
        let header = header.ok_or_else(|| BadWeights::Format("it ends within its header".into()))?;
        // This establishes that the tensors lie one after the other and are as long as their shapes make
        // them.
        let header: Metadata =
            serde_json::from_slice(header).map_err(|e| BadWeights::Format(e.to_string()))?;
        let expected = data_start.checked_add(header.data_len() as u64);
        if expected != Some(file_bytes) {
            let expected = expected.unwrap_or(u64::MAX);
            return Err(BadWeights::Format(format!(
                "it has {file_bytes} bytes where its header promises {expected}"
            )));
        }
        let mut tensors = BTreeMap::new();
        for stored_name in header.offset_keys() {
            let Some(info) = header.info(&stored_name) else {
                continue;
            };
            let tensor = StoredTensor {
                dtype: info.dtype.to_string(),
                shape: info.shape.iter().map(|size| *size as u64).collect(),
                offset: data_start + info.data_offsets.0 as u64,
                bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
            };
            let name = canonical(&stored_name);
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(BadWeights::Duplicate(name));
            }
        }
        Ok(Self { tensors })
    }

    /// The tensor of this name, as Sheaf names it (without the prefix of its family) or as the file does.
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name).or_else(|| self.tensors.get(&canonical(name)))
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of values in all f32 tensors.
    pub fn num_params(&self) -> u64 {
        self.tensors.values().filter(|tensor| tensor.is_f32()).map(|tensor| tensor.bytes / 4).sum()
    }

    /// The f32 tensor of this name and shape, or why there is none.
    pub fn require(&self, name: &str, shape: &[u64]) -> Result<&StoredTensor, BadWeights> {
        let Some(tensor) = self.tensor(name) else {
            let name = name.to_owned();
            return Err(if name.starts_with("pooler.") {
                BadWeights::NoPooler(name)
            } else {
                BadWeights::Missing(name)
            });
        };
        if tensor.shape != shape {
            let (found, expected) = (tensor.shape.clone(), shape.to_vec());
            return Err(BadWeights::Shape { name: name.to_owned(), found, expected });
        }
        if !tensor.is_f32() {
            return Err(BadWeights::Dtype { name: name.to_owned(), dtype: tensor.dtype.clone() });
        }
        Ok(tensor)
    }
}

/// The first bytes of a safetensors file of f32 tensors with these names and shapes, whose values follow in this order
/// with nothing between them.
pub fn f32_header<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a [u64])>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += shape.iter().product::<u64>() * VALUE_BYTES;
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert(name.to_owned(), entry);
    }
    let mut json = Value::Object(header).to_string().into_bytes();
    // Padded with spaces so that the values start at a multiple of eight.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut framed = (json.len() as u64).to_le_bytes().to_vec();
    framed.append(&mut json);
    framed
}

/// A tensor's name inside Sheaf: without the prefix that a model with a head puts before its encoder or decoder, and
/// with today's names of layer normalisation, which the oldest checkpoints (`bert-base-uncased`) do not use.
fn canonical(stored: &str) -> String {
    let is_gpt2 = |name: &&str| ["wte.", "wpe.", "h.", "ln_f."].iter().any(|part| name.starts_with(part));
    let vit = VitNames::HuggingFace.layout().prefix;
    let mut prefixes = Family::ALL.iter().map(|family| family.layout().prefix).chain([vit]);
    let encoder = prefixes.find_map(|prefix| stored.strip_prefix(prefix));
    let name = encoder.or_else(|| stored.strip_prefix("transformer.").filter(is_gpt2));
    let name = name.unwrap_or(stored);
    if let Some(norm) = name.strip_suffix("LayerNorm.gamma") {
        format!("{norm}LayerNorm.weight")
    } else if let Some(norm) = name.strip_suffix("LayerNorm.beta") {
        format!("{norm}LayerNorm.bias")
    } else {
        name.to_owned()
    }
}
