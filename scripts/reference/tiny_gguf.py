#!/usr/bin/env -S python3 -B
"""Writes a tiny Llama as GGUF with the package of llama.cpp, and what Hugging Face's transformers reads in it.

common/src/model/foreign/gguf/reference/tiny.gguf holds tensors in every type that Sheaf reads; tiny.json the model's
configuration and some values of every tensor. The values follow a formula, so that the same bytes come out each time.
To run it: pip install gguf==0.19.0 transformers==5.24.0 torch
"""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM

OUT = Path(__file__).resolve().parents[2] / "common/src/model/foreign/gguf/reference"
HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 32, 64, 4, 2, 2
EVERY = 29  # of this many values one is written down


def main():
    OUT.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(OUT / "tiny.gguf", "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = add_tokenizer(writer)
    for name, shape, kind in tensors(len(tokens)):
        values = wave(name, shape)
        if kind == T.F32:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = AutoModelForCausalLM.from_pretrained(OUT, gguf_file="tiny.gguf", dtype="float32")
    state = model.state_dict()
    keys = ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    keys += ["num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "bos_token_id", "eos_token_id"]
    reference = {
        "config": {key: getattr(model.config, key) for key in keys},
        "every": EVERY,
        "tensors": {
            name: {"shape": list(value.shape), "values": value.flatten()[::EVERY].tolist()}
            for name, value in sorted(state.items())
        },
    }
    (OUT / "tiny.json").write_text(json.dumps(reference) + "\n")


def add_tokenizer(writer):
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + sorted(ByteLevel.alphabet())
    merges = ["h e", "he l", "l o", "hel lo"]
    tokens += [merge.replace(" ", "") for merge in merges]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{{ messages }}")
    return tokens


def tensors(vocab):
    """Name, shape and type; every type occurs, also where rows change places."""
    yield "token_embd.weight", (vocab, HIDDEN), T.Q8_0
    yield "output_norm.weight", (HIDDEN,), T.F32
    yield "output.weight", (vocab, HIDDEN), T.Q4_0
    for layer, (a, b) in enumerate([(T.Q4_1, T.F16), (T.BF16, T.Q8_0)]):
        part = lambda name: f"blk.{layer}.{name}.weight"
        yield part("attn_norm"), (HIDDEN,), T.F32
        yield part("attn_q"), (HIDDEN, HIDDEN), a
        yield part("attn_k"), (HIDDEN * KV_HEADS // HEADS, HIDDEN), b
        yield part("attn_v"), (HIDDEN * KV_HEADS // HEADS, HIDDEN), a
        yield part("attn_output"), (HIDDEN, HIDDEN), b
        yield part("ffn_norm"), (HIDDEN,), T.F32
        yield part("ffn_gate"), (INNER, HIDDEN), a
        yield part("ffn_up"), (INNER, HIDDEN), b
        yield part("ffn_down"), (HIDDEN, INNER), a


def wave(name, shape):
    at = np.arange(np.prod(shape), dtype=np.float64) + 7 * len(name)
    return (0.3 * np.sin(1.7 * at) + 0.1 * np.cos(0.37 * at)).reshape(shape).astype(np.float32)


main()
