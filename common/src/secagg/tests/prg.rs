use proptest::prelude::*;

use super::*;

/// The stream from its beginning, byte by byte.
fn plain(key: [u8; 16], elements: usize) -> Vec<u32> {
    let mut bytes = vec![0; 4 * elements];
    Stream::new(&key).fill(&mut bytes);
    bytes.as_chunks().0.iter().map(|element| u32::from_le_bytes(*element)).collect()
}

#[test]
fn the_counter_is_the_low_half_of_the_block() {
    use ctr::cipher::{BlockCipherEncrypt, KeyInit};
    let key = [7; 16];
    let mut block = [0; 16];
    block[..8].copy_from_slice(&5u64.to_le_bytes());
    let mut block = block.into();
    Aes128::new(&key.into()).encrypt_block(&mut block);
    let mut stream = [0; 16];
    Stream::at(&key, 20, 4).fill(&mut stream);
    assert_eq!(block.as_slice(), stream);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_chunk_can_be_made_by_itself(key: [u8; 16], start in 0usize..6000, len in 0usize..6000) {
        let mut chunk = vec![0; len];
        fill_ring(&key, start as u64, &mut chunk);
        prop_assert_eq!(&chunk[..], &plain(key, start + len)[start..]);
    }

    #[test]
    fn masks_add_up_as_one_by_one(
        masks in prop::collection::vec((any::<bool>(), any::<[u8; 16]>()), 0..5),
        start in 0u64..100, len in 0usize..9000, value: u32,
    ) {
        let sign = |add| if add { Sign::Add } else { Sign::Subtract };
        let undo: Vec<_> = masks.iter().map(|(add, key)| (sign(!*add), *key)).collect();
        let masks: Vec<_> = masks.into_iter().map(|(add, key)| (sign(add), key)).collect();
        let mut fast = vec![value; len];
        apply_ring(&masks, start, &mut fast);
        let mut slow = vec![value; len];
        for (sign, key) in &masks {
            for (value, mask) in slow.iter_mut().zip(&plain(*key, start as usize + len)[start as usize..]) {
                *value = match sign {
                    Sign::Add => value.wrapping_add(*mask),
                    Sign::Subtract => value.wrapping_sub(*mask),
                };
            }
        }
        prop_assert_eq!(&fast, &slow);
        apply_ring(&undo, start, &mut fast);
        prop_assert_eq!(fast, vec![value; len]);
    }

    #[test]
    fn a_wide_element_is_two_of_the_ring(key: [u8; 16], start in 0usize..3000, len in 0usize..3000) {
        let mut wide = vec![0; len];
        apply_wide(&[(Sign::Add, key)], start as u64, &mut wide);
        let ring = plain(key, 2 * (start + len));
        for (at, value) in wide.iter().enumerate() {
            let at = 2 * (start + at);
            prop_assert_eq!(*value, u64::from(ring[at]) | u64::from(ring[at + 1]) << 32);
        }
    }
}
