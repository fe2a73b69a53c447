//! A Llama decoder, as Hugging Face's `LlamaForCausalLM` computes it (Touvron et al., 2023): token embeddings, layers of
//! attention with rotary positions and of a gated feed-forward, each behind an RMS normalisation and added to what it
//! was given, a last normalisation, and the head.
//!
//! Dropout acts on the attention's probabilities, the only place that this architecture has.

use sheaf_common::model::LlamaConfig;
use tch::{Device, Kind, TchError, Tensor};

use super::decoder::{Unembedding, attend, by_head};
use super::network::{Form, Linear, Mode, Stage};
use super::source::Source;
use crate::trainer::TrainError;

/// The stages of a decoder of texts of at most `max_length` tokens.
pub(super) fn stages(
    source: &mut Source<'_>,
    config: &LlamaConfig,
    max_length: u32,
) -> Result<Vec<Box<dyn Stage>>, TrainError> {
    let words = source.take("model.embed_tokens.weight", &[config.vocab_size, config.hidden_size])?;
    let head = Unembedding::open(source, &words, config.tie_word_embeddings)?;
    let rotary = Rotary::new(config, max_length, source.device())?;
    let mut stages: Vec<Box<dyn Stage>> = vec![Box::new(Embeddings(words))];
    for layer in 0..config.num_hidden_layers {
        stages.push(Box::new(Layer::open(source, config, layer, &rotary)?));
    }
    stages.push(Box::new(RmsNorm::open(source, "model.norm", config)?));
    stages.push(Box::new(head));
    Ok(stages)
}

/// Token ids `[batch, length]` to states `[batch, length, hidden]`.
struct Embeddings(Tensor);

impl Stage for Embeddings {
    fn parameters(&self) -> Vec<&Tensor> {
        vec![&self.0]
    }

    fn apply(&self, ids: &Tensor, _real: Option<&Tensor>, _mode: Mode) -> Result<Tensor, TchError> {
        Tensor::f_embedding(&self.0, ids, -1, false, false)
    }
}

/// Positions as turns (Su et al., 2021): value `i` of a head and value `i + width / 2` are turned together, by an angle
/// that grows with the position.
struct Rotary {
    /// `[max_length, width]`.
    cos: Tensor,
    sin: Tensor,
}

impl Rotary {
    fn new(config: &LlamaConfig, max_length: u32, device: Device) -> Result<Self, TchError> {
        let float = (Kind::Float, device);
        let width = config.head_dim as i64;
        let exponent = Tensor::f_arange_start_step(0, width, 2, float)?.f_div_scalar(width as f64)?;
        let inverse = Tensor::f_pow_scalar(config.rope_theta, &exponent)?.f_reciprocal()?;
        let angles = Tensor::f_arange(i64::from(max_length), float)?.f_outer(&inverse)?;
        let angles = Tensor::f_cat(&[&angles, &angles], 1)?;
        Ok(Self { cos: angles.f_cos()?, sin: angles.f_sin()? })
    }

    fn shared(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }

    /// `[batch, heads, length, width]`, turned by each token's position, in the precision that they have.
    fn turn(&self, values: &Tensor) -> Result<Tensor, TchError> {
        let length = values.size4()?.2;
        let halves = values.f_chunk(2, -1)?;
        let swapped = Tensor::f_cat(&[&halves[1].f_neg()?, &halves[0]], -1)?;
        let along = values.f_mul(&self.cos.f_narrow(0, 0, length)?)?;
        along.f_add(&swapped.f_mul(&self.sin.f_narrow(0, 0, length)?)?)?.f_to_kind(values.f_kind()?)
    }
}

/// One decoder layer, `[batch, length, hidden]` to the same.
struct Layer {
    attention_norm: RmsNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    rotary: Rotary,
    heads: i64,
    kv_heads: i64,
}

impl Layer {
    fn open(
        source: &mut Source<'_>,
        config: &LlamaConfig,
        layer: u64,
        rotary: &Rotary,
    ) -> Result<Self, TrainError> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let mut linear =
            |part, inputs, outputs| Linear::open_as(source, &name(part), inputs, outputs, Form::Unbiased);
        let query = linear("self_attn.q_proj", hidden, queries)?;
        let key = linear("self_attn.k_proj", hidden, keys)?;
        let value = linear("self_attn.v_proj", hidden, keys)?;
        let output = linear("self_attn.o_proj", queries, hidden)?;
        let gate = linear("mlp.gate_proj", hidden, inner)?;
        let up = linear("mlp.up_proj", hidden, inner)?;
        let down = linear("mlp.down_proj", inner, hidden)?;
        Ok(Self {
            attention_norm: RmsNorm::open(source, &name("input_layernorm"), config)?,
            query,
            key,
            value,
            output,
            norm: RmsNorm::open(source, &name("post_attention_layernorm"), config)?,
            gate,
            up,
            down,
            rotary: rotary.shared(),
            heads: config.num_attention_heads as i64,
            kv_heads: config.num_key_value_heads as i64,
        })
    }

    fn attend(&self, states: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let query = self.rotary.turn(&by_head(&self.query.apply(states, mode)?, self.heads)?)?;
        let key = self.rotary.turn(&by_head(&self.key.apply(states, mode)?, self.kv_heads)?)?;
        let value = by_head(&self.value.apply(states, mode)?, self.kv_heads)?;
        let (key, value) = (self.for_each_query(key)?, self.for_each_query(value)?);
        self.output.apply(&attend(&query, &key, &value, mode)?, mode)
    }

    /// Each head of keys or values serves several heads of queries, one after the other.
    fn for_each_query(&self, values: Tensor) -> Result<Tensor, TchError> {
        if self.heads == self.kv_heads {
            return Ok(values);
        }
        values.f_repeat_interleave_self_int(self.heads / self.kv_heads, 1, None)
    }

    fn feed_forward(&self, states: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let gate = self.gate.apply(states, mode)?.f_silu()?;
        self.down.apply(&gate.f_mul(&self.up.apply(states, mode)?)?, mode)
    }
}

impl Stage for Layer {
    fn parameters(&self) -> Vec<&Tensor> {
        let linears = [&self.query, &self.key, &self.value, &self.output, &self.gate, &self.up, &self.down];
        let norms = [&self.attention_norm.weight, &self.norm.weight];
        linears.iter().flat_map(|part| part.parameters()).chain(norms).collect()
    }

    fn apply(&self, states: &Tensor, _real: Option<&Tensor>, mode: Mode) -> Result<Tensor, TchError> {
        let states = self.attend(&self.attention_norm.normalised(states)?, mode)?.f_add(states)?;
        self.feed_forward(&self.norm.normalised(&states)?, mode)?.f_add(&states)
    }
}

/// Each token's vector divided by the root of its mean square, and scaled.
struct RmsNorm {
    /// `[hidden]`.
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    fn open(source: &mut Source<'_>, name: &str, config: &LlamaConfig) -> Result<Self, TrainError> {
        let weight = source.take(&format!("{name}.weight"), &[config.hidden_size])?;
        Ok(Self { weight, epsilon: config.rms_norm_eps })
    }

    fn normalised(&self, states: &Tensor) -> Result<Tensor, TchError> {
        states.f_rms_norm(self.weight.size(), Some(&self.weight), self.epsilon)
    }
}

impl Stage for RmsNorm {
    fn parameters(&self) -> Vec<&Tensor> {
        vec![&self.weight]
    }

    fn apply(&self, states: &Tensor, _real: Option<&Tensor>, _mode: Mode) -> Result<Tensor, TchError> {
        self.normalised(states)
    }
}
