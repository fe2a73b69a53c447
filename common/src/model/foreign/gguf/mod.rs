//! GGUF, the format of llama.cpp: one file with a description, a tokenizer and weights, most of them in a few bits.
//!
//! [`Gguf::parse`] reads the header; [`convert`](Gguf::convert) says what the model is in the words of Hugging Face.
//! Of all architectures Llama is read, with a byte-level BPE tokenizer.

mod llama;
mod reader;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::collections::BTreeMap;

use self::reader::{Reader, Value};
use super::{BadIndex, ForeignTensor, Format, Index, TENSORS_MAX};

/// Longest header, in bytes. The vocabulary is in it.
pub const HEADER_MAX: u64 = 64 << 20;

/// Most entries that describe a model.
const ENTRIES_MAX: u64 = 1 << 16;

/// Most dimensions of a tensor.
const DIMENSIONS_MAX: u32 = 4;

/// The header of a GGUF file, read in place.
#[derive(Clone, Debug)]
pub struct Gguf<'a> {
    entries: BTreeMap<&'a str, Value<'a>>,
    index: Index,
}

/// A model in the words of Hugging Face.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// `config.json`.
    pub config: Vec<u8>,
    /// `tokenizer.json`.
    pub tokenizer: Vec<u8>,
    /// `tokenizer_config.json`: which special tokens there are, and the chat template.
    pub tokenizer_config: Vec<u8>,
    /// `model.safetensors`, in the order in which it is written.
    pub tensors: Vec<ConvertedTensor>,
}

/// A tensor to be decoded, laid out anew and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertedTensor {
    /// Its name in Hugging Face's model.
    pub name: String,
    /// Where its values are.
    pub stored: ForeignTensor,
    /// llama.cpp turns pairs of neighbouring values of a head, Hugging Face value `i` and `i + width / 2`: so many
    /// heads have their rows in the other order.
    heads: Option<u64>,
}

/// A GGUF file that cannot be read, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGguf {
    /// It begins otherwise.
    #[error("it is no GGUF file")]
    Magic,
    /// A version of the format that is not read.
    #[error("it is GGUF of version {0}; versions 2 and 3 are read")]
    Version(u32),
    /// Cut short, or claiming lengths that are not there.
    #[error("it ends within its header, or its header has more than {HEADER_MAX} bytes")]
    Short,
    /// More tensors or entries than any model has.
    #[error("its header counts {0} tensors or entries, more than any model has")]
    Counts(u64),
    /// A type of values that there is not.
    #[error("its header has a value of the unknown type {0}")]
    Kind(u32),
    /// A text that is not UTF-8.
    #[error("a text in its header is not UTF-8")]
    Text,
    /// An entry comes twice.
    #[error("its header has `{0}` twice")]
    Twice(String),
    /// An alignment that is none.
    #[error("its alignment is no power of two")]
    Alignment,
    /// Tensors stored in a way that is not read.
    #[error(
        "`{tensor}` is stored as type {number}; F32, F16, BF16, Q4_0, Q4_1 and Q8_0 are read: import the model's \
         Hugging Face folder, or a file of one of these types"
    )]
    Stored {
        /// The tensor.
        tensor: String,
        /// GGUF's number of its type.
        number: u32,
    },
    /// Tensors that lie on top of each other, or beyond the end.
    #[error("its tensors are longer than the file: it is cut short or damaged")]
    Overlap,
    /// Tensors that do not lie in the file.
    #[error(transparent)]
    Index(#[from] BadIndex),
    /// Another architecture, or something in it that Sheaf does not compute.
    #[error("{0}; import the Hugging Face folder of a model that Sheaf trains instead")]
    Model(String),
    /// An entry that is needed is missing or something else.
    #[error("its header has no proper `{0}`")]
    Entry(String),
    /// The tokenizer contradicts itself.
    #[error("its tokenizer cannot be used: {0}")]
    Tokenizer(String),
}

