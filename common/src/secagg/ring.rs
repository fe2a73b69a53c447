//! Ring elements on the wire: the low bytes of each, as many as the ring has.
//!
//! Masks are added modulo 2^32 and only then cut to the ring; the low bytes of a sum are the sum of the low
//! bytes, so nothing is lost.

/// Appends the low `ring_bytes` bytes (1 to 4) of each value, little-endian.
pub fn pack(values: &[u32], ring_bytes: u8, out: &mut Vec<u8>) {
    match ring_bytes {
        1 => pack_to::<1>(values, out),
        2 => pack_to::<2>(values, out),
        3 => pack_to::<3>(values, out),
        _ => pack_to::<4>(values, out),
    }
}

fn pack_to<const N: usize>(values: &[u32], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + values.len() * N, 0);
    let (elements, _) = out[start..].as_chunks_mut::<N>();
    for (element, value) in elements.iter_mut().zip(values) {
        let bytes = value.to_le_bytes();
        *element = std::array::from_fn(|at| bytes[at]);
    }
}

/// Adds each packed value to its sum, wrapping. The sums are right in their low `ring_bytes` bytes.
pub fn unpack_add(bytes: &[u8], ring_bytes: u8, sums: &mut [u32]) {
    debug_assert_eq!(bytes.len(), sums.len() * usize::from(ring_bytes), "one element for each sum");
    match ring_bytes {
        1 => unpack_from::<1>(bytes, sums),
        2 => unpack_from::<2>(bytes, sums),
        3 => unpack_from::<3>(bytes, sums),
        _ => unpack_from::<4>(bytes, sums),
    }
}

fn unpack_from<const N: usize>(bytes: &[u8], sums: &mut [u32]) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (sum, element) in sums.iter_mut().zip(elements) {
        let value = u32::from_le_bytes(std::array::from_fn(|at| if at < N { element[at] } else { 0 }));
        *sum = sum.wrapping_add(value);
    }
}

/// The bits of a ring of `ring_bytes` bytes (1 to 4).
pub fn mask_of(ring_bytes: u8) -> u32 {
    u32::MAX >> (32 - 8 * u32::from(ring_bytes.clamp(1, 4)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_golden() {
        let mut out = vec![9];
        pack(&[0x0403_0201, 0xdead_beef], 3, &mut out);
        assert_eq!(out, [9, 1, 2, 3, 0xef, 0xbe, 0xad]);
        assert_eq!([1, 2, 3, 4].map(mask_of), [0xff, 0xffff, 0x00ff_ffff, u32::MAX]);
    }

    proptest! {
        #[test]
        fn sums_of_packed_values_are_sums_modulo_the_ring(
            pairs in prop::collection::vec(any::<(u32, u32)>(), 0..70),
            ring_bytes in 1u8..=4,
        ) {
            let mut sums = vec![0; pairs.len()];
            let (first, second): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
            for column in [first, second] {
                let mut bytes = Vec::new();
                pack(&column, ring_bytes, &mut bytes);
                prop_assert_eq!(bytes.len(), column.len() * usize::from(ring_bytes));
                unpack_add(&bytes, ring_bytes, &mut sums);
            }
            let mask = mask_of(ring_bytes);
            for (sum, (a, b)) in sums.iter().zip(&pairs) {
                prop_assert_eq!(sum & mask, a.wrapping_add(*b) & mask);
            }
        }
    }
}
