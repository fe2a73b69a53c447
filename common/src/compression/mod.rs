//! Updates in fewer bytes, where a run asks for it: `[compression]` in `run.toml`.
//!
//! A packed update is a header and then blocks of [`BLOCK`] values, so that the server reads any part of it with one block
//! in memory. The header begins with what would be a NaN: no update that is not packed begins like that and counts. Golden
//! bytes in the tests pin the format.

mod block;
#[cfg(test)]
mod tests;
mod top_k;

use std::io::{self, Write};
use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

pub use block::{BLOCK, BLOCK_HEADER, BadBlock, Block};

use self::top_k::Largest;

/// Bytes before the first block.
pub const HEADER: usize = 16;

/// Most values of a packed update: few bytes can stand for many, and all are looked at.
const NUMEL_MAX: u64 = 1 << 33;

/// As an f32 it is a NaN.
const MAGIC: [u8; 4] = *b"SU\xff\x7f";

/// How updates travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compression {
    /// The form of a value.
    pub encoding: Encoding,
    /// Whether a site compresses what it sends once more with zstd, without loss, where that takes less time than it saves.
    pub zstd: bool,
}

/// The form of a value in an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Encoding {
    /// Four bytes, exactly.
    #[default]
    F32,
    /// Two bytes, to the nearest.
    Bf16,
    /// One byte: a multiple of the largest magnitude in its 4096 values, divided by 127, rounded up or down at random so
    /// that the mean of many is right.
    Int8,
    /// This share of all values, the largest in magnitude, in two bytes and two for the position. What is left out is added
    /// to the site's next update (error feedback: Stich et al. 2018).
    TopK(f64),
}

/// The form of the values in a packed update, as its header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// [`Encoding::F32`]
    F32,
    /// [`Encoding::Bf16`]
    Bf16,
    /// [`Encoding::Int8`]
    Int8,
    /// [`Encoding::TopK`]
    TopK,
}

impl Compression {
    /// Whether updates are plain f32 values, without header and blocks.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// The form of the values in an update; none where it is not packed.
    pub fn form(&self) -> Option<Form> {
        (!self.is_off()).then(|| self.encoding.form())
    }

    /// Bytes of an update of `numel` values before zstd, at most.
    pub fn bytes(&self, numel: u64) -> u64 {
        let values = match self.encoding {
            Encoding::F32 => numel.saturating_mul(4),
            Encoding::Bf16 => numel.saturating_mul(2),
            Encoding::Int8 => numel.saturating_add(numel.div_ceil(block::SCALED as u64) * 4),
            Encoding::TopK(share) => top_k::count(share, numel).saturating_mul(4),
        };
        let headers = HEADER as u64 + numel.div_ceil(BLOCK as u64) * BLOCK_HEADER as u64;
        if self.is_off() { values } else { values.saturating_add(headers) }
    }

    /// Bytes that an update of `numel` values may have.
    pub fn lengths(&self, numel: u64) -> RangeInclusive<u64> {
        let most = self.bytes(numel);
        if self.is_off() { most..=most } else { HEADER as u64..=most }
    }

    /// Writes `values` packed. With top-k what was not sent is left in `values`, for the next update.
    pub fn pack(&self, values: &mut [f32], rng: &mut impl Rng, out: &mut impl Write) -> io::Result<()> {
        let form = self.encoding.form();
        out.write_all(&header(form, values.len() as u64))?;
        let mut largest = match self.encoding {
            Encoding::TopK(share) => Some(Largest::of(values, share)),
            Encoding::F32 | Encoding::Bf16 | Encoding::Int8 => None,
        };
        for values in values.chunks_mut(BLOCK) {
            let payload = match &mut largest {
                Some(largest) => largest.take(values),
                None => block::payload(form, values, rng),
            };
            block::write(form, payload, self.zstd, out)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.encoding {
            Encoding::F32 => f.write_str("f32"),
            Encoding::Bf16 => f.write_str("bf16"),
            Encoding::Int8 => f.write_str("int8"),
            Encoding::TopK(share) => write!(f, "the largest {}%", share * 100.0),
        }?;
        f.write_str(if self.zstd { ", zstd" } else { "" })
    }
}

impl Encoding {
    fn form(self) -> Form {
        match self {
            Self::F32 => Form::F32,
            Self::Bf16 => Form::Bf16,
            Self::Int8 => Form::Int8,
            Self::TopK(_) => Form::TopK,
        }
    }
}

fn header(form: Form, numel: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = form as u8;
    header[8..].copy_from_slice(&numel.to_le_bytes());
    header
}

/// The form and the number of values of a packed update, by its first bytes; nothing when it is not one.
pub fn opened(header: [u8; HEADER]) -> Option<(Form, u64)> {
    let [m0, m1, m2, m3, form, 0, 0, 0, numel @ ..] = header else { return None };
    let form =
        [Form::F32, Form::Bf16, Form::Int8, Form::TopK].into_iter().find(|known| *known as u8 == form)?;
    let numel = u64::from_le_bytes(numel);
    ([m0, m1, m2, m3] == MAGIC && numel <= NUMEL_MAX).then_some((form, numel))
}
