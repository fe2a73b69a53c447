//! The parameters that travel: their names and shapes in one agreed order.
//!
//! A blob of parameters (the trainable part of the global model, or a `Delta`) is the little-endian f32 values
//! of every tensor of the spec, row-major, one after the other, with nothing between them.

use serde::{Deserialize, Serialize};

/// Bytes of one value on the wire and on disk.
pub const VALUE_BYTES: u64 = 4;

/// One tensor that travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamTensor {
    /// Its name in the model, as Hugging Face writes it.
    pub name: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
}

impl ParamTensor {
    /// Number of values.
    pub fn numel(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// The tensors that travel, in order. Server and site derive it independently and compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// The tensors, in the order in which their values are laid out.
    pub tensors: Vec<ParamTensor>,
}

impl ParamSpec {
    /// Number of values over all tensors.
    pub fn numel(&self) -> u64 {
        self.tensors.iter().map(ParamTensor::numel).sum()
    }

    /// Bytes of a blob of these parameters.
    pub fn bytes(&self) -> u64 {
        self.numel() * VALUE_BYTES
    }
}

/// The values as the bytes of a blob.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The bytes of a blob as values; a tail of fewer than four bytes is ignored.
pub fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().map(|value| f32::from_le_bytes(*value)).collect()
}
