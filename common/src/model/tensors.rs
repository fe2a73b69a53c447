//! Which tensors a model is made of, in blocks from its inputs to its head.

use crate::params::{ParamSpec, ParamTensor};
use crate::run::Pooling;

use super::config::{EncoderConfig, Gpt2Config, LlamaConfig};
use super::lora::factor_names;

/// The tensors of a model, block by block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// What comes before the layers.
    pub embeddings: Vec<ParamTensor>,
    /// The layers between inputs and head, from the inputs on.
    pub layers: Vec<Vec<ParamTensor>>,
    /// What is between layers and head: a text encoder's pooler, when it is used; a decoder's last normalisation.
    pub pooler: Vec<ParamTensor>,
    /// The head; what a model without layers consists of. A decoder has none of its own when it is the embeddings.
    pub head: Vec<ParamTensor>,
    /// Whether the layers' dense weights are `[inputs, outputs]`, as GPT-2's, and not `[outputs, inputs]`.
    pub inputs_first: bool,
}

impl Blocks {
    /// All tensors, in the order of the model.
    pub fn all(&self) -> impl Iterator<Item = &ParamTensor> {
        self.embeddings.iter().chain(self.last(self.layers.len()))
    }

    /// The tensors of the last `count` layers (all of them when there are fewer), the pooler and the head.
    pub fn last(&self, count: usize) -> impl Iterator<Item = &ParamTensor> {
        let frozen = self.layers.len().saturating_sub(count);
        self.layers[frozen..].iter().flatten().chain(&self.pooler).chain(&self.head)
    }

    /// How many layers, the head among them, lie above each tensor of `params`: 0 for the head itself and the pooler.
    /// An adapter lies where its layer does.
    pub fn depths(&self, params: &ParamSpec) -> Vec<u32> {
        let holds = |block: &[ParamTensor], name: &String| {
            block.iter().any(|tensor| tensor.name == *name || factor_names(&tensor.name).contains(name))
        };
        // From the head down.
        let below = || self.layers.iter().rev().chain([&self.embeddings]);
        let depth = |tensor: &ParamTensor| match below().position(|block| holds(block, &tensor.name)) {
            Some(above) => above as u32 + 1,
            None => 0,
        };
        params.tensors.iter().map(depth).collect()
    }
}

/// A text encoder, pooled in this way, with a head of so many outputs. Of what `pooling = "cls"` has between the first token
/// and the last dense layer, the family's pooler belongs to the encoder and the rest to the head.
pub fn encoder(config: &EncoderConfig, pooling: Pooling, num_outputs: Option<u64>) -> Blocks {
    let (hidden, layout) = (config.hidden_size, config.family.layout());
    let table = |name: &str, rows| tensor(&format!("embeddings.{name}_embeddings.weight"), [rows, hidden]);
    let mut embeddings =
        vec![table("word", config.vocab_size), table("position", config.max_position_embeddings)];
    if config.type_vocab_size > 0 {
        embeddings.push(table("token_type", config.type_vocab_size));
    }
    embeddings.extend(layer_norm("embeddings.LayerNorm", hidden));
    let for_first_token = |name: Option<&str>| match (pooling, name) {
        (Pooling::Cls, Some(name)) => linear(name, hidden, hidden).into(),
        (Pooling::Cls, None) | (Pooling::Mean, _) => Vec::new(),
    };
    let mut head = Vec::new();
    if let Some(outputs) = num_outputs {
        head = for_first_token(layout.hidden.map(|dense| dense.name));
        head.extend(linear(layout.output, outputs, hidden));
    }
    Blocks {
        embeddings,
        layers: (0..config.num_hidden_layers).map(|index| encoder_layer(config, index)).collect(),
        pooler: for_first_token(layout.pooler),
        head,
        ..Blocks::default()
    }
}

