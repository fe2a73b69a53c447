//! The largest values of an update, found without sorting it or a second copy of it.

use super::block::{from_bf16, to_bf16};

/// Bits of a magnitude that the first and the second pass look at.
const UPPER: u32 = 16;
const LOWER: u32 = 15;

/// How many of `numel` values a share is.
pub(super) fn count(share: f64, numel: u64) -> u64 {
    ((numel as f64 * share).ceil() as u64).min(numel)
}

/// Which values are sent: every one beyond a magnitude, and the first so many that have it.
pub(super) struct Largest {
    magnitude: u32,
    ties: u64,
}

impl Largest {
    pub(super) fn of(values: &[f32], share: f64) -> Self {
        let wanted = count(share, values.len() as u64);
        let (upper, wanted) = nth(values.iter().map(|value| magnitude(*value) >> LOWER), UPPER, wanted);
        let in_it = values.iter().map(|value| magnitude(*value)).filter(|bits| bits >> LOWER == upper);
        let (lower, ties) = nth(in_it.map(|bits| bits & ((1 << LOWER) - 1)), LOWER, wanted);
        Self { magnitude: upper << LOWER | lower, ties }
    }

    /// The positions and the values that are sent of a block, which has at most 2^16; what is not sent of them stays.
    pub(super) fn take(&mut self, values: &mut [f32]) -> Vec<u8> {
        let (mut places, mut kept) = (Vec::new(), Vec::new());
        for (place, value) in values.iter_mut().enumerate() {
            let bits = magnitude(*value);
            let is_tie = bits == self.magnitude && self.ties > 0;
            if bits == 0 || !(bits > self.magnitude || is_tie) {
                continue;
            }
            self.ties -= u64::from(is_tie);
            let coded = to_bf16(*value);
            places.extend((place as u16).to_le_bytes());
            kept.extend(coded);
            *value -= from_bf16(coded);
        }
        places.extend(kept);
        places
    }
}

/// Ordered as magnitudes are; a NaN is beyond all.
fn magnitude(value: f32) -> u32 {
    value.abs().to_bits()
}

/// The number, below 2^`bits`, of the `wanted`th largest; and how many of those that are equal to it are wanted.
fn nth(numbers: impl Iterator<Item = u32>, bits: u32, wanted: u64) -> (u32, u64) {
    let mut counts = vec![0u64; 1 << bits];
    numbers.for_each(|number| counts[number as usize] += 1);
    let mut left = wanted;
    for (number, count) in counts.iter().enumerate().rev() {
        if *count >= left {
            return (number as u32, left);
        }
        left -= count;
    }
    (0, left)
}
