//! Whoever watches a simulation of these tests.

use sheaf_sim::rounds::Row;
use sheaf_sim::simulate::Audience;

/// Somebody who goes away after so many rounds.
pub(crate) struct Leaver {
    pub(crate) left: Option<usize>,
}

impl Audience for Leaver {
    fn interrupts(&self) -> bool {
        self.left == Some(0)
    }

    fn round(&mut self, _row: &Row, _rounds: u32) {
        self.left = self.left.map(|left| left.saturating_sub(1));
    }

    fn begins(&mut self, _what: &str) {}
}
