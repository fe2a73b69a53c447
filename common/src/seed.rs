//! Randomness as a value: one seed per run, and a labelled stream for each use of it.
//!
//! Two uses never share a stream, whatever order they happen in, so that a replay draws the same numbers.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The random stream for one use, named by `labels`, of the run's `seed`.
pub fn stream(seed: u64, labels: &[&str]) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(derive(seed, labels))
}

/// A 63-bit seed for a library that takes an integer.
pub fn integer(seed: u64, labels: &[&str]) -> i64 {
    let bytes = derive(seed, labels);
    i64::from_le_bytes([
        bytes[0],
        bytes[1],
        bytes[2],
        bytes[3],
        bytes[4],
        bytes[5],
        bytes[6],
        bytes[7] & 0x7f,
    ])
}

fn derive(seed: u64, labels: &[&str]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("sheaf 2026 random stream v1");
    hasher.update(&seed.to_le_bytes());
    for label in labels {
        hasher.update(&(label.len() as u64).to_le_bytes());
        hasher.update(label.as_bytes());
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_stream_is_fixed_by_seed_and_labels() {
        let draw = |seed, labels: &[&str]| stream(seed, labels).next_u64();
        assert_eq!(draw(7, &["cohort", "1"]), draw(7, &["cohort", "1"]));
        assert_ne!(draw(7, &["cohort", "1"]), draw(8, &["cohort", "1"]));
        assert_ne!(draw(7, &["cohort", "1"]), draw(7, &["cohort1"]));
        assert!(integer(7, &["a"]) >= 0);
    }
}
