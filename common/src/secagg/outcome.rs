//! From the sum to the mean update: what the server does with it, and every site can do again.

use super::layout::Head;
use super::params::RoundParams;

/// A range is this many times the largest value of the last mean update: single updates spread wider.
const SPREAD: f64 = 4.0;

/// A tensor's range is at least this share of the widest tensor's, so that one that hardly moved may move.
const SHARE: f64 = 1.0 / 16.0;

/// Ranges double when more than this share of the values was clamped.
const CLAMPED: f64 = 1e-3;

/// The mean update of the parameters from `start` on, of which `sums` are the ring's sums; weighted by examples.
pub fn mean(params: &RoundParams, head: &Head, start: u64, sums: &[u32]) -> Vec<f64> {
    // Without any weight there is nothing to divide: every update was 0.
    let weight = head.weight.max(1) as f64 / params.weight_cap as f64;
    // The number of sites was checked against the ring, which is narrower than 32 bits.
    let sites = u32::try_from(head.sites).unwrap_or(u32::MAX);
    let mut mean = Vec::with_capacity(sums.len());
    for (tensor, len) in params.layout.pieces(start, sums.len()) {
        let range = params.ranges[tensor];
        let piece = &sums[mean.len()..mean.len() + len];
        mean.extend(piece.iter().map(|sum| params.encoding.decode(*sum, sites, range) / weight));
    }
    mean
}

/// Root mean square of the error that quantization adds to a value of the mean, per tensor: the formula for
/// stochastic rounding, `step * sqrt(sites / 6) / (weight / cap)`.
pub fn rounding_error(params: &RoundParams, head: &Head) -> Vec<f64> {
    let weight = head.weight.max(1) as f64 / params.weight_cap as f64;
    let spread = (head.sites as f64 / 6.0).sqrt() / weight;
    params.ranges.iter().map(|range| params.encoding.step(*range) * spread).collect()
}

/// The ranges for the next round, from the largest magnitude of each tensor's mean update in this one; all of them
/// doubled instead when many values were clamped, as often as that goes on.
pub fn next_ranges(params: &RoundParams, head: &Head, largest: &[f64]) -> Vec<f32> {
    let values = params.layout.values() * head.sites;
    if values > 0 && head.clamped as f64 > CLAMPED * values as f64 {
        return params.ranges.iter().map(|range| (range * 2.0).min(f32::MAX / 4.0)).collect();
    }
    let widest = largest.iter().copied().fold(0.0, f64::max);
    let next =
        |largest: &f64| (SPREAD * largest.max(widest * SHARE)).max(f64::from(f32::MIN_POSITIVE)) as f32;
    // A round in which nothing moved says nothing about the next.
    if widest == 0.0 { params.ranges.clone() } else { largest.iter().map(next).collect() }
}
