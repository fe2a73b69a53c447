"""Fifty steps of fine-tuning all of MiniLM with PyTorch and Hugging Face's transformers, as the tests repeat them.

Writes client/tests/data/fine_tuning_reference.json: the loss of every step, in f32 and with autocast to bf16. Needs torch, transformers, tokenizers and
safetensors; the file that is checked in was made with torch 2.11.0 and transformers 5.23.0. Run it as
    python scripts/reference/fine_tuning.py FOLDER_OF_MINILM reuters-r8-train.tab
It prints the time of a step, without the first five.
"""

import json
import math
import pathlib
import sys
import time

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS, BATCH_SIZE, MAX_LENGTH = 50, 8, 32
LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 5e-5, 0.01, 1.0
TOPICS = ["earn", "crude"]

folder, table = sys.argv[1:]


def documents():
    """The first documents of each topic, in turns."""
    lines = open(table, encoding="utf-8").read().split("\n")
    header = lines[0].split("\t")
    label, text = header.index("Category"), header.index("Text")
    rows = [line.split("\t") for line in lines[3:] if line]
    count = STEPS * BATCH_SIZE // len(TOPICS)
    by_topic = [[row[text] for row in rows if row[label] == topic][:count] for topic in TOPICS]
    return [(text, label) for turn in zip(*by_topic, strict=True) for label, text in enumerate(turn)]


def model():
    config = transformers.BertConfig.from_pretrained(folder, num_labels=len(TOPICS))
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = transformers.BertForSequenceClassification(config)
    found = model.bert.load_state_dict(load_file(f"{folder}/model.safetensors"), strict=False)
    assert not found.missing_keys, found
    with torch.no_grad():
        # A head that is the same in any language.
        numel = model.classifier.weight.numel()
        values = torch.tensor([0.02 * math.sin(1.7 * at) for at in range(numel)])
        model.classifier.weight.copy_(values.view_as(model.classifier.weight))
        model.classifier.bias.zero_()
    return model.train()


def batches():
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding()
    examples = documents()
    for start in range(0, len(examples), BATCH_SIZE):
        texts, labels = zip(*examples[start : start + BATCH_SIZE])
        encoded = tokenizer.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encoded])
        mask = torch.tensor([encoding.attention_mask for encoding in encoded])
        yield ids, mask, torch.tensor(labels)


def train(bf16):
    net = model()
    decayed = [p for p in net.parameters() if p.dim() >= 2]
    rest = [p for p in net.parameters() if p.dim() < 2]
    groups = [dict(params=decayed, weight_decay=WEIGHT_DECAY), dict(params=rest, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    losses, times = [], []
    for ids, mask, labels in batches():
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = net(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - started)
    times = sorted(times[5:])
    print(f"PyTorch: median {1e3 * times[len(times) // 2]:.1f} ms a step, {torch.get_num_threads()} threads")
    return losses


reference = {
    "batch_size": BATCH_SIZE,
    "max_length": MAX_LENGTH,
    "learning_rate": LEARNING_RATE,
    "weight_decay": WEIGHT_DECAY,
    "max_grad_norm": MAX_GRAD_NORM,
    "topics": TOPICS,
    "losses": train(bf16=False),
    "bf16_losses": train(bf16=True),
}
path = ROOT / "client/tests/data/fine_tuning_reference.json"
path.write_text(json.dumps(reference, indent=1) + "\n")
