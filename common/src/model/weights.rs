//! Where in `model.safetensors` each tensor lies, read from the file's first bytes alone.

use std::collections::BTreeMap;

/// The header of a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    tensors: BTreeMap<String, StoredTensor>,
}

/// A tensor in a safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
    /// Whether its values are little-endian f32, the only type that Sheaf uses.
    pub is_f32: bool,
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Weights that cannot be used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("model.safetensors: {0}")]
pub struct BadWeights(String);

impl Weights {
    /// Bytes of the file's start that [`parse`](Self::parse) needs, from its first eight (or fewer, when the file
    /// is shorter).
    pub fn header_bytes(_first: &[u8]) -> Result<u64, BadWeights> {
        unimplemented!()
    }

    /// Reads the header of a file of `file_bytes` bytes from its start (at least the [`header_bytes`](Self::header_bytes)).
    pub fn parse(_start: &[u8], _file_bytes: u64) -> Result<Self, BadWeights> {
        unimplemented!()
    }

    /// The tensor of this name, as Sheaf names it (without the prefix `bert.`).
    pub fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Number of values in all f32 tensors.
    pub fn num_params(&self) -> u64 {
        unimplemented!()
    }

    /// The f32 tensor of this name and shape, or why there is none.
    pub fn require(&self, _name: &str, _shape: &[u64]) -> Result<&StoredTensor, BadWeights> {
        unimplemented!()
    }
}
