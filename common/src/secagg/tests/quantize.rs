use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::*;
use crate::wire;

/// The definition, word by word.
fn plain(bits: u8, value: f32, factor: f64, range: f32, noise: u32) -> u32 {
    let range = f64::from(range);
    let top = f64::from((1u32 << bits) - 1);
    let y = factor * f64::from(value).clamp(-range, range);
    let u = f64::from(noise) / 4_294_967_296.0;
    ((y + range) * (1.0 / (2.0 * range / top)) + u).floor().min(top) as u32
}

fn noise(len: usize, rng: &mut ChaCha20Rng) -> Vec<u32> {
    (0..len).map(|_| rng.next_u32()).collect()
}

#[test]
fn the_ring_is_as_narrow_as_it_can_be() {
    let bytes = |bits, sites| Encoding::new(bits, sites).map(|encoding| encoding.ring_bytes());
    assert_eq!(bytes(8, 1), Ok(1));
    assert_eq!(bytes(8, 2), Ok(2));
    assert_eq!(bytes(8, 256), Ok(2));
    assert_eq!(bytes(16, 200), Ok(3));
    assert_eq!(bytes(16, 256), Ok(3));
    assert_eq!(bytes(16, 257), Ok(4));
    assert_eq!(bytes(24, 256), Ok(4));
}

#[test]
fn an_encoding_that_overflows_cannot_be_made() {
    assert_eq!(Encoding::new(24, 257), Err(Overflow::Sites { bits: 24, sites: 257 }));
    assert_eq!(Encoding::new(8, u32::MAX), Err(Overflow::Sites { bits: 8, sites: u32::MAX }));
    assert_eq!(Encoding::new(7, 3), Err(Overflow::Bits(7)));
    assert_eq!(Encoding::new(25, 3), Err(Overflow::Bits(25)));
    let sentence = Encoding::new(20, 5000).unwrap_err().to_string();
    assert_eq!(sentence, "the sum of 5000 sites' values of 20 bits does not fit in 32 bits: use fewer bits");
}

#[test]
fn what_is_read_is_checked_again() {
    let read = |bits: u8, ring_bytes: u8| {
        let bytes = wire::encode_record(&(bits, ring_bytes)).unwrap();
        wire::decode_record::<Encoding>(&bytes).ok()
    };
    assert_eq!(read(16, 3), Some(Encoding::new(16, 200).unwrap()));
    for (bits, ring_bytes) in [(7, 1), (25, 4), (16, 0), (16, 1), (16, 5), (16, 255)] {
        assert_eq!(read(bits, ring_bytes), None, "{bits} bits in {ring_bytes} bytes");
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    let encoding = Encoding::new(16, 3).unwrap();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(encoding.quantize(&[0.0, value], 1.0, 1.0, &[0; 2], &mut [0; 2]), Err(NotFinite));
    }
}

#[test]
fn the_ends_of_the_range_are_levels() {
    for bits in 8..=24 {
        let encoding = Encoding::new(bits, 2).unwrap();
        for range in [f32::MIN_POSITIVE, 0.1, 1.0, 3.3, 1e30, f32::MAX] {
            let values = [-range, range, -f32::MAX, f32::MAX];
            // (Without noise the topmost value may be rounded to a hair below its level.)
            for noise in [1 << 31, u32::MAX] {
                let mut out = [0; 4];
                let clamped = encoding.quantize(&values, 1.0, range, &[noise; 4], &mut out).unwrap();
                assert_eq!(out, [0, encoding.top(), 0, encoding.top()], "{bits} bits, {range}, {noise}");
                assert_eq!(clamped, if range == f32::MAX { 0 } else { 2 });
            }
        }
    }
}

#[test]
fn rounding_is_right_on_average() {
    let encoding = Encoding::new(8, 1).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let draws = 200_000;
    for (value, factor) in [(0.0, 1.0), (0.3, 1.0), (-0.777, 1.0), (0.5, 0.013), (0.999, 0.7)] {
        let mut out = vec![0; draws];
        encoding.quantize(&vec![value; draws], factor, 1.0, &noise(draws, &mut rng), &mut out).unwrap();
        let mean = out.iter().map(|level| encoding.decode(*level, 1, 1.0)).sum::<f64>() / draws as f64;
        let error = (mean - factor * f64::from(value)) / encoding.step(1.0);
        // Five standard deviations of the mean, each draw's being at most half a step.
        assert!(error.abs() < 2.5 / (draws as f64).sqrt(), "{value} * {factor}: {error} steps");
    }
}

