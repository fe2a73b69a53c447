//! The partitions that are drawn at random.

use std::num::NonZeroU32;

use rand::seq::SliceRandom;
use rand_distr::{Distribution, Gamma, LogNormal};
use sheaf_common::seed;

use super::{By, PartitionError, by_label};

/// As many as everybody else, one more or less, of whatever comes.
pub(super) fn iid(clients: NonZeroU32, places: Vec<usize>, seed: u64) -> Vec<Vec<usize>> {
    in_shares(shuffled(places, seed), &vec![1.0; clients.get() as usize])
}

/// Of sizes from a log-normal distribution, of whatever comes.
pub(super) fn quantity(clients: NonZeroU32, places: Vec<usize>, sigma: f64, seed: u64) -> Vec<Vec<usize>> {
    let random = &mut seed::stream(seed, &["quantity"]);
    // The spread was checked when it was read.
    let size = LogNormal::new(0.0, sigma).ok();
    let shares: Vec<f64> = (0..clients.get()).map(|_| size.map_or(1.0, |size| size.sample(random))).collect();
    in_shares(shuffled(places, seed), &shares)
}

/// Of each label's examples a share drawn from a Dirichlet distribution over the clients.
pub(super) fn dirichlet(clients: NonZeroU32, places: &[usize], alpha: f64, by: &By<'_>) -> Vec<Vec<usize>> {
    let mut dealt = vec![Vec::new(); clients.get() as usize];
    for (label, mut places) in by_label(by.labels, places.iter().copied()) {
        let random = &mut seed::stream(by.seed, &["dirichlet", &label.to_string()]);
        places.shuffle(random);
        // Gamma variables over their sum are a Dirichlet variable; where all are too small for a number, shares are alike.
        let gamma = Gamma::new(alpha, 1.0).ok();
        let shares: Vec<f64> =
            dealt.iter().map(|_| gamma.map_or(1.0, |gamma| gamma.sample(random))).collect();
        let shares = if shares.iter().sum::<f64>() > 0.0 { shares } else { vec![1.0; dealt.len()] };
        for (own, part) in dealt.iter_mut().zip(in_shares(places, &shares)) {
            own.extend(part);
        }
    }
    dealt
}

/// The examples sorted by label and cut into equal pieces, so many of which each client draws.
pub(super) fn shards(
    clients: NonZeroU32,
    places: &[usize],
    per_client: NonZeroU32,
    by: &By<'_>,
) -> Result<Vec<Vec<usize>>, PartitionError> {
    let pieces = clients.get() as usize * per_client.get() as usize;
    if places.len() < pieces {
        let what = "an example in every shard";
        return Err(PartitionError::TooFew { examples: places.len(), clients: clients.get(), what });
    }
    let sorted: Vec<usize> = by_label(by.labels, places.iter().copied()).into_values().flatten().collect();
    let mut shards = in_shares(sorted, &vec![1.0; pieces]);
    shards.shuffle(&mut seed::stream(by.seed, &["shards"]));
    Ok(shards.chunks(per_client.get() as usize).map(<[_]>::concat).collect())
}

fn shuffled(mut places: Vec<usize>, seed: u64) -> Vec<usize> {
    places.shuffle(&mut seed::stream(seed, &["partition"]));
    places
}

/// Cuts a list into parts with these shares of it, which sum to more than 0, each rounded so that nothing is lost.
fn in_shares(places: Vec<usize>, shares: &[f64]) -> Vec<Vec<usize>> {
    let (count, total) = (places.len(), shares.iter().sum::<f64>());
    let (mut sum, mut begun) = (0.0, 0);
    let cut = |(number, share): (usize, &f64)| {
        sum += share;
        let end = if number + 1 == shares.len() {
            count
        } else {
            ((sum / total * count as f64).round() as usize).clamp(begun, count)
        };
        let part = places[begun..end].to_vec();
        begun = end;
        part
    };
    shares.iter().enumerate().map(cut).collect()
}
