//! A BERT encoder of two small layers with a tokenizer of a dozen words, written as the folder that people import.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use sheaf_common::params::to_bytes;

const WORDS: [&str; 12] =
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "oil", "rises", "wheat", "falls", "bank", "profit", "ship", "trade"];
const HIDDEN: usize = 8;
const INNER: usize = 12;
const LAYERS: usize = 2;

/// Writes the encoder into `folder`, which is made.
pub(crate) fn write(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    let config = json!({
        "model_type": "bert", "vocab_size": WORDS.len(), "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": 2, "intermediate_size": INNER, "max_position_embeddings": 16,
        "type_vocab_size": 2, "layer_norm_eps": 1e-6, "hidden_act": "gelu", "pad_token_id": 0,
    });
    fs::write(folder.join("config.json"), config.to_string())?;
    fs::write(folder.join("tokenizer.json"), tokenizer().to_string())?;
    let shapes = shapes();
    let bytes: Vec<Vec<u8>> =
        shapes.iter().zip(1..).map(|((name, shape), number)| values(name, shape, number)).collect();
    let views = shapes
        .iter()
        .zip(&bytes)
        .map(|((name, shape), bytes)| Ok((name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>>>()?;
    Ok(fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None)?)?)
}

fn tokenizer() -> Value {
    let vocab: BTreeMap<_, _> = WORDS.iter().enumerate().map(|(id, word)| (*word, id)).collect();
    let special = |id: usize| json!({"id": WORDS[id], "ids": [id], "tokens": [WORDS[id]]});
    let piece = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [piece("[CLS]"), text("A"), piece("[SEP]")], "pair": [text("A"), text("B")],
            "special_tokens": {"[CLS]": special(2), "[SEP]": special(3)},
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"},
    })
}

fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes: Vec<(String, Vec<usize>)> = [("word", WORDS.len()), ("position", 16), ("token_type", 2)]
        .map(|(of, rows)| (format!("embeddings.{of}_embeddings.weight"), vec![rows, HIDDEN]))
        .into();
    let mut part = |name: String, weight: Vec<usize>| {
        shapes.extend([(format!("{name}.bias"), vec![weight[0]]), (format!("{name}.weight"), weight)]);
    };
    part("embeddings.LayerNorm".into(), vec![HIDDEN]);
    part("pooler.dense".into(), vec![HIDDEN, HIDDEN]);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        for dense in ["self.query", "self.key", "self.value", "output.dense"] {
            part(name(&format!("attention.{dense}")), vec![HIDDEN, HIDDEN]);
        }
        part(name("attention.output.LayerNorm"), vec![HIDDEN]);
        part(name("intermediate.dense"), vec![INNER, HIDDEN]);
        part(name("output.dense"), vec![HIDDEN, INNER]);
        part(name("output.LayerNorm"), vec![HIDDEN]);
    }
    shapes
}

/// Any values that differ from place to place.
fn values(name: &str, shape: &[usize], number: usize) -> Vec<u8> {
    let centre = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
    let count: usize = shape.iter().product();
    to_bytes(&(0..count).map(|at| centre + ((at * 31 + number * 17) as f32).sin() * 0.3).collect::<Vec<_>>())
}
