//! The exact weighted sum of updates, and what the server makes of it.
//!
//! Values are summed as integers of [`FRACTION_BITS`] binary places, so that the sum does not depend on the
//! order of arrival and a round replayed gives the same bits. An f32 of magnitude 2^-17 or more is represented
//! exactly; a smaller one is rounded to the nearest multiple of 2^-40. The work is cut into chunks of
//! parameters, so that memory depends on neither the number of sites nor the size of the model.
//!
//! Such an integer times a weight takes up to 100 bits, which no processor adds quickly. Up to 2^23 examples
//! in all, two f64 hold the upper and the lower half of the sum without rounding, and the processor works on several values
//! at a time, with AVX2 where it has that; what goes beyond that moves to an i128.

use pulp::Arch;

/// Binary places of the fixed-point form of a value.
pub const FRACTION_BITS: u32 = 40;

/// Largest magnitude of a value in an update. A delta beyond it is no result of fine-tuning and is refused.
pub const VALUE_MAX: f32 = 1_048_576.0;

/// Largest weight whose halves are exact: an upper half is a multiple of 2^-10 and at most 2^20 in magnitude, and 2^23 of
/// them are below 2^43, which is 2^53 times 2^-10. A lower half is a multiple of 2^-40 and at most 2^-11.
const NARROW_WEIGHT: u64 = 1 << 23;

/// Added to an f64 and taken off again, it leaves the nearest multiple of 2^-10, the even one of two.
const ROUND_UPPER: f64 = 1.5 * (1u64 << 42) as f64;
/// The same for multiples of 2^-40.
const ROUND_LOWER: f64 = 1.5 * (1u64 << 12) as f64;

/// Updates that are best added together: a sum takes four times as much memory as one of them, and goes through the processor once for all.
pub const AT_ONCE: usize = 4;

const FIXED: f64 = (1u64 << FRACTION_BITS) as f64;

/// The sum of updates over at least `min_updates` sites, for one chunk of parameters. Plain aggregation makes
/// it here; secure aggregation makes the same value by unmasking.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Sum over sites of `num_examples * delta`, one per parameter: the upper halves of what came last.
    upper: Vec<f64>,
    /// The lower halves.
    lower: Vec<f64>,
    /// Sum over sites of `num_examples` that is in the halves.
    narrow_weight: u64,
    /// What came before, in fixed point; empty when nothing did.
    wide: Vec<i128>,
    /// Sum over sites of `num_examples`.
    weight: u64,
    /// Memory of [`Aggregate::mean`].
    mean: Vec<f64>,
}

impl Aggregate {
    /// The empty sum over `len` parameters.
    pub fn zero(len: usize) -> Self {
        let halves = || vec![0.0; len];
        Self {
            upper: halves(),
            lower: halves(),
            narrow_weight: 0,
            wide: Vec::new(),
            weight: 0,
            mean: Vec::new(),
        }
    }

    /// Adds one site's chunk, weighted by `num_examples`.
    ///
    /// Every value must be finite and at most [`VALUE_MAX`] in magnitude, which [`Finding`] establishes; with
    /// weights below 2^40 the sum of 2^27 sites fits.
    pub fn add(&mut self, delta: &[f32], num_examples: u64) {
        self.weight += num_examples;
        if num_examples > NARROW_WEIGHT {
            self.widen();
            for (sum, value) in self.wide.iter_mut().zip(delta) {
                let [upper, lower] = halves(*value);
                *sum += (to_fixed(upper) + to_fixed(lower)) * i128::from(num_examples);
            }
            return;
        }
        self.make_room(num_examples);
        let weight = num_examples as f64;
        let Self { upper: uppers, lower: lowers, .. } = self;
        // Compiled for each kind of processor, which is why everything in it must be inlined.
        Arch::new().dispatch(
            #[inline(always)]
            || {
                for ((upper, lower), value) in uppers.iter_mut().zip(lowers).zip(delta) {
                    let mut sum = [*upper, *lower];
                    add_to(&mut sum, *value, weight);
                    [*upper, *lower] = sum;
                }
            },
        );
    }

    /// Adds the chunks of several sites, each as long as the sum, [`AT_ONCE`] in a pass over the sum, to the bits that one after the other gives.
    pub fn add_all(&mut self, updates: &[(&[f32], u64)]) {
        let (fours, rest) = updates.as_chunks::<AT_ONCE>();
        for four in fours {
            let num_examples = four.iter().map(|(_, num_examples)| num_examples).sum();
            if num_examples <= NARROW_WEIGHT {
                self.add_four(*four, num_examples);
            } else {
                four.iter().for_each(|(delta, num_examples)| self.add(delta, *num_examples));
            }
        }
        rest.iter().for_each(|(delta, num_examples)| self.add(delta, *num_examples));
    }

