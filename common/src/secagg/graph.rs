//! Who shares masks with whom, and how many shares bring a secret back.
//!
//! On the complete graph everybody does with everybody, and a malicious server with `max_colluding` sites on
//! its side learns only the sum (Bonawitz et al. 2017). On the regular graph a site has few neighbours, so
//! that thousands can take part (Bell et al. 2020); it holds against a server that follows the protocol,
//! because one that chooses who drops out could cut a site off from all its neighbours.

pub mod finder;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::finder::{Assumptions, Degree};
use super::kem::PUBLIC_BYTES;
use super::prg::Stream;
use crate::wire::FRAME_MAX;

/// Sites over which every one may share with every other: beyond, messages and work grow too fast.
pub const COMPLETE_MAX: u32 = 256;

/// Bytes of a site in the list of everybody's keys: its certificate, its name twice, three keys and a signature.
const ENTRY: usize = 700;

/// Sites whose keys fit in the one message that shows them to everybody.
pub fn roster_max(post_quantum: bool) -> u32 {
    let entry = if post_quantum { ENTRY + 2 * PUBLIC_BYTES } else { ENTRY };
    // A message is shorter than 2^32 bytes.
    (FRAME_MAX / entry) as u32
}

/// The graph over the ranks 0 to n-1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Graph {
    /// Everybody with everybody.
    Complete {
        /// How many there are.
        sites: u32,
        /// Shares that bring a secret back.
        threshold: u32,
    },
    /// Each site with the `degree / 2` before it and after it on a ring of random order (a Harary graph).
    Regular {
        /// The rank at each position of the ring.
        order: Vec<u32>,
        /// Neighbours of a site; even, and less than the number of sites.
        degree: u32,
        /// Shares that bring a secret back.
        threshold: u32,
    },
}

impl Graph {
    /// The complete graph over `sites` sites, of which so many may collude with the server: a third
    /// when not given. `None` when there is no one to share with, or when so many collude that nothing
    /// can be promised.
    pub fn complete(sites: u32, max_colluding: Option<u32>) -> Option<Self> {
        let colluding = max_colluding.unwrap_or(sites / 3);
        if sites < 2 || colluding >= sites {
            return None;
        }
        let threshold = quorum(sites, colluding);
        (threshold <= sites).then_some(Self::Complete { sites, threshold })
    }

    /// The regular graph over `sites` sites, the same for everybody who knows the seed. A third may be
    /// corrupt and a tenth may drop out. `None` when no such graph is better than the complete one.
    pub fn regular(sites: u32, seed: &[u8; 32]) -> Option<Self> {
        let Degree { degree, threshold } =
            Assumptions { corrupt: 0.33, dropouts: 0.1 }.least_degree(sites)?;
        Some(Self::Regular { order: permutation(sites, seed), degree, threshold })
    }

    /// The ranks that this one shares a mask with, in ascending order; nobody for a rank that there is not.
    pub fn neighbours(&self, rank: u32) -> Vec<u32> {
        match self {
            Self::Complete { sites, .. } if rank >= *sites => Vec::new(),
            Self::Complete { sites, .. } => (0..*sites).filter(|other| *other != rank).collect(),
            Self::Regular { order, degree, .. } => around(order, *degree as usize, rank),
        }
    }

    /// The ranks that hold a share of this one's secrets, in ascending order.
    pub fn holders(&self, rank: u32) -> Vec<u32> {
        match self {
            Self::Complete { sites, .. } => (0..*sites).collect(),
            Self::Regular { .. } => self.neighbours(rank),
        }
    }

    /// Shares that bring a secret back.
    pub fn threshold(&self) -> u32 {
        match self {
            Self::Complete { threshold, .. } | Self::Regular { threshold, .. } => *threshold,
        }
    }
}

/// More than half of the honest sites together with all that collude: two sets of that size have an honest
/// site in common, which never gives both of a site's secrets away, nor signs two sets of survivors.
pub fn quorum(sites: u32, colluding: u32) -> u32 {
    // At most 2^32 - 1 / 2 + 2^32 - 1 / 2 + 1 + 1, which saturates to a quorum that no one reaches.
    (sites / 2 + colluding / 2 + (sites & colluding & 1)).saturating_add(1)
}

fn around(order: &[u32], degree: usize, rank: u32) -> Vec<u32> {
    let sites = order.len();
    let Some(at) = order.iter().position(|other| *other == rank) else {
        return Vec::new();
    };
    let near = |distance: usize| [order[(at + distance) % sites], order[(at + sites - distance) % sites]];
    let mut neighbours: Vec<_> = (1..=degree / 2).flat_map(near).collect();
    neighbours.sort_unstable();
    neighbours
}

/// The ranks in a random order (Fisher and Yates).
fn permutation(sites: u32, seed: &[u8; 32]) -> Vec<u32> {
    let digest: [u8; 32] = Sha256::new().chain_update("graph").chain_update(seed).finalize().into();
    let mut stream = Stream::new(&std::array::from_fn(|at| digest[at]));
    let mut order: Vec<_> = (0..sites).collect();
    for last in (1..sites).rev() {
        order.swap(last as usize, draw(&mut stream, last + 1) as usize);
    }
    order
}

/// A uniform number below the bound: words past the last multiple of the bound are passed over.
fn draw(stream: &mut Stream, bound: u32) -> u32 {
    let usable = (1u64 << 32) / u64::from(bound) * u64::from(bound);
    loop {
        let mut word = [0; 4];
        stream.fill(&mut word);
        let word = u32::from_le_bytes(word);
        if u64::from(word) < usable {
            return word % bound;
        }
    }
}

#[cfg(test)]
#[path = "tests/graph.rs"]
mod tests;
