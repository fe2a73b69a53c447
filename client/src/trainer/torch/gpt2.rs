//! A GPT-2 decoder, as Hugging Face's `GPT2LMHeadModel` computes it (Radford et al., 2019): token and position
//! embeddings, layers of attention and of feed-forward with GELU by tanh, each behind a layer normalisation and added to
//! what it was given, a last normalisation, and the head.
//!
//! Dropout has one probability, the run's, in all the places where GPT-2 drops: after the embeddings, on the attention's
//! probabilities, and before each residual sum.

use sheaf_common::model::Gpt2Config;
use tch::{TchError, Tensor};

use super::decoder::{Unembedding, attend, by_head};
use super::network::{Form, Linear, Mode, Stage, drop_some};
use super::norm::LayerNorm;
use super::source::Source;
use crate::trainer::TrainError;

/// The stages of a decoder.
pub(super) fn stages(
    source: &mut Source<'_>,
    config: &Gpt2Config,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let words = source.take("wte.weight", &[config.vocab_size, config.n_embd])?;
    let head = Unembedding::open(source, &words, config.tie_word_embeddings)?;
    let positions = source.take("wpe.weight", &[config.n_positions, config.n_embd])?;
    let mut stages: Vec<Box<dyn Stage>> = vec![Box::new(Embeddings { words, positions })];
    for layer in 0..config.n_layer {
        stages.push(Box::new(Layer::open(source, config, layer)?));
    }
    stages.push(Box::new(LayerNorm::open(source, "ln_f", config.n_embd, config.layer_norm_epsilon)?));
    stages.push(Box::new(head));
    Ok(stages)
}

/// Token ids `[batch, length]` to states `[batch, length, hidden]`.
struct Embeddings {
    /// `[vocab_size, hidden]`.
    words: Tensor,
    /// `[n_positions, hidden]`.
    positions: Tensor,
}

impl Stage for Embeddings {
    fn parameters(&self) -> Vec<&Tensor> {
        vec![&self.words, &self.positions]
    }

    fn apply(&self, ids: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let (_, length) = ids.size2()?;
        let words = Tensor::f_embedding(&self.words, ids, -1, false, false)?;
        drop_some(words.f_add(&self.positions.f_narrow(0, 0, length)?)?, mode)
    }
}

/// One decoder layer, `[batch, length, hidden]` to the same.
struct Layer {
    attention_norm: LayerNorm,
    /// Queries, keys and values, one behind the other.
    attention: Linear,
    output: Linear,
    norm: LayerNorm,
    up: Linear,
    down: Linear,
    heads: i64,
}

impl Layer {
    fn open(source: &mut Source<'_>, config: &Gpt2Config, layer: u64) -> Result<Self, TrainError> {
        let (hidden, inner) = (config.n_embd, config.n_inner);
        let name = |part: &str| format!("h.{layer}.{part}");
        let mut linear =
            |part, inputs, outputs| Linear::open_as(source, &name(part), inputs, outputs, Form::InputsFirst);
        let attention = linear("attn.c_attn", hidden, 3 * hidden)?;
        let output = linear("attn.c_proj", hidden, hidden)?;
        let up = linear("mlp.c_fc", hidden, inner)?;
        let down = linear("mlp.c_proj", inner, hidden)?;
        let attention_norm =
            LayerNorm::open(source, &name("ln_1"), config.n_embd, config.layer_norm_epsilon)?;
        let norm = LayerNorm::open(source, &name("ln_2"), config.n_embd, config.layer_norm_epsilon)?;
        Ok(Self { attention_norm, attention, output, norm, up, down, heads: config.n_head as i64 })
    }

    fn attend(&self, states: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let parts = self.attention.apply(states, mode)?.f_chunk(3, -1)?;
        let parts = parts.iter().map(|part| by_head(part, self.heads)).collect::<Result<Vec<_>, _>>()?;
        let context = attend(&parts[0], &parts[1], &parts[2], mode)?;
        drop_some(self.output.apply(&context, mode)?, mode)
    }

    fn feed_forward(&self, states: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        drop_some(self.down.apply(&self.up.apply(states, mode)?.f_gelu("tanh")?, mode)?, mode)
    }
}

impl Stage for Layer {
    fn parameters(&self) -> Vec<&Tensor> {
        let linears = [&self.attention, &self.output, &self.up, &self.down];
        let norms = [&self.attention_norm, &self.norm];
        let norms = norms.iter().flat_map(|norm| norm.parameters());
        linears.iter().flat_map(|part| part.parameters()).chain(norms).collect()
    }

    fn apply(&self, states: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let states = self.attend(&self.attention_norm.apply(states)?, mode)?.f_add(states)?;
        self.feed_forward(&self.norm.apply(&states)?, mode)?.f_add(&states)
    }
}
