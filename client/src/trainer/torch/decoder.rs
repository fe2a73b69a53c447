//! What the decoders of language models share: attention to what came before, and a head that may be the embeddings.
//!
//! Batches are padded on the right, so that no token sees padding behind it: causal attention needs no other mask, and
//! what the padding itself becomes is never looked at.

use tch::{TchError, Tensor};

use super::network::{Mode, Stage};
use super::precision::Products;
use super::source::Source;
use crate::trainer::TrainError;

/// Heads of `[batch, length, heads * width]` apart: `[batch, heads, length, width]`.
pub(super) fn by_head(values: &Tensor, heads: i64) -> Result<Tensor, TchError> {
    let (batch, length, width) = values.size3()?;
    values.f_view([batch, length, heads, width / heads])?.f_transpose(1, 2)
}

/// Attention of every token to itself and those before it, all `[batch, heads, length, width]`; to
/// `[batch, length, heads * width]`.
pub(super) fn attend(query: &Tensor, key: &Tensor, value: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
    let none = None::<&Tensor>;
    let context =
        Tensor::f_scaled_dot_product_attention(query, key, value, none, mode.dropout(), true, None, false)?;
    context.f_transpose(1, 2)?.f_flatten(2, 3)
}

/// The head, `[tokens, hidden]` to logits `[tokens, vocab_size]`: its own weight, or the token embeddings.
pub(super) struct Unembedding {
    /// `[vocab_size, hidden]`.
    weight: Tensor,
    products: Products,
}

impl Unembedding {
    /// The head of a model with these embeddings, which are it when the two are `tied`.
    pub(super) fn open(source: &mut Source<'_>, embeddings: &Tensor, tied: bool) -> Result<Self, TrainError> {
        let shape: Vec<u64> = embeddings.size().into_iter().map(|size| size as u64).collect();
        let weight = if tied { embeddings.shallow_clone() } else { source.take("lm_head.weight", &shape)? };
        Ok(Self { weight, products: source.products() })
    }
}

impl Stage for Unembedding {
    fn parameters(&self) -> Vec<&Tensor> {
        vec![&self.weight]
    }

    fn apply(&self, states: &Tensor, _real: Option<&Tensor>, _mode: Mode) -> Result<Tensor, TchError> {
        self.products.dense(states, &self.weight, None)
    }
}
