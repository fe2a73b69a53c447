//! Our shares are given; what is left is to see that the server publishes the true sum.

use serde::{Deserialize, Serialize};

use crate::id::ClientId;
use crate::secagg::layout::Head;
use crate::secagg::mask::{Checks, Tally};
use crate::secagg::params::RoundParams;
use crate::secagg::transcript::Digest;

/// The end of an attempt, for us.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Released {
    pub(super) witness: Witness,
}

/// What a site needs in order to check the published sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Witness {
    /// The terms.
    pub params: RoundParams,
    /// T2.
    pub t2: Digest,
    /// Whose updates are in the sum, once we signed that.
    pub survivors: Option<Vec<ClientId>>,
    /// Keys that the server does not know; there are none on a graph that is not complete.
    pub(super) checks: Option<[[u8; 16]; 2]>,
}

/// The published sum is not the sum of what the survivors sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the published sum is not the sum of what the sites sent")]
pub struct WrongSum;

/// Checks a published sum chunk by chunk.
pub struct SumCheck<'a> {
    witness: &'a Witness,
    checks: Checks,
}

impl Witness {
    /// Starts a check.
    pub fn check(&self) -> SumCheck<'_> {
        SumCheck { witness: self, checks: Checks::new(&self.t2, self.checks.as_ref()) }
    }
}

impl SumCheck<'_> {
    /// The tally of the published ring elements from `start` on.
    pub fn chunk(&self, start: u64, sums: &[u32]) -> Tally {
        self.checks.fold(start, sums)
    }

    /// Compares the tally of all chunks with the published head of a sum over so many `survivors`.
    pub fn finish(&self, mut tally: Tally, head: &Head, survivors: usize) -> Result<(), WrongSum> {
        tally.add(&self.checks.fold_head(self.witness.params.layout.values(), head));
        let sites = head.sites == survivors as u64;
        let keyed = self.witness.checks.is_none() || tally.checks == head.checks;
        if sites && keyed && tally.checksum == head.checksum { Ok(()) } else { Err(WrongSum) }
    }
}
