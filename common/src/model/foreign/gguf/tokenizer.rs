//! GGUF's tokenizer as Hugging Face's `tokenizer.json`: byte-level BPE from its tokens and merges.
//!
//! How text is cut before merging is only a name in GGUF; those of GPT-2 and SmolLM are known here.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{BadGguf, Gguf};

/// GGUF's types of tokens that stand for themselves wherever they occur: control tokens, and those that users added.
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

/// `tokenizer.json`.
pub(super) fn tokenizer(gguf: &Gguf<'_>) -> Result<Vec<u8>, BadGguf> {
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    let vocab: BTreeMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    if vocab.len() != tokens.len() {
        return wrong("two tokens are written the same");
    }
    let merges = merges(gguf, &vocab)?;
    let byte_level = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added(gguf, &tokens)?,
        "normalizer": null,
        "pre_tokenizer": match cut(gguf)? {
            Cut::Gpt2 => byte_level(false),
            Cut::SmolLm => json!({
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": true}, byte_level(false)],
            }),
        },
        "post_processor": post_processor(gguf, &tokens)?,
        "decoder": byte_level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        },
    });
    serde_json::to_vec(&tokenizer).map_err(|e| BadGguf::Tokenizer(e.to_string()))
}

/// `tokenizer_config.json`.
pub(super) fn config(gguf: &Gguf<'_>) -> Result<Vec<u8>, BadGguf> {
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "model_max_length": gguf.integer("llama.context_length")?,
        "chat_template": gguf.text("tokenizer.chat_template").ok(),
    });
    for (role, name) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
        let id = gguf.integer(&format!("tokenizer.ggml.{name}_token_id")).ok();
        if let Some(token) = id.and_then(|id| tokens.get(usize::try_from(id).ok()?)) {
            config[format!("{role}_token")] = json!(token);
        }
    }
    let mut bytes = serde_json::to_vec_pretty(&config).map_err(|e| BadGguf::Tokenizer(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// How a text is cut before pairs are merged.
enum Cut {
    /// By GPT-2's pattern.
    Gpt2,
    /// The same, and every digit on its own.
    SmolLm,
}

fn cut(gguf: &Gguf<'_>) -> Result<Cut, BadGguf> {
    let shown = |text: &str| text.chars().take(80).collect::<String>();
    let model = gguf.text("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return wrong(&format!("it is of the kind `{}`; byte-level BPE (\"gpt2\") is read", shown(model)));
    }
    match gguf.text("tokenizer.ggml.pre") {
        Ok("smollm") => Ok(Cut::SmolLm),
        Ok("gpt-2") => Ok(Cut::Gpt2),
        Ok(other) => {
            wrong(&format!("it cuts texts as `{}`; \"smollm\" and \"gpt-2\" are known", shown(other)))
        }
        Err(_) => wrong("it does not say how it cuts texts (tokenizer.ggml.pre)"),
    }
}

/// The pairs that are merged, first come first; both parts and the whole are tokens.
fn merges(gguf: &Gguf<'_>, vocab: &BTreeMap<&str, usize>) -> Result<Vec<[String; 2]>, BadGguf> {
    let pair = |merge: &str| {
        let (left, right) = merge.split_once(' ')?;
        let known = [left, right, &format!("{left}{right}")].iter().all(|token| vocab.contains_key(*token));
        known.then(|| [left.to_owned(), right.to_owned()])
    };
    let merges = gguf.texts("tokenizer.ggml.merges")?.into_iter().map(pair).collect::<Option<_>>();
    merges.ok_or_else(|| BadGguf::Tokenizer("it merges what are no tokens".into()))
}

/// The tokens that are looked for in a text before anything else.
fn added(gguf: &Gguf<'_>, tokens: &[&str]) -> Result<Vec<Value>, BadGguf> {
    const KEY: &str = "tokenizer.ggml.token_type";
    let types = gguf.entries.get(KEY).and_then(|value| value.integers());
    let types: Vec<i128> = types.ok_or_else(|| BadGguf::Entry(KEY.into()))?.collect();
    if types.len() != tokens.len() {
        return wrong("it has other numbers of tokens and of their types");
    }
    let is_added = |kind: &i128| matches!(*kind, CONTROL | USER_DEFINED);
    let added = types.iter().zip(tokens).enumerate().filter(|(_, (kind, _))| is_added(kind));
    let added = added.map(|(id, (kind, token))| {
        json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": *kind == CONTROL,
        })
    });
    Ok(added.collect())
}

/// Puts the first token before every text, when the model was trained so.
fn post_processor(gguf: &Gguf<'_>, tokens: &[&str]) -> Result<Value, BadGguf> {
    let asked = |name: &str| gguf.entries.get(name).and_then(|value| value.flag()) == Some(true);
    if asked("tokenizer.ggml.add_eos_token") {
        return wrong("it puts a last token after every text, which Sheaf does by itself");
    }
    if !asked("tokenizer.ggml.add_bos_token") {
        return Ok(Value::Null);
    }
    let id = gguf.integer("tokenizer.ggml.bos_token_id")?;
    let token = usize::try_from(id).ok().and_then(|id| tokens.get(id));
    let token = token.ok_or_else(|| BadGguf::Tokenizer("its first token is none of its tokens".into()))?;
    let first = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |name: &str, number: u32| json!({"Sequence": {"id": name, "type_id": number}});
    Ok(json!({
        "type": "TemplateProcessing",
        "single": [first.clone(), text("A", 0)],
        "pair": [first, text("A", 0), text("B", 1)],
        "special_tokens": {*token: {"id": token, "ids": [id], "tokens": [token]}},
    }))
}

fn wrong<T>(problem: &str) -> Result<T, BadGguf> {
    Err(BadGguf::Tokenizer(problem.to_owned()))
}
