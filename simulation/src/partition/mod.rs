//! Who gets which examples: the ways in which the field makes a federation of one data set, each drawn from a seed.
//!
//! Whatever the way, every example goes to exactly one client, and every client has at least one.

mod draw;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;

use crate::config::Partition;

/// The places of every client's examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings(Vec<Vec<usize>>);

/// What examples are divided by.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    /// The label of every example of the source; the same for all where there are none.
    pub labels: &'a [u32],
    /// Which value of the column each has, numbered in the order in which they come.
    pub values: Option<&'a [u32]>,
    /// Seed of what is drawn.
    pub seed: u64,
}

/// The examples cannot be divided so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// More clients than examples, or pieces.
    #[error("{examples} examples cannot be divided among {clients} clients ({what}): simulate fewer clients")]
    TooFew {
        /// Examples that there are.
        examples: usize,
        /// Clients that want some.
        clients: u32,
        /// What each must have.
        what: &'static str,
    },
    /// The column's values are not as many as the clients.
    #[error("the column has {values} values, and each is a client: write clients = {values}")]
    Values {
        /// Values of the column.
        values: usize,
    },
    /// The source has one label or none.
    #[error("there are no labels to divide by: use partition \"iid\" or \"quantity\"")]
    NoLabels,
}

impl Holdings {
    /// Clients that hold nothing.
    pub fn nothing(clients: NonZeroU32) -> Self {
        Self(vec![Vec::new(); clients.get() as usize])
    }

    /// The places of a client's examples, in their order in the source.
    pub fn of(&self, client: u32) -> &[usize] {
        self.0.get(client as usize).map_or(&[], Vec::as_slice)
    }

    /// The places of each client's examples.
    pub fn each(&self) -> impl Iterator<Item = &[usize]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// The places of all clients' examples, in their order in the source.
    pub fn all(&self) -> Vec<usize> {
        let mut all = self.0.concat();
        all.sort_unstable();
        all
    }
}

/// Divides the examples at `places` among the clients.
pub fn divide(
    how: &Partition,
    clients: NonZeroU32,
    places: Vec<usize>,
    by: &By<'_>,
) -> Result<Holdings, PartitionError> {
    let examples = places.len();
    if examples < clients.get() as usize {
        let what = "at least one each";
        return Err(PartitionError::TooFew { examples, clients: clients.get(), what });
    }
    let mut dealt = match how {
        Partition::Column(_) => by_column(clients, places, by.values.unwrap_or_default())?,
        Partition::Iid => draw::iid(clients, places, by.seed),
        Partition::Quantity { sigma } => draw::quantity(clients, places, *sigma, by.seed),
        Partition::Dirichlet { .. } | Partition::Shards { .. }
            if by_label(by.labels, places.iter().copied()).len() < 2 =>
        {
            return Err(PartitionError::NoLabels);
        }
        Partition::Dirichlet { alpha } => draw::dirichlet(clients, &places, *alpha, by),
        Partition::Shards { per_client } => draw::shards(clients, &places, *per_client, by)?,
    };
    feed_the_hungry(&mut dealt);
    dealt.iter_mut().for_each(|places| places.sort_unstable());
    Ok(Holdings(dealt))
}

/// A client for each value, in the order in which the values come.
fn by_column(
    clients: NonZeroU32,
    places: Vec<usize>,
    values: &[u32],
) -> Result<Vec<Vec<usize>>, PartitionError> {
    let mut parts = BTreeMap::<u32, Vec<usize>>::new();
    for place in places {
        parts.entry(values[place]).or_default().push(place);
    }
    if parts.len() != clients.get() as usize {
        return Err(PartitionError::Values { values: parts.len() });
    }
    Ok(parts.into_values().collect())
}

/// The places of each label's examples.
pub fn by_label(labels: &[u32], places: impl IntoIterator<Item = usize>) -> BTreeMap<u32, Vec<usize>> {
    let mut parts = BTreeMap::<u32, Vec<usize>>::new();
    for place in places {
        parts.entry(labels[place]).or_default().push(place);
    }
    parts
}

/// Gives an example of whoever has most to each that has none.
fn feed_the_hungry(dealt: &mut [Vec<usize>]) {
    // By what they have; of those who have the same, the first gives.
    let rank = |client: usize, parts: &[Vec<usize>]| (parts[client].len(), Reverse(client));
    let mut richest: BinaryHeap<_> = (0..dealt.len()).map(|client| rank(client, dealt)).collect();
    for hungry in 0..dealt.len() {
        if dealt[hungry].is_empty()
            && let Some((_, Reverse(giver))) = richest.pop()
            && let Some(place) = dealt[giver].pop()
        {
            dealt[hungry].push(place);
            richest.push(rank(giver, dealt));
        }
    }
}
