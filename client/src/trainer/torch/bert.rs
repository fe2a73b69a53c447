//! A BERT encoder with a classification head, as Hugging Face's `BertModel` computes it (Devlin et al., 2019):
//! embeddings, post-norm layers of self-attention and feed-forward with exact GELU, pooling, one dense layer.
//!
//! Dropout has one probability, the run's, in all the places where BERT drops: after the embeddings, on the
//! attention's probabilities, before each residual sum, and before the head.

use sheaf_common::model::BertConfig;
use sheaf_common::run::Pooling;
use tch::{TchError, Tensor};

use super::network::{Linear, Stage, drop_some};
use super::source::Source;
use crate::trainer::TrainError;

/// The stages of an encoder with `num_labels` outputs.
pub(super) fn stages(
    source: &mut Source<'_>,
    config: &BertConfig,
    pooling: Pooling,
    num_labels: u64,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let mut stages: Vec<Box<dyn Stage>> = vec![Box::new(Embeddings::open(source, config)?)];
    for layer in 0..config.num_hidden_layers {
        stages.push(Box::new(Layer::open(source, config, layer)?));
    }
    let hidden = config.hidden_size;
    stages.push(match pooling {
        Pooling::Mean => Box::new(MeanPooling),
        Pooling::Cls => Box::new(ClsPooling(Linear::open(source, "pooler.dense", hidden, hidden)?)),
    });
    stages.push(Box::new(Head(Linear::open(source, "classifier", hidden, num_labels)?)));
    Ok(stages)
}

/// Token ids `[batch, length]` to states `[batch, length, hidden]`: word, position and segment, summed and normed.
struct Embeddings {
    /// `[vocab_size, hidden]`.
    words: Tensor,
    /// `[max_position_embeddings, hidden]`.
    positions: Tensor,
    /// `[type_vocab_size, hidden]`, of which single texts use the first.
    segments: Tensor,
    norm: LayerNorm,
}

impl Embeddings {
    fn open(source: &mut Source<'_>, config: &BertConfig) -> Result<Self, TrainError> {
        let mut table = |name, rows| {
            source.take(&format!("embeddings.{name}_embeddings.weight"), &[rows, config.hidden_size])
        };
        Ok(Self {
            words: table("word", config.vocab_size)?,
            positions: table("position", config.max_position_embeddings)?,
            segments: table("token_type", config.type_vocab_size)?,
            norm: LayerNorm::open(source, "embeddings.LayerNorm", config)?,
        })
    }
}

impl Stage for Embeddings {
    fn parameters(&self) -> Vec<&Tensor> {
        [&self.words, &self.positions, &self.segments].into_iter().chain(self.norm.parameters()).collect()
    }

    fn apply(&self, ids: &Tensor, _real: Option<&Tensor>, dropout: f64) -> Result<Tensor, TchError> {
        let (_, length) = ids.size2()?;
        let words = Tensor::f_embedding(&self.words, ids, -1, false, false)?;
        let places = self.positions.f_narrow(0, 0, length)?.f_add(&self.segments.f_narrow(0, 0, 1)?)?;
        drop_some(self.norm.apply(&words.f_add(&places)?)?, dropout)
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
}

impl Layer {
    fn open(source: &mut Source<'_>, config: &BertConfig, layer: u64) -> Result<Self, TrainError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let mut linear = |part, inputs, outputs| Linear::open(source, &name(part), inputs, outputs);
        let query = linear("attention.self.query", hidden, hidden)?;
        let key = linear("attention.self.key", hidden, hidden)?;
        let value = linear("attention.self.value", hidden, hidden)?;
        let output = linear("attention.output.dense", hidden, hidden)?;
        let up = linear("intermediate.dense", hidden, inner)?;
        let down = linear("output.dense", inner, hidden)?;
        let attention_norm = LayerNorm::open(source, &name("attention.output.LayerNorm"), config)?;
        let norm = LayerNorm::open(source, &name("output.LayerNorm"), config)?;
        let heads = config.num_attention_heads as i64;
        Ok(Self { query, key, value, output, attention_norm, up, down, norm, heads })
    }

    /// Multi-head attention of every token to all tokens that are not padding.
    fn attend(&self, states: &Tensor, real: Option<&Tensor>, dropout: f64) -> Result<Tensor, TchError> {
        let (batch, length, hidden) = states.size3()?;
        let by_head = |linear: &Linear| {
            let split = [batch, length, self.heads, hidden / self.heads];
            linear.apply(states)?.f_view(split)?.f_transpose(1, 2)
        };
        let (query, key, value) = (by_head(&self.query)?, by_head(&self.key)?, by_head(&self.value)?);
        // `[batch, heads, length, length]`, the same for all heads and all asking tokens.
        let mask = real.map(|real| real.f_view([batch, 1, 1, length])).transpose()?;
        let context =
            Tensor::f_scaled_dot_product_attention(&query, &key, &value, mask, dropout, false, None, false)?;
        self.output.apply(&context.f_transpose(1, 2)?.f_reshape([batch, length, hidden])?)
    }

    fn feed_forward(&self, states: &Tensor) -> Result<Tensor, TchError> {
        self.down.apply(&self.up.apply(states)?.f_gelu("none")?)
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

    fn apply(&self, states: &Tensor, real: Option<&Tensor>, dropout: f64) -> Result<Tensor, TchError> {
        let attended = drop_some(self.attend(states, real, dropout)?, dropout)?;
        let states = self.attention_norm.apply(&attended.f_add(states)?)?;
        let fed = drop_some(self.feed_forward(&states)?, dropout)?;
        self.norm.apply(&fed.f_add(&states)?)
    }
}

/// The mean over the tokens that are not padding, `[batch, length, hidden]` to `[batch, 1, hidden]`.
struct MeanPooling;

impl Stage for MeanPooling {
    fn parameters(&self) -> Vec<&Tensor> {
        Vec::new()
    }

    fn apply(&self, states: &Tensor, real: Option<&Tensor>, _dropout: f64) -> Result<Tensor, TchError> {
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

/// The first token through the model's pooler, `[batch, length, hidden]` to `[batch, 1, hidden]`.
struct ClsPooling(Linear);

impl Stage for ClsPooling {
    fn parameters(&self) -> Vec<&Tensor> {
        self.0.parameters()
    }

    fn apply(&self, states: &Tensor, _real: Option<&Tensor>, _dropout: f64) -> Result<Tensor, TchError> {
        self.0.apply(&states.f_narrow(1, 0, 1)?)?.f_tanh()
    }

    fn pools(&self) -> bool {
        true
    }
}

/// The classifier, `[batch, 1, hidden]` to `[batch, 1, labels]`.
struct Head(Linear);

impl Stage for Head {
    fn parameters(&self) -> Vec<&Tensor> {
        self.0.parameters()
    }

    fn apply(&self, pooled: &Tensor, _real: Option<&Tensor>, dropout: f64) -> Result<Tensor, TchError> {
        self.0.apply(&drop_some(pooled.shallow_clone(), dropout)?)
    }
}

struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    fn open(source: &mut Source<'_>, name: &str, config: &BertConfig) -> Result<Self, TrainError> {
        let mut part = |part| source.take(&format!("{name}.{part}"), &[config.hidden_size]);
        Ok(Self { weight: part("weight")?, bias: part("bias")?, epsilon: config.layer_norm_eps })
    }

    fn parameters(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    fn apply(&self, values: &Tensor) -> Result<Tensor, TchError> {
        values.f_layer_norm(self.weight.size(), Some(&self.weight), Some(&self.bias), self.epsilon, true)
    }
}
