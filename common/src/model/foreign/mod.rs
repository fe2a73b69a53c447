//! Weights as other tools store them, before they become Sheaf's f32 safetensors.
//!
//! Every reader of a foreign file gives the same thing: an [`Index`] that says under which name, in which [`Format`] and
//! where in the file each tensor lies. Only the file's headers are read for it; the values are decoded later, a piece at
//! a time, so that converting a model costs the memory of one buffer. Pure over bytes: whoever calls reads and writes.

mod archive;
pub mod convert;
pub mod gguf;
pub mod kind;
pub mod pickle;
mod quantized;
pub mod script;
#[cfg(test)]
mod tests;
pub mod torch;
pub mod zip;

use std::collections::BTreeMap;

use super::weights::Weights;

/// Most dimensions of a tensor.
const DIMENSIONS_MAX: usize = 8;

/// Most tensors of a file.
pub const TENSORS_MAX: usize = 1 << 16;

/// How a tensor's values are stored. Values come in blocks of a fixed number and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Little-endian IEEE single precision.
    F32,
    /// Little-endian IEEE half precision.
    F16,
    /// The upper half of single precision, little-endian.
    Bf16,
    /// Little-endian IEEE double precision, rounded to single when it is decoded.
    F64,
    /// GGUF's blocks of 32 4-bit integers with a scale.
    Q4_0,
    /// GGUF's blocks of 32 4-bit integers with a scale and an offset.
    Q4_1,
    /// GGUF's blocks of 32 bytes with a scale.
    Q8_0,
}

/// A tensor in a foreign file, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape; empty for a scalar.
    pub shape: Vec<u64>,
    /// How its values are stored.
    pub format: Format,
    /// Where it starts, in bytes from the start of the file.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// How many values lie between neighbours along each axis; `None` where they lie row by row.
    pub strides: Option<Vec<u64>>,
}

/// The tensors of a foreign file by name, each known to lie within the file and to be as long as its shape makes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    tensors: BTreeMap<String, ForeignTensor>,
}

/// Tensors that cannot all be in one file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadIndex {
    /// More than [`TENSORS_MAX`].
    #[error("the file lists more than {TENSORS_MAX} tensors")]
    TooMany,
    /// Two tensors have one name.
    #[error("the file holds `{0}` twice")]
    Duplicate(String),
    /// More dimensions than `DIMENSIONS_MAX`, or more values than a file can hold.
    #[error("`{0}` has an impossible shape")]
    Shape(String),
    /// Values with gaps between them, or that are used twice.
    #[error(
        "`{0}` does not hold each of its values once: call .contiguous() on the tensors before saving them"
    )]
    Gaps(String),
    /// The shape and the length do not fit, or the tensor ends beyond the file.
    #[error("`{0}` does not lie within the file as its shape asks: the file is cut short or damaged")]
    Place(String),
}

impl Format {
    /// Values and bytes of a block.
    pub fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::F64 => (1, 8),
            Self::Q4_0 => (quantized::BLOCK, 18),
            Self::Q4_1 => (quantized::BLOCK, 20),
            Self::Q8_0 => (quantized::BLOCK, 34),
        }
    }

    /// Bytes of so many values; `None` when they are no whole blocks, or more than can be.
    pub fn bytes(self, values: u64) -> Option<u64> {
        let (in_block, bytes) = self.block();
        values.is_multiple_of(in_block).then_some(values / in_block)?.checked_mul(bytes)
    }

    /// Adds the values of `bytes`, which are whole blocks, to `values`; a tail that is no block is ignored.
    pub fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            Self::F32 => values.extend(bytes.as_chunks().0.iter().map(|v| f32::from_le_bytes(*v))),
            Self::F16 => values.extend(bytes.as_chunks().0.iter().map(|v| half(u16::from_le_bytes(*v)))),
            Self::Bf16 => values.extend(
                bytes.as_chunks().0.iter().map(|v| f32::from_bits(u32::from(u16::from_le_bytes(*v)) << 16)),
            ),
            Self::F64 => values.extend(bytes.as_chunks().0.iter().map(|v| f64::from_le_bytes(*v) as f32)),
            Self::Q4_0 => bytes.as_chunks().0.iter().for_each(|block| quantized::q4_0(block, values)),
            Self::Q4_1 => bytes.as_chunks().0.iter().for_each(|block| quantized::q4_1(block, values)),
            Self::Q8_0 => bytes.as_chunks().0.iter().for_each(|block| quantized::q8_0(block, values)),
        }
    }
}

