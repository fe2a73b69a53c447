//! Values of GGUF's small types: blocks of 32, each of a scale in half precision, for some an offset, and integers of
//! a few bits. A block's 4-bit integers are two to a byte: its first half in the low bits, its second in the high ones.

use super::half;

/// Values in a block.
pub(super) const BLOCK: u64 = 32;

/// `scale * (q - 8)`: a scale and 16 bytes of 4-bit integers.
pub(super) fn q4_0(block: &[u8; 18], values: &mut Vec<f32>) {
    let [s0, s1, packed @ ..] = block;
    let scale = of(*s0, *s1);
    values.extend(nibbles(packed).map(|q| scale * (q - 8.0)));
}

/// `scale * q + offset`: a scale, an offset and 16 bytes of 4-bit integers.
pub(super) fn q4_1(block: &[u8; 20], values: &mut Vec<f32>) {
    let [s0, s1, o0, o1, packed @ ..] = block;
    let (scale, offset) = (of(*s0, *s1), of(*o0, *o1));
    values.extend(nibbles(packed).map(|q| scale * q + offset));
}

/// `scale * q`: a scale and 32 signed bytes.
pub(super) fn q8_0(block: &[u8; 34], values: &mut Vec<f32>) {
    let [s0, s1, packed @ ..] = block;
    let scale = of(*s0, *s1);
    values.extend(packed.iter().map(|q| scale * f32::from(i8::from_le_bytes([*q]))));
}

fn of(low: u8, high: u8) -> f32 {
    half(u16::from_le_bytes([low, high]))
}

fn nibbles(packed: &[u8]) -> impl Iterator<Item = f32> {
    packed.iter().map(|byte| f32::from(byte & 15)).chain(packed.iter().map(|byte| f32::from(byte >> 4)))
}