impl<'a> Gguf<'a> {
    /// Reads the header of a file of `file_bytes` bytes from its start, of which at most [`HEADER_MAX`] bytes are
    /// looked at.
    pub fn parse(start: &'a [u8], file_bytes: u64) -> Result<Self, BadGguf> {
        let start = &start[..start.len().min(HEADER_MAX as usize)];
        let mut reader = Reader::new(start);
        if reader.take(4) != Ok(b"GGUF") {
            return Err(BadGguf::Magic);
        }
        let version = reader.u32()?;
        if !(2..=3).contains(&version) {
            return Err(BadGguf::Version(version));
        }
        let (tensors, entries) = (reader.u64()?, reader.u64()?);
        if tensors > TENSORS_MAX as u64 || entries > ENTRIES_MAX {
            return Err(BadGguf::Counts(tensors.max(entries)));
        }
        let entries = read_entries(&mut reader, entries)?;
        let mut placed = Vec::new();
        for _ in 0..tensors {
            placed.push(read_tensor(&mut reader)?);
        }
        let alignment = match entries.get("general.alignment") {
            None => 32,
            Some(value) => value.integer().filter(|at| at.is_power_of_two()).ok_or(BadGguf::Alignment)?,
        };
        // The values begin at the next multiple behind the header.
        let data = (start.len() - reader.left()) as u64;
        let data = data.checked_next_multiple_of(alignment).ok_or(BadGguf::Alignment)?;
        for tensor in &mut placed {
            tensor.offset = tensor.offset.checked_add(data).ok_or(BadGguf::Short)?;
        }
        // So that what a file becomes is bounded by what it is.
        let bytes = placed.iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.bytes));
        if bytes > file_bytes {
            return Err(BadGguf::Overlap);
        }
        Ok(Self { entries, index: Index::new(placed, file_bytes)? })
    }

    /// Its tensors under the names that they have in the file.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The model in the words of Hugging Face.
    ///
    /// # Errors
    /// When it is another architecture than Llama, or lacks something.
    pub fn convert(&self) -> Result<Converted, BadGguf> {
        let tensors = llama::tensors(self)?;
        let tied = !tensors.iter().any(|tensor| tensor.name == "lm_head.weight");
        Ok(Converted {
            config: llama::config(self, tied)?,
            tokenizer: tokenizer::tokenizer(self)?,
            tokenizer_config: tokenizer::config(self)?,
            tensors,
        })
    }

    fn integer(&self, key: &str) -> Result<u64, BadGguf> {
        self.entries.get(key).and_then(|value| value.integer()).ok_or_else(|| BadGguf::Entry(key.to_owned()))
    }

    fn float(&self, key: &str) -> Result<f64, BadGguf> {
        self.entries.get(key).and_then(|value| value.float()).ok_or_else(|| BadGguf::Entry(key.to_owned()))
    }

    fn text(&self, key: &str) -> Result<&'a str, BadGguf> {
        self.entries.get(key).and_then(|value| value.text()).ok_or_else(|| BadGguf::Entry(key.to_owned()))
    }

    fn texts(&self, key: &str) -> Result<Vec<&'a str>, BadGguf> {
        let texts = self.entries.get(key).and_then(|value| value.texts());
        texts.map(Iterator::collect).ok_or_else(|| BadGguf::Entry(key.to_owned()))
    }
}

impl ConvertedTensor {
    /// The values, decoded from the bytes of [`stored`](Self::stored), row-major as Hugging Face has them.
    pub fn values(&self, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::new();
        self.stored.format.decode(bytes, &mut values);
        match (self.heads, self.stored.shape.as_slice()) {
            (Some(heads), [rows, columns]) => llama::rows_in_halves(&values, heads, *rows, *columns),
            _ => values,
        }
    }
}

fn read_entries<'a>(reader: &mut Reader<'a>, count: u64) -> Result<BTreeMap<&'a str, Value<'a>>, BadGguf> {
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let key = reader.text()?;
        if entries.insert(key, reader.value()?).is_some() {
            return Err(BadGguf::Twice(key.chars().take(80).collect()));
        }
    }
    Ok(entries)
}

/// A tensor with its offset from where the values begin. GGUF lists the sizes from the innermost on.
fn read_tensor(reader: &mut Reader<'_>) -> Result<ForeignTensor, BadGguf> {
    let name: String = reader.text()?.chars().take(256).collect();
    let dimensions = reader.u32()?;
    if dimensions > DIMENSIONS_MAX {
        return Err(BadIndex::Shape(name).into());
    }
    let mut shape = (0..dimensions).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
    let number = reader.u32()?;
    let format = match number {
        0 => Format::F32,
        1 => Format::F16,
        2 => Format::Q4_0,
        3 => Format::Q4_1,
        8 => Format::Q8_0,
        28 => Format::F64,
        30 => Format::Bf16,
        _ => return Err(BadGguf::Stored { tensor: name, number }),
    };
    let offset = reader.u64()?;
    let numel = shape.iter().try_fold(1u64, |numel, size| numel.checked_mul(*size));
    let whole_rows = shape.first().is_none_or(|columns| format.bytes(*columns).is_some());
    let bytes = numel.filter(|_| whole_rows).and_then(|numel| format.bytes(numel));
    let bytes = bytes.ok_or_else(|| BadIndex::Shape(name.clone()))?;
    shape.reverse();
    Ok(ForeignTensor { name, shape, format, offset, bytes, strides: None })
}
