//! The counts of a survey: what sites hold, column by column, before anything is trained. From its sums come the
//! constants that a run needs and that no one site may decide: means, deviations, how often what occurs.
//!
//! A number's own scale is what is asked for, so the fixed point is wide: 2^-20 standard deviations of the run's
//! [`Scale`](super::Scale) (which is 1 where the run gives none), up to 2^40 of them. Rounding moves mean and standard
//! deviation by at most 2^-21 of that unit; everything after it is integers.

use serde::{Deserialize, Serialize};

use super::counts::Unsound;
use super::fixed::{EXAMPLES_MAX, SITES_MAX, fits};
use super::kind::{Asked, Asks, Occurs};

/// A number counts as at most so many standard deviations (by the run's scale).
pub const VALUE_MAX: f64 = (1u64 << 40) as f64;

/// Units of a standardised number: 2^-20.
pub(super) const VALUE_UNITS: u128 = 1 << 20;

/// A number is counted from `-VALUE_MAX` on so that it is not negative.
const VALUE_FIXED: u128 = 2 * VALUE_MAX as u128 * VALUE_UNITS;

/// Bits of the lower half of a square. Halves are summed apart: whole squares would not fit 128 bits.
const LOW_BITS: u32 = 64;
const LOW_FIXED: u128 = (1 << LOW_BITS) - 1;
const HIGH_FIXED: u128 = (VALUE_FIXED * VALUE_FIXED) >> LOW_BITS;

/// Limbs of a sum, and of either half of a sum of squares.
pub(super) const SUM_LIMBS: usize = 3;

const _: () = assert!(fits(VALUE_FIXED * EXAMPLES_MAX as u128, SUM_LIMBS as u32));
const _: () = assert!(fits(LOW_FIXED * EXAMPLES_MAX as u128, SUM_LIMBS as u32));
const _: () = assert!(fits(HIGH_FIXED * EXAMPLES_MAX as u128, SUM_LIMBS as u32));
const _: () = assert!(LOW_FIXED <= i128::MAX as u128 / (4 * EXAMPLES_MAX as u128 * SITES_MAX as u128));

/// Counts over a site's whole data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Examples.
    pub(super) examples: u64,
    /// Each column that the survey asks about.
    pub(super) columns: Vec<Column>,
}

/// What was counted in a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Column {
    /// Numbers.
    Number(Moments),
    /// Examples of each word.
    Words(Vec<u64>),
}

/// Sums over a column's numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moments {
    /// Examples that have one.
    pub(super) count: u64,
    /// Those beyond [`VALUE_MAX`].
    pub(super) clamped: u64,
    /// Sum, each counted from `-VALUE_MAX` on, in units of 2^-20.
    pub(super) sum: u128,
    /// Sum of the squares, in units of 2^-40: of their lower 64 bits, and of the bits above.
    pub(super) squares: [u128; 2],
}

/// What an example has in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Missing,
    /// A finite number, standardised ([`Scale::standardised`](super::Scale::standardised)).
    Number(f64),
    /// One of the words, by its place among them.
    Word(usize),
    /// Several, none twice.
    Words(Vec<usize>),
}

impl Survey {
    /// Nothing counted yet.
    pub fn new(columns: &[Asked]) -> Self {
        let column = |asked: &Asked| match &asked.asks {
            Asks::Number(_) => Column::Number(Moments::default()),
            Asks::Words { words, .. } => Column::Words(vec![0; words.len()]),
        };
        Self { examples: 0, columns: columns.iter().map(column).collect() }
    }

    /// Counts one example: its value in each column, in their order. One that the column does not ask for counts as
    /// missing.
    pub fn observe(&mut self, values: impl IntoIterator<Item = Value>) {
        self.examples += 1;
        for (column, value) in self.columns.iter_mut().zip(values) {
            match (column, value) {
                (Column::Number(moments), Value::Number(value)) => moments.observe(value),
                (Column::Words(counts), Value::Word(word)) => count(counts, &[word]),
                (Column::Words(counts), Value::Words(words)) => count(counts, &words),
                (Column::Number(_) | Column::Words(_), _) => {}
            }
        }
    }

