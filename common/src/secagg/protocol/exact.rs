//! Whoever falls out, and whenever: the opened sum is the plain integer sum of the survivors' quantised updates,
//! to the last bit, or the attempt is abandoned.

use proptest::prelude::*;

use super::*;
use crate::secagg::mask::MaskPlan;
use crate::secagg::outcome;

/// The survivors' ring elements without any mask, added up as integers.
fn plain_sum(attempt: &Attempt, unmasking: &Unmasking) -> Vec<u64> {
    let params = unmasking.params();
    let mut sum = vec![0u64; params.layout.values() as usize];
    for name in unmasking.masked().keys() {
        let entropy: [u8; 32] = Sha256::digest(format!("entropy of {name}")).into();
        let contribution = &attempt.contributions[name];
        let mut vector = Vec::new();
        let noise = noise_of(entropy);
        let plan = MaskPlan { masks: Vec::new(), checks: None, t2: unmasking.transcript(), noise };
        let masker = Masker::new(params, &plan, contribution.num_examples);
        masker.chunk(0, &contribution.values, &mut vector).unwrap();
        let ring = usize::from(params.encoding.ring_bytes());
        for (total, bytes) in sum.iter_mut().zip(vector.chunks(ring)) {
            let mut word = [0; 8];
            word[..ring].copy_from_slice(bytes);
            *total += u64::from_le_bytes(word);
        }
    }
    sum
}

/// The rounding seed that a site draws from its entropy.
fn noise_of(entropy: [u8; 32]) -> [u8; 16] {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha20Rng;

    use crate::secagg::secret::Secret;
    let mut rng = ChaCha20Rng::from_seed(entropy);
    let (_beta, _sigma) = (Secret::random_scalar(&mut rng), Secret::random_scalar(&mut rng));
    let (_share, seed): ([u8; 32], [u8; 32]) = (rng.random(), rng.random());
    let mut rng = ChaCha20Rng::from_seed(seed);
    let (_kappa, noise): ([u8; 16], [u8; 16]) = (rng.random(), rng.random());
    noise
}

