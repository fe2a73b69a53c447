//! `config.json` of a language model, checked: decoders of the Llama and GPT-2 architectures.

use serde::Deserialize;

use super::{BadConfig, bad, only, within};

/// A Llama decoder in Hugging Face's layout: rotary positions, RMS normalisation before each block, gated feed-forward
/// with SiLU, several heads of queries to one of keys and values, no biases.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Tokens in the vocabulary.
    pub vocab_size: u64,
    /// Width of a token's vector.
    pub hidden_size: u64,
    /// Width of the feed-forward layer.
    pub intermediate_size: u64,
    /// Decoder layers.
    pub num_hidden_layers: u64,
    /// Attention heads of queries.
    pub num_attention_heads: u64,
    /// Attention heads of keys and values; they divide `num_attention_heads`.
    pub num_key_value_heads: u64,
    /// Width of a head, even.
    pub head_dim: u64,
    /// Longest text in tokens.
    pub max_position_embeddings: u64,
    /// Added to the mean square in normalisation.
    pub rms_norm_eps: f64,
    /// Base of the angles by which positions turn a head's values.
    pub rope_theta: f64,
    /// Whether the head is the token embeddings.
    pub tie_word_embeddings: bool,
    /// The token that ends a text.
    pub eos_token_id: u64,
}

/// A GPT-2 decoder in Hugging Face's layout: learned positions, layer normalisation before each block, GELU by tanh.
/// Its dense weights are `[inputs, outputs]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Tokens in the vocabulary.
    pub vocab_size: u64,
    /// Width of a token's vector.
    pub n_embd: u64,
    /// Width of the feed-forward layer.
    pub n_inner: u64,
    /// Decoder layers.
    pub n_layer: u64,
    /// Attention heads; they divide `n_embd`.
    pub n_head: u64,
    /// Longest text in tokens.
    pub n_positions: u64,
    /// Added to the variance in layer normalisation.
    pub layer_norm_epsilon: f64,
    /// Whether the head is the token embeddings.
    pub tie_word_embeddings: bool,
    /// The token that ends a text.
    pub eos_token_id: u64,
}

/// One token, or a list of which the first is taken.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    One(u64),
    Several(Vec<u64>),
}

#[derive(Deserialize)]
pub(super) struct LlamaJson {
    vocab_size: u64,
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    hidden_act: Option<String>,
    max_position_embeddings: u64,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeJson>,
    rope_parameters: Option<RopeJson>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    eos_token_id: Option<Token>,
}

#[derive(Deserialize)]
struct RopeJson {
    rope_theta: Option<f64>,
    #[serde(alias = "type")]
    rope_type: Option<String>,
}

impl LlamaJson {
    pub(super) fn checked(self) -> Result<LlamaConfig, BadConfig> {
        within("vocab_size", self.vocab_size, 2, 1 << 24)?;
        within("hidden_size", self.hidden_size, 1, 1 << 16)?;
        within("intermediate_size", self.intermediate_size, 1, 1 << 20)?;
        within("num_hidden_layers", self.num_hidden_layers, 1, 256)?;
        within("num_attention_heads", self.num_attention_heads, 1, 1 << 10)?;
        within("max_position_embeddings", self.max_position_embeddings, 3, 1 << 24)?;
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        within("num_key_value_heads", kv_heads, 1, heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return bad(format!(
                "`num_attention_heads` {heads} is not a multiple of `num_key_value_heads` {kv_heads}"
            ));
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / heads);
        within("head_dim", head_dim, 2, 1 << 12)?;
        if !head_dim.is_multiple_of(2) {
            return bad(format!("`head_dim` {head_dim} is not even"));
        }
        only("hidden_act", self.hidden_act.as_deref(), "silu")?;
        let rope = [self.rope_parameters, self.rope_scaling];
        for rope in rope.iter().flatten() {
            only("rope_type", rope.rope_type.as_deref(), "default")?;
        }
        let rope_theta = rope.into_iter().flatten().find_map(|rope| rope.rope_theta).or(self.rope_theta);
        let rope_theta = rope_theta.unwrap_or(10000.0);
        if !(rope_theta.is_finite() && rope_theta >= 1.0) {
            return bad(format!("`rope_theta` {rope_theta} is not a number from 1 on"));
        }
        if self.attention_bias || self.mlp_bias {
            return bad("`attention_bias` or `mlp_bias` is true; Sheaf trains Llama models without biases");
        }
        Ok(LlamaConfig {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: epsilon("rms_norm_eps", self.rms_norm_eps.unwrap_or(1e-6))?,
            rope_theta,
            tie_word_embeddings: self.tie_word_embeddings,
            eos_token_id: last_token(self.eos_token_id, self.vocab_size)?,
        })
    }
}

#[derive(Deserialize)]
pub(super) struct Gpt2Json {
    vocab_size: u64,
    n_embd: u64,
    n_inner: Option<u64>,
    n_layer: u64,
    n_head: u64,
    n_positions: u64,
    activation_function: Option<String>,
    layer_norm_epsilon: Option<f64>,
    scale_attn_weights: Option<bool>,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: Option<bool>,
    eos_token_id: Option<Token>,
}

impl Gpt2Json {
    pub(super) fn checked(self) -> Result<Gpt2Config, BadConfig> {
        within("vocab_size", self.vocab_size, 2, 1 << 24)?;
        within("n_embd", self.n_embd, 1, 1 << 16)?;
        within("n_layer", self.n_layer, 1, 256)?;
        within("n_head", self.n_head, 1, 1 << 10)?;
        within("n_positions", self.n_positions, 3, 1 << 20)?;
        let n_inner = self.n_inner.unwrap_or(4 * self.n_embd);
        within("n_inner", n_inner, 1, 1 << 20)?;
        if !self.n_embd.is_multiple_of(self.n_head) {
            return bad(format!("`n_embd` {} is not a multiple of `n_head` {}", self.n_embd, self.n_head));
        }
        only("activation_function", self.activation_function.as_deref(), "gelu_new")?;
        if self.scale_attn_weights == Some(false) || self.scale_attn_by_inverse_layer_idx {
            return bad("attention is scaled in another way than GPT-2's; import another model");
        }
        Ok(Gpt2Config {
            vocab_size: self.vocab_size,
            n_embd: self.n_embd,
            n_inner,
            n_layer: self.n_layer,
            n_head: self.n_head,
            n_positions: self.n_positions,
            layer_norm_epsilon: epsilon("layer_norm_epsilon", self.layer_norm_epsilon.unwrap_or(1e-5))?,
            tie_word_embeddings: self.tie_word_embeddings.unwrap_or(true),
            eos_token_id: last_token(self.eos_token_id, self.vocab_size)?,
        })
    }
}

fn epsilon(key: &str, value: f64) -> Result<f64, BadConfig> {
    if value > 0.0 && value < 1.0 {
        Ok(value)
    } else {
        bad(format!("`{key}` {value} is not between 0 and 1"))
    }
}

fn last_token(token: Option<Token>, vocab_size: u64) -> Result<u64, BadConfig> {
    let id = match token {
        Some(Token::One(id)) => Some(id),
        Some(Token::Several(ids)) => ids.first().copied(),
        None => None,
    };
    let Some(id) = id else { return bad("has no `eos_token_id`: name the token that ends a text") };
    within("eos_token_id", id, 0, vocab_size - 1)?;
    Ok(id)
}