    /// `None` when a sum does not fit.
    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        let merged = |(own, other): (&Column, &Column)| match (own, other) {
            (Column::Number(own), Column::Number(other)) => Some(Column::Number(own.merged(other)?)),
            (Column::Words(own), Column::Words(other)) if own.len() == other.len() => {
                let sums = own.iter().zip(other).map(|(own, other)| own.checked_add(*other));
                Some(Column::Words(sums.collect::<Option<_>>()?))
            }
            (Column::Number(_) | Column::Words(_), _) => None,
        };
        let columns = self.columns.iter().zip(&other.columns).map(merged).collect::<Option<_>>()?;
        Some(Self { examples: self.examples.checked_add(other.examples)?, columns })
    }

    /// Whether both ask the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let alike = |(own, other): (&Column, &Column)| match (own, other) {
            (Column::Number(_), Column::Number(_)) => true,
            (Column::Words(own), Column::Words(other)) => own.len() == other.len(),
            (Column::Number(_) | Column::Words(_), _) => false,
        };
        self.columns.len() == other.columns.len() && self.columns.iter().zip(&other.columns).all(alike)
    }

    pub(super) fn is_sound(&self, asked: &[Asked], most: u64) -> Result<(), Unsound> {
        if !self.is_like(&Self::new(asked)) {
            return Err(Unsound::Columns(asked.len()));
        }
        if self.examples > most {
            return Err(Unsound::TooMany);
        }
        for (at, (column, asked)) in self.columns.iter().zip(asked).enumerate() {
            let sound = match (column, &asked.asks) {
                (Column::Number(moments), Asks::Number(_)) => moments.is_sound(self.examples),
                (Column::Words(counts), Asks::Words { occurs, .. }) => {
                    let sum: u128 = counts.iter().map(|count| u128::from(*count)).sum();
                    let examples = u128::from(self.examples);
                    match occurs {
                        Occurs::Once => sum == examples,
                        Occurs::AtMostOnce => sum <= examples,
                        Occurs::Freely => counts.iter().all(|count| *count <= self.examples),
                    }
                }
                (Column::Number(_) | Column::Words(_), _) => false,
            };
            if !sound {
                return Err(Unsound::Column(at));
            }
        }
        Ok(())
    }
}

fn count(counts: &mut [u64], words: &[usize]) {
    for word in words {
        if let Some(count) = counts.get_mut(*word) {
            *count += 1;
        }
    }
}

impl Moments {
    fn observe(&mut self, value: f64) {
        // The offset is added to the integer: a float has not the digits for both.
        let units = (value.clamp(-VALUE_MAX, VALUE_MAX) * VALUE_UNITS as f64).round() as i128;
        let units = (units + VALUE_FIXED as i128 / 2) as u128;
        let square = units * units;
        self.count += 1;
        self.clamped += u64::from(value.abs() > VALUE_MAX);
        self.sum += units;
        self.squares[0] += square & LOW_FIXED;
        self.squares[1] += square >> LOW_BITS;
    }

    fn merged(&self, other: &Self) -> Option<Self> {
        Some(Self {
            count: self.count.checked_add(other.count)?,
            clamped: self.clamped.checked_add(other.clamped)?,
            sum: self.sum.checked_add(other.sum)?,
            squares: [
                self.squares[0].checked_add(other.squares[0])?,
                self.squares[1].checked_add(other.squares[1])?,
            ],
        })
    }

    fn is_sound(&self, examples: u64) -> bool {
        let at_most = |sum: u128, each: u128| sum <= u128::from(self.count).saturating_mul(each);
        self.count <= examples
            && self.clamped <= self.count
            && at_most(self.sum, VALUE_FIXED)
            && at_most(self.squares[0], LOW_FIXED)
            && at_most(self.squares[1], HIGH_FIXED)
            && self.squared_deviations().is_some()
    }

    /// Mean in standard deviations of the run's scale; `None` without a number.
    pub(super) fn mean(&self) -> Option<f64> {
        let count = u128::from(self.count);
        // Whole units and their rest apart: together they can have more digits than a float.
        let (whole, rest) = (self.sum.checked_div(count)?, self.sum.checked_rem(count)?);
        let centred = whole as i128 - VALUE_FIXED as i128 / 2;
        Some((centred as f64 + rest as f64 / count as f64) / VALUE_UNITS as f64)
    }

    /// Standard deviation (of the population) in those of the run's scale; `None` without a number.
    pub(super) fn std(&self) -> Option<f64> {
        let variance = self.squared_deviations()? / self.count as f64;
        (self.count > 0).then(|| variance.sqrt() / VALUE_UNITS as f64)
    }

    /// Sum of the squared deviations from the mean, in units of 2^-40; `None` when no numbers have such sums.
    ///
    /// With `sum = n * m + r` it is `squares - n * m^2 - 2 * m * r - r^2 / n`: integers but for the last term, so that
    /// nothing is lost where the mean is large against the deviations. What is below 2^64 is reckoned apart from
    /// what is above.
    fn squared_deviations(&self) -> Option<f64> {
        let n = u128::from(self.count.max(1));
        let (mean, rest) = (self.sum / n, self.sum % n);
        let square = mean.checked_mul(mean)?;
        let below =
            n.checked_mul(square & LOW_FIXED)?.checked_add(rest.checked_mul(mean.checked_mul(2)?)?)?;
        let above = n.checked_mul(square >> LOW_BITS)?;
        let signed = |value: u128| i128::try_from(value).ok();
        let low = signed(self.squares[0])?.checked_sub(signed(below)?)?;
        let high = signed(self.squares[1])?.checked_sub(signed(above)?)?.checked_add(low >> LOW_BITS)?;
        let high = u128::try_from(high).ok()?;
        let whole = high as f64 * (1u128 << LOW_BITS) as f64 + (low as u128 & LOW_FIXED) as f64;
        let part = (rest as f64).powi(2) / n as f64;
        // The part is less than the whole but for its rounding.
        (whole * (1.0 + f64::EPSILON) >= part * (1.0 - f64::EPSILON)).then_some((whole - part).max(0.0))
    }
}
