//! The order in which a site's examples are trained on.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Endless batches: passes over all examples, each in a fresh random order, the last batch of a pass being what
/// is left of it.
pub(super) struct Batches {
    random: ChaCha8Rng,
    order: Vec<usize>,
    /// Examples of the current pass that are still to come, at the end of `order`.
    left: usize,
    size: usize,
}

impl Batches {
    /// Batches of `size` (at least 1) of so many `examples` (at least 1).
    pub(super) fn new(examples: usize, size: usize, random: ChaCha8Rng) -> Self {
        Self {
            random,
            order: (0..examples).collect(),
            left: 0,
            size: size.max(1),
        }
    }

    /// Batches of one pass.
    pub(super) fn per_pass(&self) -> u64 {
        self.order.len().div_ceil(self.size) as u64
    }

    /// The examples of the next step.
    pub(super) fn next_batch(&mut self) -> &[usize] {
        if self.left == 0 {
            self.order.shuffle(&mut self.random);
            self.left = self.order.len();
        }
        let start = self.order.len() - self.left;
        let taken = self.left.min(self.size);
        self.left -= taken;
        &self.order[start..start + taken]
    }
}
