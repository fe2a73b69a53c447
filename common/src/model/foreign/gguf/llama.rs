//! A Llama model in GGUF's words and in Hugging Face's: `config.json`, the names of tensors, and the order of rows.

use serde_json::json;

use super::{BadGguf, ConvertedTensor, Gguf};

/// `config.json` of the model; `tied` when its head is its embeddings.
pub(super) fn config(gguf: &Gguf<'_>, tied: bool) -> Result<Vec<u8>, BadGguf> {
    check(gguf)?;
    let (heads, hidden) = (heads(gguf)?, gguf.integer("llama.embedding_length")?);
    let embeddings = gguf.index.tensor("token_embd.weight").map(|tensor| tensor.shape.as_slice());
    let Some([vocab_size, _]) = embeddings else { return Err(BadGguf::Entry("token_embd.weight".into())) };
    let token = |name: &str| gguf.integer(&format!("tokenizer.ggml.{name}_token_id")).ok();
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_size": hidden,
        "intermediate_size": gguf.integer("llama.feed_forward_length")?,
        "num_hidden_layers": gguf.integer("llama.block_count")?,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads(gguf)?,
        "head_dim": head_width(gguf)?,
        "hidden_act": "silu",
        "max_position_embeddings": gguf.integer("llama.context_length")?,
        "rms_norm_eps": gguf.float("llama.attention.layer_norm_rms_epsilon")?,
        "rope_theta": gguf.float("llama.rope.freq_base").unwrap_or(10000.0),
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": tied,
        "bos_token_id": token("bos"),
        "eos_token_id": token("eos"),
        "pad_token_id": token("padding"),
        "torch_dtype": "float32",
    });
    let mut config = serde_json::to_vec_pretty(&config).map_err(|e| BadGguf::Model(e.to_string()))?;
    config.push(b'\n');
    Ok(config)
}

/// Refuses what this architecture can have and Sheaf does not compute.
fn check(gguf: &Gguf<'_>) -> Result<(), BadGguf> {
    let refuse = |what: String| Err(BadGguf::Model(what));
    let architecture = gguf.text("general.architecture")?;
    if architecture != "llama" {
        let shown: String = architecture.chars().take(80).collect();
        return refuse(format!(
            "it is a model of the architecture `{shown}`, and of GGUF only \"llama\" is read"
        ));
    }
    if gguf.text("llama.rope.scaling.type").is_ok_and(|kind| kind != "none") {
        return refuse("its positions are scaled (llama.rope.scaling), which Sheaf does not compute".into());
    }
    if gguf.integer("llama.expert_count").is_ok_and(|count| count > 0) {
        return refuse("it is a mixture of experts, which Sheaf does not compute".into());
    }
    let (turned, width) = (gguf.integer("llama.rope.dimension_count"), head_width(gguf)?);
    if turned.is_ok_and(|turned| turned != width) {
        return refuse("it turns only a part of each head (llama.rope.dimension_count)".into());
    }
    Ok(())
}

fn heads(gguf: &Gguf<'_>) -> Result<u64, BadGguf> {
    let heads = gguf.integer("llama.attention.head_count")?;
    if heads == 0 { Err(BadGguf::Entry("llama.attention.head_count".into())) } else { Ok(heads) }
}

fn kv_heads(gguf: &Gguf<'_>) -> Result<u64, BadGguf> {
    match gguf.integer("llama.attention.head_count_kv") {
        Ok(heads) if heads > 0 => Ok(heads),
        _ => heads(gguf),
    }
}

fn head_width(gguf: &Gguf<'_>) -> Result<u64, BadGguf> {
    match gguf.integer("llama.attention.key_length") {
        Ok(width) => Ok(width),
        Err(_) => Ok(gguf.integer("llama.embedding_length")? / heads(gguf)?),
    }
}

/// All tensors with their names in Hugging Face's model, in the order of those.
pub(super) fn tensors(gguf: &Gguf<'_>) -> Result<Vec<ConvertedTensor>, BadGguf> {
    check(gguf)?;
    let (heads, kv_heads) = (heads(gguf)?, kv_heads(gguf)?);
    let convert = |stored: &super::ForeignTensor| {
        let name = name(&stored.name).ok_or_else(|| {
            BadGguf::Model(format!("it has a tensor `{}` that Sheaf has no use for", stored.name))
        })?;
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => Some(heads),
            Some("k_proj") => Some(kv_heads),
            _ => None,
        };
        let even = |heads: &u64| {
            let rows = stored.shape.first().filter(|_| stored.shape.len() == 2);
            heads.checked_mul(2).zip(rows).is_some_and(|(halves, rows)| rows.is_multiple_of(halves))
        };
        if heads.as_ref().is_some_and(|heads| !even(heads)) {
            return Err(BadGguf::Model(format!(
                "`{}` has no even number of rows for each head",
                stored.name
            )));
        }
        Ok(ConvertedTensor { name, stored: stored.clone(), heads })
    };
    let mut tensors = gguf.index.tensors().map(convert).collect::<Result<Vec<_>, _>>()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

fn name(stored: &str) -> Option<String> {
    let whole = match stored {
        "token_embd.weight" => "model.embed_tokens.weight",
        "output_norm.weight" => "model.norm.weight",
        "output.weight" => "lm_head.weight",
        _ => "",
    };
    if !whole.is_empty() {
        return Some(whole.to_owned());
    }
    let (layer, part) = stored.strip_prefix("blk.")?.split_once('.')?;
    let layer: u32 = layer.parse().ok()?;
    let part = match part.strip_suffix(".weight")? {
        "attn_norm" => "input_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "ffn_norm" => "post_attention_layernorm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{layer}.{part}.weight"))
}

/// Rows that lie in pairs for each of `heads` heads, in the order that Hugging Face turns: first of all pairs the one,
/// then the other. `rows` is a multiple of twice the heads.
pub(super) fn rows_in_halves(values: &[f32], heads: u64, rows: u64, columns: u64) -> Vec<f32> {
    let width = (rows / heads.max(1)).max(1);
    let from = |row: u64| {
        let (head, at) = (row / width, row % width);
        let (half, pair) = (at / (width / 2).max(1), at % (width / 2).max(1));
        (head * width + 2 * pair + half) * columns
    };
    let row = |row: u64| {
        let start = from(row) as usize;
        values.get(start..start + columns as usize).unwrap_or_default()
    };
    (0..rows).flat_map(row).copied().collect()
}
