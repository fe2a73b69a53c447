//! Which tensors a model is made of, in blocks from its inputs to its head.

use crate::params::{ParamSpec, ParamTensor};

use super::config::BertConfig;
use super::lora::factor_names;

/// The tensors of a model, block by block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// What comes before the layers.
    pub embeddings: Vec<ParamTensor>,
    /// The layers between inputs and head, from the inputs on.
    pub layers: Vec<Vec<ParamTensor>>,
    /// A text encoder's pooler, when it is used.
    pub pooler: Vec<ParamTensor>,
    /// The classification head; what a model without layers consists of.
    pub head: Vec<ParamTensor>,
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

/// A BERT encoder, with its pooler or without, and a classifier of so many labels.
pub fn bert(config: &BertConfig, pooler: bool, num_labels: Option<u64>) -> Blocks {
    let hidden = config.hidden_size;
    let mut embeddings = vec![
        tensor("embeddings.word_embeddings.weight", [config.vocab_size, hidden]),
        tensor("embeddings.position_embeddings.weight", [config.max_position_embeddings, hidden]),
        tensor("embeddings.token_type_embeddings.weight", [config.type_vocab_size, hidden]),
    ];
    embeddings.extend(layer_norm("embeddings.LayerNorm", hidden));
    Blocks {
        embeddings,
        layers: (0..config.num_hidden_layers).map(|index| bert_layer(config, index)).collect(),
        pooler: if pooler { linear("pooler.dense", hidden, hidden).into() } else { Vec::new() },
        head: num_labels.map_or_else(Vec::new, |labels| linear("classifier", labels, hidden).into()),
    }
}

fn bert_layer(config: &BertConfig, index: u64) -> Vec<ParamTensor> {
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let name = |part: &str| format!("encoder.layer.{index}.{part}");
    [
        linear(&name("attention.self.query"), hidden, hidden),
        linear(&name("attention.self.key"), hidden, hidden),
        linear(&name("attention.self.value"), hidden, hidden),
        linear(&name("attention.output.dense"), hidden, hidden),
        layer_norm(&name("attention.output.LayerNorm"), hidden),
        linear(&name("intermediate.dense"), wide, hidden),
        linear(&name("output.dense"), hidden, wide),
        layer_norm(&name("output.LayerNorm"), hidden),
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