    fn add_four(&mut self, four: [(&[f32], u64); AT_ONCE], num_examples: u64) {
        debug_assert!(four.iter().all(|(delta, _)| delta.len() == self.upper.len()));
        self.weight += num_examples;
        self.make_room(num_examples);
        let [(a, of_a), (b, of_b), (c, of_c), (d, of_d)] = four.map(|(delta, weight)| (delta, weight as f64));
        let Self { upper: uppers, lower: lowers, .. } = self;
        Arch::new().dispatch(
            #[inline(always)]
            || {
                let sums = uppers.iter_mut().zip(lowers);
                for (((((upper, lower), a), b), c), d) in sums.zip(a).zip(b).zip(c).zip(d) {
                    let mut sum = [*upper, *lower];
                    for (value, weight) in [(a, of_a), (b, of_b), (c, of_c), (d, of_d)] {
                        add_to(&mut sum, *value, weight);
                    }
                    [*upper, *lower] = sum;
                }
            },
        );
    }

    /// Sees to it that the halves hold so much weight more.
    fn make_room(&mut self, num_examples: u64) {
        if self.narrow_weight + num_examples > NARROW_WEIGHT {
            self.widen();
        }
        self.narrow_weight += num_examples;
    }

    /// Moves what is in the halves to where there is room.
    fn widen(&mut self) {
        self.wide.resize(self.upper.len(), 0);
        for (sum, (upper, lower)) in self.wide.iter_mut().zip(self.upper.iter_mut().zip(&mut self.lower)) {
            *sum += to_fixed(std::mem::take(upper)) + to_fixed(std::mem::take(lower));
        }
        self.narrow_weight = 0;
    }

    /// Starts again for the next chunk, keeping the memory.
    pub fn reset(&mut self, len: usize) {
        for halves in [&mut self.upper, &mut self.lower] {
            halves.clear();
            halves.resize(len, 0.0);
        }
        self.wide.clear();
        (self.narrow_weight, self.weight) = (0, 0);
    }

    /// The mean per parameter, rounded to the nearest f64.
    pub fn mean(&mut self) -> &[f64] {
        let scale = 1.0 / (self.weight.max(1) as f64 * FIXED);
        let Self { upper, lower, wide, mean, .. } = self;
        let halves = upper.iter().zip(lower.iter());
        mean.resize(halves.len(), 0.0);
        if wide.is_empty() {
            Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (mean, (upper, lower)) in mean.iter_mut().zip(halves) {
                        // The halves are exact: their sum is rounded once, as an integer is that becomes an f64.
                        *mean = (*upper + *lower) * FIXED * scale;
                    }
                },
            );
        } else {
            for (mean, (wide, (upper, lower))) in mean.iter_mut().zip(wide.iter().zip(halves)) {
                *mean = (wide + to_fixed(*upper) + to_fixed(*lower)) as f64 * scale;
            }
        }
        mean
    }
}

/// Adds a weighted value to the halves of a sum.
#[inline(always)]
fn add_to(sum: &mut [f64; 2], value: f32, weight: f64) {
    for (sum, half) in sum.iter_mut().zip(halves(value)) {
        *sum += half * weight;
    }
}

/// A value rounded to the nearest multiple of 2^-40, the even one of two, as a multiple of 2^-10 and the rest.
#[inline(always)]
fn halves(value: f32) -> [f64; 2] {
    let value = f64::from(value);
    let upper = (value + ROUND_UPPER) - ROUND_UPPER;
    let lower = (value - upper + ROUND_LOWER) - ROUND_LOWER;
    [upper, lower]
}

/// A multiple of 2^-40 of less than 2^53 such multiples, or one of 2^-10 of less than 2^53 of those, as an integer.
fn to_fixed(half: f64) -> i128 {
    (half * FIXED) as i128
}

/// What the server does with the mean of the updates: it needs only the sum, so it works under encryption too.
pub trait ServerOptimizer: Send + Sync {
    /// Moves one chunk of the global parameters by the mean of the updates, as long as it.
    fn step(&self, global: &mut [f32], mean: &[f64]);
}

/// `global + learning_rate * mean` (McMahan et al. 2017, with a server learning rate).
#[derive(Clone, Copy, Debug)]
pub struct FedAvg {
    /// Factor on the mean; 1 is plain averaging.
    pub learning_rate: f64,
}

impl ServerOptimizer for FedAvg {
    fn step(&self, global: &mut [f32], mean: &[f64]) {
        for (value, mean) in global.iter_mut().zip(mean) {
            *value = (f64::from(*value) + self.learning_rate * mean) as f32;
        }
    }
}

/// What a look at every value of an update found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Finding {
    /// All values are finite and within bounds.
    Sound,
    /// There is a NaN or an infinity.
    NotFinite,
    /// There is a value beyond [`VALUE_MAX`].
    TooLarge,
    /// The bytes are no values.
    Damaged,
}

