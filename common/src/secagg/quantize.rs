//! From real numbers to integers that can be summed without anybody seeing them, and back.
//!
//! A value is clamped to its range, weighted, and rounded at random to one of 2^bits levels, so that it is
//! right on average: the error of the mean of n sites is step * sqrt(n / 6) / (sum of the weights), rms. The
//! ring is wide enough for the sum of all sites.

use serde::{Deserialize, Serialize};

/// Bits of a value.
const BITS: std::ops::RangeInclusive<u8> = 8..=24;

/// Adding it to a number of magnitude below 2^51 rounds that to an integer, which is then in the low bits:
/// the conversions of the language saturate, which the compiler cannot do for several numbers at once.
const MAGIC: f64 = (1u64 << 52) as f64;

/// Values counted at a time, few enough for a 32-bit count.
const BLOCK: usize = 4096;

/// How a value becomes an integer, and how many bytes it travels in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Encoding {
    bits: u8,
    ring_bytes: u8,
}

/// An encoding as it was written down by somebody, who may be wrong.
#[derive(Deserialize)]
struct Written {
    bits: u8,
    ring_bytes: u8,
}

/// An encoding in which sums would not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overflow {
    /// Fewer bits are too coarse; with more, an f32 has nothing to say in them.
    #[error("a value of {0} bits cannot be summed securely: use 8 to 24 bits")]
    Bits(u8),
    /// The sum would wrap around.
    #[error("the sum of {sites} sites' values of {bits} bits does not fit in 32 bits: use fewer bits")]
    Sites {
        /// Bits of a value.
        bits: u8,
        /// The most sites that may take part.
        sites: u32,
    },
    /// A ring that no encoding has.
    #[error("values of {bits} bits do not travel in {ring_bytes} bytes")]
    Ring {
        /// Bits of a value.
        bits: u8,
        /// Bytes of a ring element.
        ring_bytes: u8,
    },
}

/// A value is a NaN or an infinity, so there is no integer for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the update holds a value that is not a finite number")]
pub struct NotFinite;

impl Encoding {
    /// The narrowest ring for values of `bits` bits (8 to 24), summed over at most `max_sites` sites.
    pub fn new(bits: u8, max_sites: u32) -> Result<Self, Overflow> {
        if !BITS.contains(&bits) {
            return Err(Overflow::Bits(bits));
        }
        (1..=4)
            .map(|ring_bytes| Self { bits, ring_bytes })
            .find(|encoding| encoding.fits(max_sites))
            .ok_or(Overflow::Sites { bits, sites: max_sites })
    }

    /// Bits of a value.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Bytes of a ring element, 1 to 4.
    pub fn ring_bytes(&self) -> u8 {
        self.ring_bytes
    }

    /// Whether the sum of so many sites' values fits in the ring.
    pub fn fits(&self, sites: u32) -> bool {
        let doublings = u32::BITS - sites.saturating_sub(1).leading_zeros();
        u32::from(self.bits) + doublings <= 8 * u32::from(self.ring_bytes)
    }

    /// Distance of two levels, when values range over plus or minus `range`.
    pub fn step(&self, range: f32) -> f64 {
        2.0 * f64::from(range) / f64::from(self.top())
    }

    /// The integers of `factor * value`, each value first clamped to plus or minus `range`, into `out`; how
    /// many were clamped. `noise` is uniform, a word for each value; the three slices are of one length. The
    /// factor is 0 to 1, and the range is finite and above 0.
    pub fn quantize(
        &self,
        values: &[f32],
        factor: f64,
        range: f32,
        noise: &[u32],
        out: &mut [u32],
    ) -> Result<u64, NotFinite> {
        debug_assert!(values.len() == noise.len() && values.len() == out.len(), "a word for each value");
        debug_assert!((0.0..=1.0).contains(&factor), "a weight is a share of the cap");
        let levels = Levels {
            factor,
            range,
            offset: f64::from(range),
            per_step: 1.0 / self.step(range),
            top: f64::from(self.top()),
        };
        let blocks = values.chunks(BLOCK).zip(noise.chunks(BLOCK)).zip(out.chunks_mut(BLOCK));
        let mut clamped = 0;
        for ((values, noise), out) in blocks {
            clamped += u64::from(levels.block(values, noise, out)?);
        }
        Ok(clamped)
    }