fn encoder_layer(config: &EncoderConfig, index: u64) -> Vec<ParamTensor> {
    let (hidden, wide, layout) = (config.hidden_size, config.intermediate_size, config.family.layout());
    let name = |part: &str| format!("{}.{index}.{part}", layout.layers);
    [
        linear(&name(layout.query), hidden, hidden),
        linear(&name(layout.key), hidden, hidden),
        linear(&name(layout.value), hidden, hidden),
        linear(&name(layout.attended), hidden, hidden),
        layer_norm(&name(layout.attention_norm), hidden),
        linear(&name(layout.up), wide, hidden),
        linear(&name(layout.down), hidden, wide),
        layer_norm(&name(layout.norm), hidden),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A Llama decoder.
pub fn llama(config: &LlamaConfig) -> Blocks {
    let words = [config.vocab_size, config.hidden_size];
    let head = (!config.tie_word_embeddings).then(|| tensor("lm_head.weight", words));
    Blocks {
        embeddings: vec![tensor("model.embed_tokens.weight", words)],
        layers: (0..config.num_hidden_layers).map(|index| llama_layer(config, index)).collect(),
        pooler: vec![tensor("model.norm.weight", [config.hidden_size])],
        head: head.into_iter().collect(),
        ..Blocks::default()
    }
}

fn llama_layer(config: &LlamaConfig, index: u64) -> Vec<ParamTensor> {
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let weight = |part: &str, outputs, inputs| {
        tensor(&format!("model.layers.{index}.{part}.weight"), [outputs, inputs])
    };
    let norm = |part: &str| tensor(&format!("model.layers.{index}.{part}.weight"), [hidden]);
    vec![
        norm("input_layernorm"),
        weight("self_attn.q_proj", queries, hidden),
        weight("self_attn.k_proj", keys, hidden),
        weight("self_attn.v_proj", keys, hidden),
        weight("self_attn.o_proj", hidden, queries),
        norm("post_attention_layernorm"),
        weight("mlp.gate_proj", wide, hidden),
        weight("mlp.up_proj", wide, hidden),
        weight("mlp.down_proj", hidden, wide),
    ]
}

/// A GPT-2 decoder.
pub fn gpt2(config: &Gpt2Config) -> Blocks {
    let words = [config.vocab_size, config.n_embd];
    let head = (!config.tie_word_embeddings).then(|| tensor("lm_head.weight", words));
    Blocks {
        embeddings: vec![
            tensor("wte.weight", words),
            tensor("wpe.weight", [config.n_positions, config.n_embd]),
        ],
        layers: (0..config.n_layer).map(|index| gpt2_layer(config, index)).collect(),
        pooler: layer_norm("ln_f", config.n_embd).into(),
        head: head.into_iter().collect(),
        inputs_first: true,
    }
}

fn gpt2_layer(config: &Gpt2Config, index: u64) -> Vec<ParamTensor> {
    let (hidden, wide) = (config.n_embd, config.n_inner);
    let name = |part: &str| format!("h.{index}.{part}");
    let conv1d = |part: &str, inputs, outputs| {
        let name = name(part);
        [tensor(&format!("{name}.weight"), [inputs, outputs]), tensor(&format!("{name}.bias"), [outputs])]
    };
    [
        layer_norm(&name("ln_1"), hidden),
        conv1d("attn.c_attn", hidden, 3 * hidden),
        conv1d("attn.c_proj", hidden, hidden),
        layer_norm(&name("ln_2"), hidden),
        conv1d("mlp.c_fc", hidden, wide),
        conv1d("mlp.c_proj", wide, hidden),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A multi-layer perceptron: `layers.0` reads the inputs, the last one is the head.
pub fn mlp(num_inputs: u64, hidden: &[u64], num_labels: u64) -> Blocks {
    let mut width = num_inputs;
    let mut layers = Vec::with_capacity(hidden.len());
    for (index, outputs) in hidden.iter().enumerate() {
        layers.push(linear(&format!("layers.{index}"), *outputs, width).into());
        width = *outputs;
    }
    let head = linear(&format!("layers.{}", hidden.len()), num_labels, width).into();
    Blocks { layers, head, ..Blocks::default() }
}

/// Softmax regression.
pub fn softmax(num_inputs: u64, num_labels: u64) -> Blocks {
    let head = vec![tensor("weight", [num_labels, num_inputs]), tensor("bias", [num_labels])];
    Blocks { head, ..Blocks::default() }
}

/// A vector of so many values and nothing else.
pub fn constant(num_values: u64) -> Blocks {
    Blocks { head: vec![tensor("values", [num_values])], ..Blocks::default() }
}

fn linear(name: &str, outputs: u64, inputs: u64) -> [ParamTensor; 2] {
    [tensor(&format!("{name}.weight"), [outputs, inputs]), tensor(&format!("{name}.bias"), [outputs])]
}

fn layer_norm(name: &str, width: u64) -> [ParamTensor; 2] {
    [tensor(&format!("{name}.weight"), [width]), tensor(&format!("{name}.bias"), [width])]
}

fn tensor<const N: usize>(name: &str, shape: [u64; N]) -> ParamTensor {
    ParamTensor { name: name.to_owned(), shape: shape.into() }
}