/// The rms error of the weighted mean over sites, against the one that was promised.
fn error_of_the_mean(bits: u8, weights: &[f64]) -> (f64, f64) {
    let (len, range, sites) = (4000, 6.0f32, weights.len() as u32);
    let encoding = Encoding::new(bits, sites).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(u64::from(bits));
    let (mut sums, mut exact) = (vec![0u32; len], vec![0.0; len]);
    for factor in weights {
        let values: Vec<f32> = noise(len, &mut rng).iter().map(|word| (*word as i32) as f32 / 5e8).collect();
        let mut out = vec![0; len];
        encoding.quantize(&values, *factor, range, &noise(len, &mut rng), &mut out).unwrap();
        for at in 0..len {
            sums[at] += out[at];
            exact[at] += factor * f64::from(values[at]);
        }
    }
    let total: f64 = weights.iter().sum();
    let error = |(sum, exact): (&u32, &f64)| ((encoding.decode(*sum, sites, range) - exact) / total).powi(2);
    let rms = (sums.iter().zip(&exact).map(error).sum::<f64>() / len as f64).sqrt();
    (rms, encoding.step(range) * (f64::from(sites) / 6.0).sqrt() / total)
}

#[test]
fn the_error_of_the_mean_is_the_promised_one() {
    for bits in [12, 16, 20] {
        for weights in
            [vec![1.0; 3], vec![1.0; 50], (1..=20).map(|weight| f64::from(weight) / 20.0).collect()]
        {
            let (measured, promised) = error_of_the_mean(bits, &weights);
            let ratio = measured / promised;
            assert!((0.9..1.1).contains(&ratio), "{bits} bits, {} sites: {ratio}", weights.len());
        }
    }
}

proptest! {
    #[test]
    fn the_fast_loop_does_what_the_definition_says(
        cells in prop::collection::vec((-2.0f32..2.0, any::<u32>()), 0..70),
        bits in 8u8..=24,
        factor in 1e-6..=1.0f64,
        range in 0.01f32..3.0,
    ) {
        let encoding = Encoding::new(bits, 2).unwrap();
        let (values, noise): (Vec<_>, Vec<_>) = cells.into_iter().unzip();
        let mut out = vec![0; values.len()];
        let clamped = encoding.quantize(&values, factor, range, &noise, &mut out).unwrap();
        prop_assert_eq!(clamped, values.iter().filter(|value| value.abs() > range).count() as u64);
        for ((value, noise), level) in values.iter().zip(&noise).zip(&out) {
            prop_assert_eq!(*level, plain(bits, *value, factor, range, *noise));
            let y = factor * f64::from(value.clamp(-range, range));
            prop_assert!((encoding.decode(*level, 1, range) - y).abs() <= encoding.step(range) * 1.000_001);
        }
    }
}

proptest! {
    #[test]
    fn no_honest_sum_is_farther_from_zero_than_its_weights_say(
        bits in 8u8..=24,
        weights in prop::collection::vec(prop_oneof![Just(0u64), Just(1), Just(1000), 0..=1000u64], 1..40),
        value in prop_oneof![Just(1.0f32), Just(-1.0), Just(f32::MAX), -1.0..1.0f32],
        range in prop_oneof![Just(1.0f32), Just(f32::MIN_POSITIVE), 1e-6..1e6f32],
        noise in prop_oneof![Just(0), Just(u32::MAX), any::<u32>()],
    ) {
        let sites = weights.len() as u64;
        let encoding = Encoding::new(bits, sites as u32).unwrap();
        let mut sum = 0;
        for weight in &weights {
            let mut level = [0];
            let values = [(value * range).clamp(-f32::MAX, f32::MAX)];
            encoding.quantize(&values, *weight as f64 / 1000.0, range, &[noise], &mut level).unwrap();
            sum += level[0];
        }
        let farthest = encoding.farthest(sites, weights.iter().sum(), 1000);
        prop_assert!(encoding.distance(sum, sites) <= farthest);
    }
}

#[test]
fn a_sum_is_as_far_from_zero_as_its_weights_let_it_be_and_no_farther() {
    let encoding = Encoding::new(16, 4).unwrap();
    let sum = |at: f64| ((at + 4.0) * 65535.0 / 2.0).round() as u32;
    let is_sound = |at: f64, weight| encoding.distance(sum(at), 4) <= encoding.farthest(4, weight, 100);
    assert!(is_sound(4.0, 400) && is_sound(-4.0, 400));
    for (weight, most) in [(300, 3.0), (100, 1.0), (4, 0.04), (0, 0.0)] {
        // In units of the range, of which four sites' rounding is four steps.
        let rounding = 4.0 * 2.0 / 65535.0;
        assert!(is_sound(most, weight) && is_sound(-most, weight));
        assert!(!is_sound(most + 1.5 * rounding, weight) && !is_sound(-most - 1.5 * rounding, weight));
    }
}