    /// The sum of the (weighted) values of `sites` sites from the sum of their integers.
    pub fn decode(&self, sum: u32, sites: u32, range: f32) -> f64 {
        f64::from(sum) * self.step(range) - f64::from(sites) * f64::from(range)
    }

    /// How far a sum over `sites` sites is from that of zeros, in half steps, of which a range has as many as the
    /// highest level says.
    pub fn distance(&self, sum: u32, sites: u64) -> u64 {
        (2 * u64::from(sum)).abs_diff(sites.saturating_mul(u64::from(self.top())))
    }

    /// How far it can be, when the sites' weights come to `weight` and each has at most `cap`: a site's values are
    /// within its share of the range, and rounding moves each by less than a step. What floating point adds is below
    /// 2^-25 of a half step for a site, and so below one for all that fit in a ring.
    pub fn farthest(&self, sites: u64, weight: u64, cap: u64) -> u64 {
        let shares = u128::from(self.top()) * u128::from(weight) / u128::from(cap.max(1));
        u64::try_from(shares).unwrap_or(u64::MAX).saturating_add(2 * sites + 1)
    }

    /// The highest level.
    fn top(&self) -> u32 {
        (1 << self.bits) - 1
    }
}

impl TryFrom<Written> for Encoding {
    type Error = Overflow;

    fn try_from(Written { bits, ring_bytes }: Written) -> Result<Self, Overflow> {
        let encoding = Self { bits, ring_bytes };
        if !BITS.contains(&bits) {
            return Err(Overflow::Bits(bits));
        }
        if !(1..=4).contains(&ring_bytes) || !encoding.fits(1) {
            return Err(Overflow::Ring { bits, ring_bytes });
        }
        Ok(encoding)
    }
}

/// The levels of one tensor, ready for the loop over its values.
struct Levels {
    factor: f64,
    range: f32,
    offset: f64,
    per_step: f64,
    top: f64,
}

impl Levels {
    /// No branch and no saturating conversion, so that several values are done at once.
    fn block(&self, values: &[f32], noise: &[u32], out: &mut [u32]) -> Result<u32, NotFinite> {
        let (mut clamped, mut unsound) = (0, 0);
        for ((value, noise), out) in values.iter().zip(noise).zip(out) {
            unsound |= u32::from(!value.is_finite());
            clamped += u32::from(value.abs() > self.range);
            *out = self.level(*value, *noise);
        }
        if unsound == 0 { Ok(clamped) } else { Err(NotFinite) }
    }

    #[inline(always)]
    fn level(&self, value: f32, noise: u32) -> u32 {
        let value = self.factor * f64::from(value.max(-self.range).min(self.range));
        let noise = unsigned(noise) * (1.0 / (1u64 << 32) as f64);
        // Rounding of the product can lift the topmost value a hair above its level.
        let level = ((value + self.offset) * self.per_step + noise).min(self.top);
        // Adding rounds to the nearest integer, the floor or one above it.
        let nearest = level + MAGIC;
        (nearest.to_bits() as u32).wrapping_sub(u32::from(nearest - MAGIC > level))
    }
}

/// A word as a number: its bits under the exponent of 2^52. (There is no instruction for it in plain x86-64.)
#[inline(always)]
fn unsigned(word: u32) -> f64 {
    f64::from_bits(MAGIC.to_bits() | u64::from(word)) - MAGIC
}

#[cfg(test)]
#[path = "tests/quantize.rs"]
mod tests;
