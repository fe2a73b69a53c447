//! Masks out of keys: AES-128 in counter mode, the same stream on every machine.
//!
//! Element j of a stream is its bytes 4j to 4j+3 (8j to 8j+7 for wide elements), little-endian, so any chunk
//! can be made by itself. Many masks over one vector are applied a block at a time, all masks to a block
//! while it is in the cache: this is where a site and the server spend their time.

use aes::Aes128;
use ctr::Ctr64LE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Bytes of a stream that are made at a time; half of a first-level cache.
pub(super) const BLOCK: usize = 16 * 1024;

/// What a mask does to the vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sign {
    /// It is added.
    Add,
    /// It is subtracted.
    Subtract,
}

/// A stream of bytes from a key; a position is a number of bytes and stays below 2^64.
pub struct Stream(Ctr64LE<Aes128>);

impl Stream {
    /// At its beginning.
    pub fn new(key: &[u8; 16]) -> Self {
        Self(Ctr64LE::new(key.into(), &[0; 16].into()))
    }

    /// At the element with this number, when each has so many bytes.
    pub fn at(key: &[u8; 16], element: u64, bytes: usize) -> Self {
        let mut stream = Self::new(key);
        stream.0.seek(element.wrapping_mul(bytes as u64));
        stream
    }

    /// The next bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.write_keystream(out);
    }
}

/// Adds or subtracts elements `start..` of each mask's stream, wrapping.
pub fn apply_ring(masks: &[(Sign, [u8; 16])], start: u64, out: &mut [u32]) {
    let add = |value: u32, mask| value.wrapping_add(u32::from_le_bytes(mask));
    let subtract = |value: u32, mask| value.wrapping_sub(u32::from_le_bytes(mask));
    apply(masks, start, out, add, subtract);
}

/// [`apply_ring`] for 64-bit elements.
pub fn apply_wide(masks: &[(Sign, [u8; 16])], start: u64, out: &mut [u64]) {
    let add = |value: u64, mask| value.wrapping_add(u64::from_le_bytes(mask));
    let subtract = |value: u64, mask| value.wrapping_sub(u64::from_le_bytes(mask));
    apply(masks, start, out, add, subtract);
}

/// Elements `start..` of a key's stream.
pub fn fill_ring(key: &[u8; 16], start: u64, out: &mut [u32]) {
    out.fill(0);
    apply_ring(&[(Sign::Add, *key)], start, out);
}

fn apply<T: Copy, const N: usize>(
    masks: &[(Sign, [u8; 16])],
    start: u64,
    out: &mut [T],
    add: impl Fn(T, [u8; N]) -> T,
    subtract: impl Fn(T, [u8; N]) -> T,
) {
    let mut streams: Vec<_> = masks.iter().map(|(sign, key)| (*sign, Stream::at(key, start, N))).collect();
    let mut buffer = Zeroizing::new(vec![0; BLOCK.min(out.len() * N)]);
    for block in out.chunks_mut(BLOCK / N) {
        let bytes = &mut buffer[..block.len() * N];
        for (sign, stream) in &mut streams {
            stream.fill(bytes);
            let (elements, _) = bytes.as_chunks::<N>();
            match sign {
                Sign::Add => combine(block, elements, &add),
                Sign::Subtract => combine(block, elements, &subtract),
            }
        }
    }
}

fn combine<T: Copy, const N: usize>(block: &mut [T], elements: &[[u8; N]], with: &impl Fn(T, [u8; N]) -> T) {
    for (value, element) in block.iter_mut().zip(elements) {
        *value = with(*value, *element);
    }
}

#[cfg(test)]
#[path = "tests/prg.rs"]
mod tests;
