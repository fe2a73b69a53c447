//! The exact weighted sum of updates, and what the server makes of it.
//!
//! Values are summed as integers of [`FRACTION_BITS`] binary places, so that the sum does not depend on the
//! order of arrival and a round replayed gives the same bits. An f32 of magnitude 2^-17 or more is represented
//! exactly; a smaller one is rounded to the nearest multiple of 2^-40. The work is cut into chunks of
//! parameters, so that memory depends on neither the number of sites nor the size of the model.

/// Binary places of the fixed-point form of a value.
pub const FRACTION_BITS: u32 = 40;

/// Largest magnitude of a value in an update. A delta beyond it is no result of fine-tuning and is refused.
pub const VALUE_MAX: f32 = 1_048_576.0;

/// The sum of updates over at least `min_updates` sites, for one chunk of parameters. Plain aggregation makes
/// it here; secure aggregation makes the same value by unmasking.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Sum over sites of `num_examples * delta`, in fixed point, one per parameter.
    sum: Vec<i128>,
    /// Sum over sites of `num_examples`.
    weight: u64,
}

impl Aggregate {
    /// The empty sum over `len` parameters.
    pub fn zero(len: usize) -> Self {
        Self { sum: vec![0; len], weight: 0 }
    }

    /// Adds one site's chunk, weighted by `num_examples`.
    ///
    /// Every value must be finite and at most [`VALUE_MAX`] in magnitude, which [`Finding`] establishes; with
    /// weights below 2^40 the sum of 2^27 sites fits.
    pub fn add(&mut self, delta: impl IntoIterator<Item = f32>, num_examples: u64) {
        self.weight += num_examples;
        for (sum, value) in self.sum.iter_mut().zip(delta) {
            *sum += i128::from(to_fixed(value)) * i128::from(num_examples);
        }
    }

    /// Starts again for the next chunk, keeping the memory.
    pub fn reset(&mut self, len: usize) {
        self.sum.clear();
        self.sum.resize(len, 0);
        self.weight = 0;
    }

    /// The mean per parameter, rounded to the nearest f64.
    pub fn mean(&self) -> impl Iterator<Item = f64> {
        let scale = 1.0 / (self.weight.max(1) as f64 * (1u64 << FRACTION_BITS) as f64);
        self.sum.iter().map(move |sum| *sum as f64 * scale)
    }
}

fn to_fixed(value: f32) -> i64 {
    (f64::from(value) * (1u64 << FRACTION_BITS) as f64).round_ties_even() as i64
}

/// What the server does with the mean of the updates: it needs only the sum, so it works under encryption too.
pub trait ServerOptimizer: Send + Sync {
    /// Moves one chunk of the global parameters. The mean of the updates is in the order of the parameters.
    fn step(&self, global: &mut [f32], mean: &mut dyn Iterator<Item = f64>);
}

/// `global + learning_rate * mean` (McMahan et al. 2017, with a server learning rate).
#[derive(Clone, Copy, Debug)]
pub struct FedAvg {
    /// Factor on the mean; 1 is plain averaging.
    pub learning_rate: f64,
}

impl ServerOptimizer for FedAvg {
    fn step(&self, global: &mut [f32], mean: &mut dyn Iterator<Item = f64>) {
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
}

impl Finding {
    /// Looks at every value.
    pub fn of(values: impl IntoIterator<Item = f32>) -> Self {
        // A NaN fails every comparison, so the bound alone separates the sound from the rest.
        let mut worst = Self::Sound;
        for value in values {
            if value.abs() <= VALUE_MAX {
                continue;
            }
            if !value.is_finite() {
                return Self::NotFinite;
            }
            worst = Self::TooLarge;
        }
        worst
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
            Just(f32::MIN_POSITIVE)
        ]
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_changes_no_bit(
            mut sites in prop::collection::vec((prop::collection::vec(value(), 5), 1u64..1 << 40), 1..9),
            rotate in 0usize..9,
        ) {
            let sum = |sites: &[(Vec<f32>, u64)]| {
                let mut aggregate = Aggregate::zero(5);
                for (delta, weight) in sites {
                    aggregate.add(delta.iter().copied(), *weight);
                }
                aggregate.mean().map(f64::to_bits).collect::<Vec<_>>()
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
                aggregate.add([*value], *weight);
            }
            let weight: f64 = sites.iter().map(|(_, w)| *w as f64).sum();
            let plain: f64 = sites.iter().map(|(v, w)| f64::from(*v) * *w as f64).sum::<f64>() / weight;
            let mean = aggregate.mean().next().unwrap();
            prop_assert!((mean - plain).abs() <= 1e-11, "{mean} {plain}");
        }
    }

    #[test]
    fn the_largest_sum_fits() {
        let mut aggregate = Aggregate::zero(1);
        for _ in 0..1000 {
            aggregate.add([VALUE_MAX], 1 << 40);
        }
        assert_eq!(aggregate.mean().next(), Some(f64::from(VALUE_MAX)));
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
        FedAvg { learning_rate: 0.5 }.step(&mut global, &mut [1.0, -2.0].into_iter());
        assert_eq!(global, [1.5, 1.0]);
    }
}