impl Finding {
    /// Looks at every value.
    pub fn of(values: impl IntoIterator<Item = f32>) -> Self {
        // No way out of the loop: the compiler looks at several values at a time. A NaN fails every comparison.
        let (finite, small) = values.into_iter().fold((true, true), |(finite, small), value| {
            (finite & value.is_finite(), small & (value.abs() <= VALUE_MAX))
        });
        match (finite, small) {
            (false, _) => Self::NotFinite,
            (true, false) => Self::TooLarge,
            (true, true) => Self::Sound,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            -1.0f32..1.0,
            -VALUE_MAX..=VALUE_MAX,
            Just(0.0),
            Just(VALUE_MAX),
            Just(-VALUE_MAX),
            Just(f32::MIN_POSITIVE),
            // A tie between two multiples of 2^-40, and a value that has both halves.
            (-1000i32..1000).prop_map(|n| n as f32 * 0.5 / FIXED as f32),
            (-1000i32..1000).prop_map(|n| n as f32 / 1024.0 + 1.0 / 2048.0),
            -1e-9f32..1e-9,
        ]
    }

    /// The same in integers alone.
    fn reference(sites: &[(Vec<f32>, u64)]) -> Vec<f64> {
        let weight: u64 = sites.iter().map(|(_, weight)| weight).sum();
        let fixed = |value: f32| (f64::from(value) * FIXED).round_ties_even() as i64;
        let sum = |at: usize| -> i128 {
            sites.iter().map(|(values, weight)| i128::from(fixed(values[at])) * i128::from(*weight)).sum()
        };
        (0..5).map(|at| sum(at) as f64 * (1.0 / (weight as f64 * FIXED))).collect()
    }

    /// Weights around and beyond what the halves hold, and small ones.
    fn weight() -> impl Strategy<Value = u64> {
        prop_oneof![1u64..1000, NARROW_WEIGHT / 2..NARROW_WEIGHT + 2, 1u64..1 << 40]
    }

    proptest! {
        #[test]
        fn the_halves_hold_what_integers_do(
            sites in prop::collection::vec((prop::collection::vec(value(), 5), weight()), 1..9),
        ) {
            let mut aggregate = Aggregate::zero(5);
            for (delta, weight) in &sites {
                aggregate.add(delta, *weight);
            }
            let bits = |means: Vec<f64>| means.into_iter().map(f64::to_bits).collect::<Vec<_>>();
            let expected = bits(reference(&sites));
            prop_assert_eq!(&bits(aggregate.mean().to_vec()), &expected);
            let mut at_once = Aggregate::zero(5);
            at_once.add_all(&sites.iter().map(|(delta, weight)| (delta.as_slice(), *weight)).collect::<Vec<_>>());
            prop_assert_eq!(bits(at_once.mean().to_vec()), expected);
        }

        #[test]
        fn the_order_of_arrival_changes_no_bit(
            mut sites in prop::collection::vec((prop::collection::vec(value(), 5), weight()), 1..9),
            rotate in 0usize..9,
        ) {
            let sum = |sites: &[(Vec<f32>, u64)]| {
                let mut aggregate = Aggregate::zero(5);
                for (delta, weight) in sites {
                    aggregate.add(delta, *weight);
                }
                aggregate.mean().iter().map(|mean| mean.to_bits()).collect::<Vec<_>>()
            };
            let before = sum(&sites);
            let by = rotate % sites.len();
            sites.rotate_left(by);
            sites.reverse();
            prop_assert_eq!(before, sum(&sites));
        }

        #[test]
        fn the_mean_is_the_plain_weighted_mean(
            sites in prop::collection::vec((-8.0f32..8.0, 1u64..100_000), 1..20),
        ) {
            let mut aggregate = Aggregate::zero(1);
            for (value, weight) in &sites {
                aggregate.add(&[*value], *weight);
            }
            let weight: f64 = sites.iter().map(|(_, w)| *w as f64).sum();
            let plain: f64 = sites.iter().map(|(v, w)| f64::from(*v) * *w as f64).sum::<f64>() / weight;
            let mean = aggregate.mean()[0];
            prop_assert!((mean - plain).abs() <= 1e-11, "{mean} {plain}");
        }
    }

    #[test]
    fn the_largest_sum_fits() {
        let mut aggregate = Aggregate::zero(1);
        for _ in 0..1000 {
            aggregate.add(&[VALUE_MAX], 1 << 40);
        }
        assert_eq!(aggregate.mean(), [f64::from(VALUE_MAX)]);
    }

    #[test]
    fn what_is_no_update_is_found() {
        assert_eq!(Finding::of([0.0, -VALUE_MAX]), Finding::Sound);
        assert_eq!(Finding::of([0.0, f32::NAN]), Finding::NotFinite);
        assert_eq!(Finding::of([2.0 * VALUE_MAX, f32::NEG_INFINITY]), Finding::NotFinite);
        assert_eq!(Finding::of([1.0, -2.0 * VALUE_MAX]), Finding::TooLarge);
    }

    #[test]
    fn fed_avg_adds_the_mean() {
        let mut global = [1.0f32, 2.0];
        FedAvg { learning_rate: 0.5 }.step(&mut global, &[1.0, -2.0]);
        assert_eq!(global, [1.5, 1.0]);
    }
}
