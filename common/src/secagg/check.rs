//! A linear check on a sum: each site adds the check of its own vector, and the sum of the checks must be the
//! check of the sum.
//!
//! Against whoever does not know the key, a forged sum passes with probability at most 2^-32 for each
//! independent key, so 2^-64 for two. Coefficients are uniform words of 32 bits and the check is modulo 2^64.
//! Take one place where the forged sum is wrong by e, with 0 < |e| < 2^33, and fix the coefficients of all
//! others: the check holds for those r with r * e = const modulo 2^64. With e = 2^s * odd and s <= 32 this
//! fixes r modulo 2^(64 - s), that is modulo at least 2^32, so at most one of the 2^32 coefficients passes. A
//! sum of ring elements is an integer below 2^32 and so is every error in it; a 64-bit slot must be bounded
//! by other means, since an error of 2^63 in one is missed by every other key.

use zeroize::Zeroizing;

use super::prg::{BLOCK, Stream};

/// The coefficients of one key: element j is number j of the key's stream.
#[derive(Clone)]
pub struct LinearCheck {
    key: Zeroizing<[u8; 16]>,
}

impl LinearCheck {
    /// Under this key.
    pub fn new(key: &[u8; 16]) -> Self {
        Self { key: Zeroizing::new(*key) }
    }

    /// The sum of coefficient times value, for the values at places `start..`, modulo 2^64. The folds of
    /// chunks add up to the fold of the whole.
    pub fn fold(&self, start: u64, values: &[u32]) -> u64 {
        self.sum(start, values, |value| u64::from(*value))
    }

    /// [`Self::fold`] over 64-bit values.
    pub fn fold_wide(&self, start: u64, values: &[u64]) -> u64 {
        self.sum(start, values, |value| *value)
    }

    fn sum<T>(&self, start: u64, values: &[T], wide: impl Fn(&T) -> u64) -> u64 {
        let mut stream = Stream::at(&self.key, start, 4);
        let mut buffer = Zeroizing::new(vec![0; BLOCK.min(4 * values.len())]);
        let mut sum = 0u64;
        for block in values.chunks(BLOCK / 4) {
            let bytes = &mut buffer[..4 * block.len()];
            stream.fill(bytes);
            let (coefficients, _) = bytes.as_chunks::<4>();
            for (value, coefficient) in block.iter().zip(coefficients) {
                let coefficient = u64::from(u32::from_le_bytes(*coefficient));
                sum = sum.wrapping_add(coefficient.wrapping_mul(wide(value)));
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::prg::fill_ring;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_fold_is_the_plain_sum_and_adds_up_over_chunks(
            key: [u8; 16],
            values in prop::collection::vec(any::<u32>(), 0..9000),
            start in 0u64..100,
            cut in 0.0..1.0f64,
        ) {
            let check = LinearCheck::new(&key);
            let mut coefficients = vec![0; values.len()];
            fill_ring(&key, start, &mut coefficients);
            let plain = values.iter().zip(&coefficients).fold(0u64, |sum, (value, coefficient)| {
                sum.wrapping_add(u64::from(*value) * u64::from(*coefficient))
            });
            let cut = (values.len() as f64 * cut) as usize;
            let second = check.fold(start + cut as u64, &values[cut..]);
            prop_assert_eq!(check.fold(start, &values[..cut]).wrapping_add(second), plain);
            let wide: Vec<u64> = values.iter().map(|value| u64::from(*value)).collect();
            prop_assert_eq!(check.fold_wide(start, &wide), plain);
        }

        #[test]
        fn one_wrong_value_is_found(
            key: [u8; 16], mut values in prop::collection::vec(any::<u32>(), 1..200), at: prop::sample::Index,
            error in 1u32..,
        ) {
            let check = LinearCheck::new(&key);
            let before = check.fold(0, &values);
            let value = at.get_mut(&mut values);
            *value = value.wrapping_add(error);
            prop_assert_ne!(check.fold(0, &values), before);
        }
    }
}
