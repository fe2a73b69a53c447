#!/usr/bin/env -S python3 -B
"""What Hugging Face's transformers and peft make of decoders, as the tests of the trainer repeat it.

Usage: language.py FOLDER_OF_SMOLLM2

Writes client/tests/data/language_reference.json: tokens and some logits of SmolLM2-135M-Instruct, read from its GGUF file;
the losses of a few steps of instruction tuning with adapters; and all logits of a tiny Llama and a tiny GPT-2, whose
weights follow a formula. In single precision on a CPU. To run it: pip install gguf torch transformers peft; the file
that is checked in names their versions.
"""

import json
import math
import sys
from pathlib import Path

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parents[2]
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
TEMPLATE = "<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
EVERY = 769  # of this many logits one is written down
TEXTS = [
    "Federated learning keeps data where they are.",
    "  In 1987, crude oil fell to $18.50 a barrel;\n\tOPEC's ministers met (again) in Geneva.",
    "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
    "Größe, naïve café, 東京 \U0001f642 don't we'll I'VE",
]
PAIRS = [
    ("Which topic is this? Wheat exports rose by a third.", "grain"),
    ("Which topic is this? The bank raised its rate to 7 pct.", "interest"),
    ("Which topic is this? OPEC cut its output of crude.", "crude oil"),
    ("Which topic is this? The tanker left the Gulf.", "ship"),
    ("Name a primary colour.", "Red is a primary colour."),
    ("What does a sheaf glue?", "What is known locally, into one global whole."),
    ("Say no.", "No."),
    ("Count to three.", "One, two, three."),
]
STEPS, BATCH_SIZE, MAX_LENGTH = 8, 2, 48
LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM, RANK, ALPHA = 2e-3, 0.01, 1.0, 4, 8.0
TINY_LLAMA = dict(
    vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, head_dim=6, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False,
    bos_token_id=1, eos_token_id=2, hidden_act="silu",
)  # fmt: skip
TINY_GPT2 = dict(
    vocab_size=50, n_embd=24, n_layer=2, n_head=3, n_positions=32, layer_norm_epsilon=1e-5, tie_word_embeddings=True,
    bos_token_id=1, eos_token_id=2, activation_function="gelu_new",
)  # fmt: skip
IDS = [[7, 3, 44, 21, 9, 30, 2], [12, 5, 8, 2]]


def main():
    folder = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32).eval()
    reference = {
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft)},
        "every": EVERY,
        "texts": [of_text(tokenizer, model, text) for text in TEXTS],
        "tiny_llama": tiny(LlamaForCausalLM, LlamaConfig, TINY_LLAMA),
        "tiny_gpt2": tiny(GPT2LMHeadModel, GPT2Config, TINY_GPT2),
        "tuning": tuning(tokenizer, model),
    }
    path = ROOT / "client/tests/data/language_reference.json"
    path.write_text(json.dumps(reference, ensure_ascii=True) + "\n")


def of_text(tokenizer, model, text):
    """The tokens, and of the logits at the first, the middle and the last token one in many."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    places = [0, len(ids) // 2, len(ids) - 1]
    chosen = {str(place): [round(value, 5) for value in logits[place][::EVERY].tolist()] for place in places}
    return {"text": text, "tokens": ids, "largest": logits.abs().max().item(), "logits": chosen}


def wave(numel, number):
    """The values of the tensor of this number, the same in any language."""
    return torch.tensor([0.4 * math.sin(1.7 * at + number) for at in range(numel)])


def tiny(kind, config_kind, config):
    config = config_kind(**config, **{key: 0.0 for key in ("attn_pdrop", "embd_pdrop", "resid_pdrop")})
    model = kind(config).eval()
    names = sorted(name for name, _ in model.named_parameters())
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for number, name in enumerate(names):
            parameter = parameters[name]
            centre = 1.0 if is_norm(name) and name.endswith("weight") else 0.0
            parameter.copy_(centre + wave(parameter.numel(), number).view_as(parameter))
        logits = [model(torch.tensor([ids])).logits[0] for ids in IDS]
        losses = [model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item() for ids in IDS]
    return {
        "config": {**config.to_diff_dict(), "model_type": config.model_type},
        "tensors": {name: list(parameters[name].shape) for name in names},
        "ids": IDS,
        "logits": [[round(value, 6) for value in of.flatten().tolist()] for of in logits],
        "losses": losses,
    }


def is_norm(name):
    return "norm" in name or ".ln_" in name


def tuning(tokenizer, model):
    """Losses of steps over PAIRS again and again, on the answers alone."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config).train()
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    with torch.no_grad():
        for name, parameter in trained:
            if "lora_A" in name:
                values = torch.tensor([0.02 * math.sin(1.7 * at) for at in range(parameter.numel())])
                parameter.copy_(values.view_as(parameter))
            else:
                parameter.zero_()
    optimizer = torch.optim.AdamW([p for _, p in trained], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses = []
    for step in range(STEPS):
        start = step * BATCH_SIZE % len(PAIRS)
        batch = [encode(tokenizer, *pair) for pair in PAIRS[start : start + BATCH_SIZE]]
        longest = max(len(ids) for ids, _ in batch)
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch])
        labels = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in trained], MAX_GRAD_NORM)
        optimizer.step()
        losses.append(loss.item())
    return {
        "template": TEMPLATE, "pairs": PAIRS, "batch_size": BATCH_SIZE, "max_length": MAX_LENGTH,
        "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "max_grad_norm": MAX_GRAD_NORM,
        "rank": RANK, "alpha": ALPHA, "losses": losses,
    }  # fmt: skip


def encode(tokenizer, text, answer):
    """Prompt, answer and the token that ends a text; -100 where nothing is foretold."""
    prompt = tokenizer(TEMPLATE.replace("{text}", text))["input_ids"]
    answer = tokenizer(answer, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    assert len(prompt) + len(answer) <= MAX_LENGTH
    return prompt + answer, [-100] * len(prompt) + answer


main()