/// A half-precision value: 1 bit of sign, 5 of exponent, 10 of fraction.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * f32::powi(2.0, -24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * f32::powi(2.0, exponent - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

impl ForeignTensor {
    /// Number of values; `None` when there are more than can be.
    pub fn numel(&self) -> Option<u64> {
        self.shape.iter().try_fold(1u64, |numel, size| numel.checked_mul(*size))
    }

    /// The values row by row, from all of them as they are `stored`.
    pub fn row_major(&self, stored: Vec<f32>) -> Vec<f32> {
        let Some(strides) = &self.strides else { return stored };
        let mut places = vec![0u64];
        for (size, stride) in self.shape.iter().zip(strides) {
            places = places.iter().flat_map(|place| (0..*size).map(move |at| place + at * stride)).collect();
        }
        // `Index::new` has established that all places are there.
        places.iter().filter_map(|place| stored.get(*place as usize).copied()).collect()
    }

    /// Whether the strides lead to each value once: ordered by them, each axis steps over all of the one before.
    fn is_dense(&self) -> bool {
        let Some(strides) = &self.strides else { return true };
        let mut axes: Vec<_> = strides.iter().zip(&self.shape).filter(|(_, size)| **size != 1).collect();
        axes.sort();
        let mut expected = 1u64;
        strides.len() == self.shape.len()
            && axes.into_iter().all(|(stride, size)| {
                let fits = *stride == expected;
                expected = expected.saturating_mul(*size);
                fits
            })
    }
}

impl Index {
    /// These tensors of a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// When a name comes twice, or a tensor does not lie within the file as its shape and format ask.
    pub fn new(tensors: impl IntoIterator<Item = ForeignTensor>, file_bytes: u64) -> Result<Self, BadIndex> {
        let mut index = Self::default();
        for tensor in tensors {
            if index.tensors.len() == TENSORS_MAX {
                return Err(BadIndex::TooMany);
            }
            let numel = tensor.numel().filter(|_| tensor.shape.len() <= DIMENSIONS_MAX);
            let numel = numel.ok_or_else(|| BadIndex::Shape(tensor.name.clone()))?;
            let end = tensor.offset.checked_add(tensor.bytes);
            if tensor.format.bytes(numel) != Some(tensor.bytes) || end.is_none_or(|end| end > file_bytes) {
                return Err(BadIndex::Place(tensor.name));
            }
            if !tensor.is_dense() {
                return Err(BadIndex::Gaps(tensor.name));
            }
            if let Some(twice) = index.tensors.insert(tensor.name.clone(), tensor) {
                return Err(BadIndex::Duplicate(twice.name));
            }
        }
        Ok(index)
    }

    /// The tensors of a safetensors file. Those of integers, which are counters and not parameters, are left out.
    pub fn of_safetensors(weights: &Weights) -> Self {
        let of = |(name, stored): (&str, &super::StoredTensor)| {
            let format = match stored.dtype.as_str() {
                "F32" => Format::F32,
                "F16" => Format::F16,
                "BF16" => Format::Bf16,
                "F64" => Format::F64,
                _ => return None,
            };
            let (shape, offset, bytes) = (stored.shape.clone(), stored.offset, stored.bytes);
            let tensor = ForeignTensor { name: name.to_owned(), shape, format, offset, bytes, strides: None };
            Some((name.to_owned(), tensor))
        };
        Self { tensors: weights.tensors().filter_map(of).collect() }
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&ForeignTensor> {
        self.tensors.get(name)
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = &ForeignTensor> {
        self.tensors.values()
    }
}
