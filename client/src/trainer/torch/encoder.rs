//! A text encoder with a head, as Hugging Face's models of its family compute it (`sheaf_common::model::encoder`):
//! embeddings, post-norm layers of self-attention and feed-forward with exact GELU, pooling, one or two dense layers.
//!
//! Dropout has one probability, the run's, in all the places where the family drops: after the embeddings, on the
//! attention's probabilities, before the residual sums, and before the dense layers of the head.

use sheaf_common::model::EncoderConfig;
use sheaf_common::model::encoder::{Activation, Hidden};
use sheaf_common::run::Pooling;
use tch::{TchError, Tensor};

use super::network::{Linear, Mode, Stage, drop_some};
use super::norm::LayerNorm;
use super::source::Source;
use crate::trainer::TrainError;

/// The stages of an encoder with `num_labels` outputs.
pub(super) fn stages(
    source: &mut Source<'_>,
    config: &EncoderConfig,
    pooling: Pooling,
    num_labels: u64,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let mut stages: Vec<Box<dyn Stage>> = vec![Box::new(Embeddings::open(source, config)?)];
    for layer in 0..config.num_hidden_layers {
        stages.push(Box::new(Layer::open(source, config, layer)?));
    }
    let (hidden, layout) = (config.hidden_size, config.family.layout());
    let mut head = Head { hidden: None, output: Linear::open(source, layout.output, hidden, num_labels)? };
    stages.push(match pooling {
        Pooling::Mean => Box::new(MeanPooling),
        Pooling::Cls => {
            if let Some(dense) = layout.hidden {
                head.hidden = Some((Linear::open(source, dense.name, hidden, hidden)?, dense));
            }
            let pooler = layout.pooler.map(|name| Linear::open(source, name, hidden, hidden)).transpose()?;
            Box::new(FirstToken { pooler })
        }
    });
    stages.push(Box::new(head));
    Ok(stages)
}

/// Token ids `[batch, length]` to states `[batch, length, hidden]`: word, position and segment, summed and normed.
struct Embeddings {
    /// `[vocab_size, hidden]`.
    words: Tensor,
    /// `[max_position_embeddings, hidden]`.
    positions: Tensor,
    /// The row of the first token.
    first_position: i64,
    /// `[type_vocab_size, hidden]`, of which single texts use the first.
    segments: Option<Tensor>,
    norm: LayerNorm,
}

impl Embeddings {
    fn open(source: &mut Source<'_>, config: &EncoderConfig) -> Result<Self, TrainError> {
        let mut table = |name, rows| {
            source.take(&format!("embeddings.{name}_embeddings.weight"), &[rows, config.hidden_size])
        };
        Ok(Self {
            words: table("word", config.vocab_size)?,
            positions: table("position", config.max_position_embeddings)?,
            first_position: config.first_position() as i64,
            segments: match config.type_vocab_size {
                0 => None,
                segments => Some(table("token_type", segments)?),
            },
            norm: LayerNorm::open(source, "embeddings.LayerNorm", config.hidden_size, config.layer_norm_eps)?,
        })
    }
}

impl Stage for Embeddings {
    fn parameters(&self) -> Vec<&Tensor> {
        let tables = [&self.words, &self.positions].into_iter().chain(&self.segments);
        tables.chain(self.norm.parameters()).collect()
    }

    fn apply(&self, ids: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let (_, length) = ids.size2()?;
        let words = Tensor::f_embedding(&self.words, ids, -1, false, false)?;
        let mut places = self.positions.f_narrow(0, self.first_position, length)?;
        if let Some(segments) = &self.segments {
            places = places.f_add(&segments.f_narrow(0, 0, 1)?)?;
        }
        drop_some(self.norm.apply(&words.f_add(&places)?)?, mode)
    }
}

/// One encoder layer, `[batch, length, hidden]` to the same.
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
    heads: i64,
    drops_attended: bool,
}

impl Layer {
    fn open(source: &mut Source<'_>, config: &EncoderConfig, layer: u64) -> Result<Self, TrainError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let layout = config.family.layout();
        let name = |part: &str| format!("{}.{layer}.{part}", layout.layers);
        let mut linear = |part, inputs, outputs| Linear::open(source, &name(part), inputs, outputs);
        let query = linear(layout.query, hidden, hidden)?;
        let key = linear(layout.key, hidden, hidden)?;
        let value = linear(layout.value, hidden, hidden)?;
        let output = linear(layout.attended, hidden, hidden)?;
        let up = linear(layout.up, hidden, inner)?;
        let down = linear(layout.down, inner, hidden)?;
        let attention_norm =
            LayerNorm::open(source, &name(layout.attention_norm), config.hidden_size, config.layer_norm_eps)?;
        let norm = LayerNorm::open(source, &name(layout.norm), config.hidden_size, config.layer_norm_eps)?;
        let heads = config.num_attention_heads as i64;
        let drops_attended = layout.drops_attended;
        Ok(Self { query, key, value, output, attention_norm, up, down, norm, heads, drops_attended })
    }

