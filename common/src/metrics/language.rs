//! The counts of a language model: how well it foretells the next token.

use serde::{Deserialize, Serialize};

use super::classification::{LOSS_FIXED, fixed_loss};
use super::counts::Unsound;
use super::fixed::UNITS;
use super::ratios::ratio;

/// Counts over texts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Language {
    /// Texts.
    pub(super) examples: u64,
    /// Tokens that were foretold.
    pub(super) tokens: u64,
    /// Tokens that were the likeliest.
    pub(super) right: u64,
    /// Sum of the tokens' cross-entropy, in units of 2^-40 nats.
    pub(super) loss: u128,
}

impl Language {
    /// Counts one text: the cross-entropy of each token in nats, given the ones before it, and whether it was the
    /// likeliest. A loss that is not a number counts as [`LOSS_MAX`](super::LOSS_MAX).
    pub fn observe(&mut self, tokens: impl IntoIterator<Item = (f64, bool)>) {
        self.examples += 1;
        for (loss, right) in tokens {
            self.tokens += 1;
            self.right += u64::from(right);
            self.loss += fixed_loss(loss);
        }
    }

    pub(super) fn merged(&self, other: &Self) -> Option<Self> {
        Some(Self {
            examples: self.examples.checked_add(other.examples)?,
            tokens: self.tokens.checked_add(other.tokens)?,
            right: self.right.checked_add(other.right)?,
            loss: self.loss.checked_add(other.loss)?,
        })
    }

    pub(super) fn num_examples(&self) -> u64 {
        self.examples
    }

    pub(super) fn is_sound(&self, most: u64) -> Result<(), Unsound> {
        if self.examples > most || self.tokens > most {
            return Err(Unsound::TooMany);
        }
        if self.right > self.tokens {
            return Err(Unsound::Sum("number of tokens that are right"));
        }
        if self.loss > u128::from(self.tokens) * LOSS_FIXED {
            return Err(Unsound::Sum("loss"));
        }
        Ok(())
    }

    /// Mean cross-entropy of a token in nats; 0 without tokens.
    pub(super) fn mean_loss(&self) -> f64 {
        self.loss as f64 / UNITS as f64 / self.tokens.max(1) as f64
    }

    /// Share of the tokens that were the likeliest.
    pub(super) fn token_accuracy(&self) -> f64 {
        ratio(self.right, self.tokens)
    }
}
