//! Sums of real numbers as integers, so that adding them up is exact; and such a sum as 64-bit slots whose sums
//! over sites cannot overflow.
//!
//! A sum is cut into limbs of 40 bits. Below the last limb a site's slot is less than 2^40, so that the sum over
//! 2^16 sites is less than 2^56. For the last limb, every sum states its most as a constant and [`fits`] is
//! asserted where the constant stands, by the compiler.

/// Most examples (for language models: tokens) behind one site's counts.
pub const EXAMPLES_MAX: u64 = 1 << 32;

/// Most sites behind pooled counts.
pub const SITES_MAX: u64 = 1 << 16;

/// Bits of every limb but the last.
const LIMB_BITS: u32 = 40;

/// Units of the fixed point per 1 where nothing else is said.
pub(super) const UNITS: u128 = 1 << 40;

/// A number that is not negative, in so many units.
pub(super) fn fixed(value: f64, units: u128) -> u128 {
    // A float cast saturates and turns NaN into 0.
    (value * units as f64).round() as u128
}

/// Whether 2^16 sums of at most `most` each, in so many limbs, add up to what fits the slots.
pub(super) const fn fits(most: u128, limbs: u32) -> bool {
    let last = most >> (LIMB_BITS * (limbs - 1));
    last <= (u64::MAX / SITES_MAX) as u128 && (1u64 << LIMB_BITS) <= u64::MAX / SITES_MAX
}

/// A sum as limbs, the lowest first. What is too large for them saturates.
pub(super) fn limbs<const N: usize>(sum: u128) -> [u64; N] {
    let mut rest = sum;
    let mut limbs = [0; N];
    for (at, limb) in limbs.iter_mut().enumerate() {
        if at + 1 == N {
            *limb = u64::try_from(rest).unwrap_or(u64::MAX);
        } else {
            *limb = (rest & ((1 << LIMB_BITS) - 1)) as u64;
            rest >>= LIMB_BITS;
        }
    }
    limbs
}

/// The inverse of [`limbs`], also of sums of limbs; `None` when it does not fit 128 bits.
pub(super) fn joined(limbs: &[u64]) -> Option<u128> {
    let step = |sum: u128, limb: &u64| sum.checked_mul(1 << LIMB_BITS)?.checked_add(u128::from(*limb));
    limbs.iter().rev().try_fold(0, step)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_of_limbs_are_limbs_of_sums(sums in prop::collection::vec(0u128..1 << 110, 1..20)) {
            let mut slots = [0u64; 3];
            for sum in &sums {
                slots.iter_mut().zip(limbs::<3>(*sum)).for_each(|(slot, limb)| *slot += limb);
            }
            prop_assert_eq!(joined(&slots), Some(sums.iter().sum()));
        }
    }

    #[test]
    fn the_most_of_every_site_fits() {
        let most = (1u128 << 110) - 1;
        assert!(fits(most, 3) && !fits(most, 2));
        let sums = limbs::<3>(most).map(|limb| limb.checked_mul(SITES_MAX).unwrap());
        assert_eq!(joined(&sums), Some(most * u128::from(SITES_MAX)));
        assert_eq!(joined(&[0, 0, u64::MAX]), None);
    }
}