fn check(attempt: &Attempt, unmasking: &Unmasking) {
    let (sums, opened, culprits) = attempt.open(unmasking).expect("the sum agrees with its slots");
    let plain = plain_sum(attempt, unmasking);
    assert_eq!(sums.iter().map(|sum| u64::from(*sum)).collect::<Vec<_>>(), plain);
    let survivors: Vec<&Contribution> =
        unmasking.masked().keys().map(|name| &attempt.contributions[name]).collect();
    let cap = unmasking.params().weight_cap;
    assert_eq!(opened.head.sites, survivors.len() as u64);
    assert_eq!(opened.head.weight, survivors.iter().map(|site| site.num_examples.min(cap)).sum::<u64>());
    for (at, metric) in opened.metrics.iter().enumerate() {
        assert_eq!(*metric, survivors.iter().map(|site| site.metrics[at]).sum::<u64>());
    }
    assert!(culprits.is_empty());
    // Every site that made its masked vector can check what the server says of the sum.
    for (_, client) in attempt.sites.values() {
        let Some(witness) = client.as_ref().and_then(Client::witness) else { continue };
        let sum = witness.check();
        assert_eq!(sum.finish(sum.chunk(0, &sums), &opened.head, survivors.len()), Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_sum_is_exact_or_the_attempt_is_abandoned(
        count in 3usize..=40,
        tensors in prop::collection::vec(1u64..40, 1..4),
        bits in 8u8..=24,
        metrics in 0usize..5,
        losses in prop::collection::btree_map(0usize..40, 0usize..STAGES, 0..14),
        colluding in prop::option::of(0u32..3),
        post_quantum: bool,
    ) {
        let mut params = params(&tensors, metrics as u32, bits, count as u32);
        params.max_colluding = colluding;
        // Keys of ML-KEM are slow in a test's build.
        params.post_quantum = post_quantum && count <= 12;
        let values = params.layout.values() as usize;
        let mut attempt = Attempt::new(&params, contributions(count, values, metrics));
        let names = names(count);
        let losses: BTreeMap<ClientId, usize> = losses
            .into_iter()
            .filter(|(site, _)| *site < count)
            .map(|(site, stage)| (names[site].parse().unwrap(), stage))
            .collect();
        let gone = |by: usize| losses.values().filter(|stage| **stage <= by).count();
        let quorum = |n: usize| (n + colluding.map_or(n / 3, |c| c as usize)) / 2 + 1;
        let roster = count - gone(0);
        let needed = quorum(roster).max(2);
        let possible = colluding.is_none_or(|c| (c as usize) < roster) && roster >= 2 && roster >= needed;
        match attempt.run(&losses) {
            Ok(unmasking) => {
                prop_assert!(possible && count - gone(2) >= needed && count - gone(4) >= quorum(roster));
                check(&attempt, &unmasking);
            }
            Err(why) => {
                prop_assert!(!possible || count - gone(2) < needed || count - gone(4) < quorum(roster), "{why}");
            }
        }
        prop_assert!(attempt.refusals.is_empty(), "{:?}", attempt.refusals);
        prop_assert!(attempt.rejections.is_empty(), "{:?}", attempt.rejections);
    }
}

#[test]
fn forty_sites_with_ten_lost_at_every_kind_of_time() {
    let params = params(&[33, 2], 3, 16, 40);
    let mut attempt = Attempt::new(&params, contributions(40, 35, 3));
    let losses =
        names(40).into_iter().step_by(4).enumerate().map(|(at, name)| (name.parse().unwrap(), at % STAGES));
    let unmasking = attempt.run(&losses.collect()).unwrap();
    check(&attempt, &unmasking);
}

#[test]
fn a_regular_graph_gives_the_same_sum() {
    let mut params = params(&[20], 1, 16, 100);
    params.graph = GraphKind::Regular;
    let mut attempt = Attempt::new(&params, contributions(100, 20, 1));
    let losses = [(7, 2), (50, 1), (51, 2), (90, 4)];
    let names = names(100);
    let losses = losses.into_iter().map(|(site, stage)| (names[site].parse().unwrap(), stage)).collect();
    let unmasking = attempt.run(&losses).unwrap();
    check(&attempt, &unmasking);
}

#[test]
fn the_mean_is_the_weighted_mean_of_the_updates_within_a_step() {
    let params = params(&[35], 0, 20, 5);
    let mut attempt = Attempt::new(&params, contributions(5, 35, 0));
    let unmasking = attempt.run(&BTreeMap::new()).unwrap();
    let (sums, opened, _) = attempt.open(&unmasking).unwrap();
    let mean = outcome::mean(&params, &opened.head, 0, &sums);
    let weight: f64 = attempt.contributions.values().map(|site| site.num_examples as f64).sum();
    let step = params.encoding.step(params.ranges[0]) * 100.0 / (weight / 5.0);
    for (at, mean) in mean.iter().enumerate() {
        let sum: f64 =
            attempt.contributions.values().map(|c| f64::from(c.values[at]) * c.num_examples as f64).sum();
        assert!((mean - sum / weight).abs() < step, "{mean} against {}", sum / weight);
    }
}

#[test]
fn dropouts_of_a_post_quantum_attempt_are_unmasked_on_either_side_of_an_exchange() {
    for lost in 0..6 {
        let mut params = params(&[7, 3], 2, 16, 6);
        params.post_quantum = true;
        let mut attempt = Attempt::new(&params, contributions(6, 10, 2));
        // Masks with those of earlier and of later names must come off.
        let unmasking = attempt.run(&[(names(6)[lost].parse().unwrap(), 2)].into()).unwrap();
        check(&attempt, &unmasking);
    }
}

#[test]
fn the_error_of_the_mean_is_that_of_the_formula() {
    const VALUES: usize = 20_000;
    for bits in [12, 16, 20] {
        let mut params = params(&[VALUES as u64], 0, bits, 8);
        params.ranges = vec![1.0];
        let mut sites = contributions(8, VALUES, 0);
        for (number, site) in sites.iter_mut().enumerate() {
            // Any values will do that fall between the levels anywhere.
            site.values = (0..VALUES).map(|at| (at as f32 * 0.618 + number as f32).sin() * 0.9).collect();
        }
        let mut attempt = Attempt::new(&params, sites);
        let unmasking = attempt.run(&BTreeMap::new()).unwrap();
        let (sums, opened, _) = attempt.open(&unmasking).unwrap();
        let mean = outcome::mean(&params, &opened.head, 0, &sums);
        let weight: f64 = attempt.contributions.values().map(|site| site.num_examples as f64).sum();
        let squares: f64 = mean
            .iter()
            .enumerate()
            .map(|(at, mean)| {
                let sites = attempt.contributions.values();
                let sum: f64 = sites.map(|site| f64::from(site.values[at]) * site.num_examples as f64).sum();
                (mean - sum / weight).powi(2)
            })
            .sum();
        let [formula] = outcome::rounding_error(&params, &opened.head)[..] else { unreachable!() };
        let ratio = (squares / VALUES as f64).sqrt() / formula;
        // 20 000 values estimate a deviation to half a percent; what an f64 adds is far below a step.
        assert!((0.95..1.02).contains(&ratio), "{bits} bits: {ratio} of the formula");
    }
}

#[test]
fn masked_vectors_are_uniform_bytes_whatever_the_update() {
    let params = params(&[30_000], 0, 16, 3);
    let mut sites = contributions(3, 0, 0);
    for site in &mut sites {
        site.values = vec![0.5; 30_000];
    }
    let mut attempt = Attempt::new(&params, sites);
    attempt.run(&BTreeMap::new()).unwrap();
    for vector in attempt.blobs.values() {
        let mut counts = [0f64; 256];
        for byte in vector {
            counts[usize::from(*byte)] += 1.0;
        }
        let expected = vector.len() as f64 / 256.0;
        let chi: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: six standard deviations above the mean.
        assert!(chi < 390.0, "chi-square {chi}");
    }
}
