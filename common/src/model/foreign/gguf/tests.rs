//! A tiny model in every type that is read, against what transformers makes of it (`scripts/reference/tiny_gguf.py`);
//! and bytes that are no models.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

const TINY: &[u8] = include_bytes!("reference/tiny.gguf");

fn reference() -> Json {
    serde_json::from_str(include_str!("reference/tiny.json")).unwrap()
}

fn parse(bytes: &[u8]) -> Result<Gguf<'_>, BadGguf> {
    Gguf::parse(bytes, bytes.len() as u64)
}

fn sentence(bytes: &[u8]) -> String {
    parse(bytes).and_then(|gguf| gguf.convert()).unwrap_err().to_string()
}

/// The file with other bytes in place of the first occurrence of `from`, which are as many.
fn with(from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = TINY.windows(from.len()).position(|window| window == from).unwrap();
    let mut bytes = TINY.to_vec();
    bytes[at..at + from.len()].copy_from_slice(to);
    bytes
}

/// Bytes of an entry: its key, and a value of the type `kind`.
fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &kind.to_le_bytes(), value].concat()
}

#[test]
fn every_value_is_where_transformers_has_it() {
    let reference = reference();
    let converted = parse(TINY).unwrap().convert().unwrap();
    let expected = reference["tensors"].as_object().unwrap();
    let names: Vec<&str> = converted.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>());
    let every = reference["every"].as_u64().unwrap() as usize;
    for tensor in &converted.tensors {
        let expected = &expected[&tensor.name];
        assert_eq!(serde_json::json!(tensor.stored.shape), expected["shape"], "{}", tensor.name);
        let start = tensor.stored.offset as usize;
        let values = tensor.values(&TINY[start..start + tensor.stored.bytes as usize]);
        let found: Vec<f32> = values.into_iter().step_by(every).collect();
        let expected: Vec<f32> = serde_json::from_value(expected["values"].clone()).unwrap();
        assert_eq!(found, expected, "{}", tensor.name);
    }
}

#[test]
fn the_description_is_in_hugging_faces_words() {
    let converted = parse(TINY).unwrap().convert().unwrap();
    let config: Json = serde_json::from_slice(&converted.config).unwrap();
    for (key, expected) in reference()["config"].as_object().unwrap() {
        if key != "rms_norm_eps" {
            assert_eq!(config[key], *expected, "{key}");
        }
    }
    // Written down as it was meant, not as single precision has it.
    assert_eq!(config["rms_norm_eps"], 1e-5);
    assert_eq!(config["rope_theta"], 10000.0);
    assert_eq!(config["tie_word_embeddings"], false);
}

#[test]
fn the_tokenizer_is_byte_level_bpe() {
    let converted = parse(TINY).unwrap().convert().unwrap();
    let tokenizer: Json = serde_json::from_slice(&converted.tokenizer).unwrap();
    assert_eq!(tokenizer["model"]["vocab"]["hello"], 262);
    assert_eq!(tokenizer["model"]["merges"][3], serde_json::json!(["hel", "lo"]));
    assert_eq!(tokenizer["added_tokens"].as_array().unwrap().len(), 3);
    assert_eq!(tokenizer["added_tokens"][2]["content"], "<|im_end|>");
    assert_eq!(tokenizer["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
    assert_eq!(tokenizer["post_processor"], Json::Null);
    let config: Json = serde_json::from_slice(&converted.tokenizer_config).unwrap();
    assert_eq!(config["eos_token"], "<|im_end|>");
    assert_eq!(config["chat_template"], "{{ messages }}");
}

#[test]
fn what_cannot_be_read_has_a_sentence() {
    assert_eq!(sentence(b"GGML"), "it is no GGUF file");
    assert_eq!(
        sentence(&with(b"GGUF\x03", b"GGUF\x01")),
        "it is GGUF of version 1; versions 2 and 3 are read"
    );
    assert!(sentence(&TINY[..TINY.len() - 1]).contains("does not lie within the file"));
    assert!(sentence(&TINY[..20000]).starts_with("its tensors are longer than the file"));
    assert!(sentence(&TINY[..3000]).starts_with("it ends within its header"));
    let counts = [b"GGUF\x03\0\0\0", &u64::MAX.to_le_bytes()[..], &[0; 8]].concat();
    assert!(sentence(&counts).starts_with("its header counts 18446744073709551615 tensors"));
    let other = with(
        &entry("general.architecture", 8, b"\x05\0\0\0\0\0\0\0llama"),
        &entry("general.architecture", 8, b"\x05\0\0\0\0\0\0\0mamba"),
    );
    assert_eq!(
        sentence(&other),
        "it is a model of the architecture `mamba`, and of GGUF only \"llama\" is read; import the Hugging Face \
         folder of a model that Sheaf trains instead"
    );
    assert!(sentence(&with(b"blk.1.attn_q.", b"blk.1.attn_w.")).contains("a tensor `blk.1.attn_w.weight`"));
    assert!(sentence(&with(b"smollm", b"qwen2!")).contains("it cuts texts as `qwen2!`"));
    assert!(
        sentence(&with(b"llama.block_count", b"llama.block_fount")).contains("no proper `llama.block_count`")
    );
    let head_count = |count: u32| entry("llama.attention.head_count", 4, &count.to_le_bytes());
    assert!(
        sentence(&with(&head_count(4), &head_count(0))).contains("no proper `llama.attention.head_count`")
    );
    assert!(sentence(&with(&head_count(4), &head_count(5))).contains("rope"));
    let merge = |text: &str| [&3u64.to_le_bytes()[..], text.as_bytes()].concat();
    assert!(sentence(&with(&merge("h e"), &merge("h z"))).contains("it merges what are no tokens"));
}

proptest! {
    /// Whatever the bytes say, reading them ends, and what is read lies in the file.
    #[test]
    fn damaged_files_are_refused_or_read(changes in proptest::collection::vec((0usize..9000, any::<u8>()), 1..8)) {
        let mut bytes = TINY.to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        if let Ok(gguf) = parse(&bytes) {
            for tensor in gguf.index().tensors() {
                prop_assert!(tensor.offset + tensor.bytes <= bytes.len() as u64);
            }
            if let Ok(converted) = gguf.convert() {
                for tensor in &converted.tensors {
                    let start = tensor.stored.offset as usize;
                    let values = tensor.values(&bytes[start..start + tensor.stored.bytes as usize]);
                    prop_assert_eq!(Some(values.len() as u64), tensor.stored.numel());
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&[b"GGUF\x03\0\0\0", &bytes[..]].concat());
    }

    /// llama.cpp's order of rows, undone.
    #[test]
    fn rows_return_to_hugging_faces_order(heads in 1u64..5, pairs in 1u64..5, columns in 1u64..4) {
        let rows = heads * pairs * 2;
        let before: Vec<f32> = (0..rows * columns).map(|at| at as f32).collect();
        // As convert_hf_to_gguf.py writes them: [heads, 2, pairs, columns] with the middle axes swapped.
        let at = |head: u64, half: u64, pair: u64, column: u64| ((head * 2 + half) * pairs + pair) * columns + column;
        let mut stored = Vec::new();
        for head in 0..heads {
            for pair in 0..pairs {
                for half in 0..2 {
                    stored.extend((0..columns).map(|column| before[at(head, half, pair, column) as usize]));
                }
            }
        }
        prop_assert_eq!(llama::rows_in_halves(&stored, heads, rows, columns), before);
    }
}
