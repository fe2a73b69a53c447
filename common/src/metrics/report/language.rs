//! The report on a language model.

use serde::{Deserialize, Serialize};

use crate::metrics::language::Language;

/// The metrics of a language model.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguageReport {
    /// Texts counted.
    pub num_examples: u64,
    /// Tokens counted.
    pub num_tokens: u64,
    /// Mean cross-entropy of a token in nats, from 0 on; less is better.
    pub loss: f64,
    /// `e` to the loss, from 1 on: as if the model chose among so many tokens; less is better. At most the largest
    /// 64-bit floating-point number.
    pub perplexity: f64,
    /// Share of the tokens that the model took for the likeliest, in [0, 1]; more is better.
    pub token_accuracy: f64,
}

pub(super) fn report(counts: &Language) -> LanguageReport {
    let loss = counts.mean_loss();
    LanguageReport {
        num_examples: counts.examples,
        num_tokens: counts.tokens,
        loss,
        // Infinity could not be written as JSON.
        perplexity: loss.exp().min(f64::MAX),
        token_accuracy: counts.token_accuracy(),
    }
}
