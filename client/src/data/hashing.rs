//! Where a word goes that no list holds: as scikit-learn's `FeatureHasher` puts `{column: word}`, so that sites encode
//! alike without any of them telling its words, and so can whoever uses the model.

/// A column's buckets.
pub(super) struct Hashing<'a> {
    /// The run's name for it: equal words of two columns are different.
    pub(super) column: &'a str,
    /// At least one.
    pub(super) buckets: u32,
}

impl Hashing<'_> {
    /// The word's bucket, and 1 or -1: words that share a bucket tend to cancel rather than to add up.
    pub(super) fn place(&self, word: &str) -> (usize, f32) {
        let hash = murmur3(format!("{}={word}", self.column).as_bytes()) as i32;
        let bucket = hash.unsigned_abs() % self.buckets;
        (bucket as usize, if hash >= 0 { 1.0 } else { -1.0 })
    }
}

/// MurmurHash3 (Appleby), the 32-bit variant for little-endian machines, with seed 0. It is no secret and needs no key:
/// what it makes stays at the site.
fn murmur3(bytes: &[u8]) -> u32 {
    let mix = |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (blocks, tail) = bytes.as_chunks::<4>();
    let body = blocks.iter().fold(0u32, |hash, block| {
        (hash ^ mix(u32::from_le_bytes(*block))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
    });
    let rest = tail.iter().rev().fold(0, |rest, byte| (rest << 8) | u32::from(*byte));
    let hash = body ^ mix(rest) ^ bytes.len() as u32;
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