    /// Multi-head attention of every token to all tokens that are not padding.
    fn attend(&self, states: &Tensor, real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let (batch, length, hidden) = states.size3()?;
        let by_head = |linear: &Linear| {
            let split = [batch, length, self.heads, hidden / self.heads];
            linear.apply(states, mode)?.f_view(split)?.f_transpose(1, 2)
        };
        let (query, key, value) = (by_head(&self.query)?, by_head(&self.key)?, by_head(&self.value)?);
        // `[batch, heads, length, length]`, the same for all heads and all asking tokens.
        let mask = real.map(|real| real.f_view([batch, 1, 1, length])).transpose()?;
        let context = Tensor::f_scaled_dot_product_attention(
            &query,
            &key,
            &value,
            mask,
            mode.dropout(),
            false,
            None,
            false,
        )?;
        self.output.apply(&context.f_transpose(1, 2)?.f_reshape([batch, length, hidden])?, mode)
    }

    fn feed_forward(&self, states: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        self.down.apply(&self.up.apply(states, mode)?.f_gelu("none")?, mode)
    }
}

impl Stage for Layer {
    fn parameters(&self) -> Vec<&Tensor> {
        let linears = [&self.query, &self.key, &self.value, &self.output, &self.up, &self.down];
        let norms = [&self.attention_norm, &self.norm];
        linears
            .iter()
            .flat_map(|part| part.parameters())
            .chain(norms.iter().flat_map(|part| part.parameters()))
            .collect()
    }

    fn apply(&self, states: &Tensor, real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let mut attended = self.attend(states, real, mode)?;
        if self.drops_attended {
            attended = drop_some(attended, mode)?;
        }
        let states = self.attention_norm.apply(&attended.f_add(states)?)?;
        let fed = drop_some(self.feed_forward(&states, mode)?, mode)?;
        self.norm.apply(&fed.f_add(&states)?)
    }
}

/// The mean over the tokens that are not padding, `[batch, length, hidden]` to `[batch, 1, hidden]`.
struct MeanPooling;

impl Stage for MeanPooling {
    fn parameters(&self) -> Vec<&Tensor> {
        Vec::new()
    }

    fn apply(&self, states: &Tensor, real: Option<&Tensor>, _mode: Mode) -> Result<Tensor, TchError> {
        let Some(real) = real else {
            return states.f_mean_dim([1_i64].as_slice(), true, None);
        };
        let weight = real.f_unsqueeze(2)?.f_to_kind(states.f_kind()?)?;
        let over_length = |values: &Tensor| values.f_sum_dim_intlist([1_i64].as_slice(), true, None);
        over_length(&states.f_mul(&weight)?)?.f_div(&over_length(&weight)?)
    }

    fn pools(&self) -> bool {
        true
    }
}

/// The first token, through the model's pooler if it has one, `[batch, length, hidden]` to `[batch, 1, hidden]`.
struct FirstToken {
    pooler: Option<Linear>,
}

impl Stage for FirstToken {
    fn parameters(&self) -> Vec<&Tensor> {
        self.pooler.iter().flat_map(Linear::parameters).collect()
    }

    fn apply(&self, states: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let first = states.f_narrow(1, 0, 1)?;
        match &self.pooler {
            Some(pooler) => pooler.apply(&first, mode)?.f_tanh(),
            None => Ok(first),
        }
    }

    fn pools(&self) -> bool {
        true
    }
}

/// The classifier, `[..., hidden]` to `[..., outputs]`.
struct Head {
    /// What the family has before the last dense layer.
    hidden: Option<(Linear, Hidden)>,
    output: Linear,
}

impl Stage for Head {
    fn parameters(&self) -> Vec<&Tensor> {
        let hidden = self.hidden.iter().flat_map(|(dense, _)| dense.parameters());
        hidden.chain(self.output.parameters()).collect()
    }

    fn apply(&self, pooled: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let mut values = pooled.shallow_clone();
        if let Some((dense, Hidden { activation, drops_input, .. })) = &self.hidden {
            values = dense.apply(&if *drops_input { drop_some(values, mode)? } else { values }, mode)?;
            values = match activation {
                Activation::Relu => values.f_relu()?,
                Activation::Tanh => values.f_tanh()?,
            };
        }
        self.output.apply(&drop_some(values, mode)?, mode)
    }
}
