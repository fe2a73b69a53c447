#!/usr/bin/env -S python3 -B
"""What Hugging Face's transformers make of text encoders, as the tests of the trainer repeat it.

Usage: encoders.py

Writes client/tests/data/encoders_reference.json: of a tiny model of each family, whose weights follow a formula, the logits
for a padded batch with both ways of pooling, the losses of a few steps of full fine-tuning with one label, any number of
labels and a number to learn, and those of training peft's adapters with each choice of biases. In single precision on a
CPU. To run it: pip install torch transformers peft; the file that is checked in names their versions.
"""

import json
import math
from pathlib import Path

import peft
import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification

ROOT = Path(__file__).resolve().parents[2]
# The last text is as long as the models' positions allow.
IDS = [[7, 3, 14, 21, 9], [12, 5], [8, 23, 2, 19, 11, 4, 17], [20, 6, 13, 2, 22, 10, 15, 3, 18, 16, 5, 9]]
LABELS = [2, 0, 1, 1]
MULTI_LABELS = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]
NUMBERS = [0.5, -1.25, 2.0, -0.75]
STEPS, LEARNING_RATE = 4, 1e-3
RANK, ALPHA = 2, 6
BERT = dict(
    vocab_size=24, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20,
    max_position_embeddings=12, type_vocab_size=2, layer_norm_eps=1e-6, pad_token_id=0,
)  # fmt: skip
ROBERTA = BERT | dict(max_position_embeddings=14, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1)
DISTILBERT = dict(
    vocab_size=24, dim=16, n_layers=2, n_heads=4, hidden_dim=20, max_position_embeddings=12, pad_token_id=0,
)  # fmt: skip
FAMILIES = {"bert": BERT, "distilbert": DISTILBERT, "roberta": ROBERTA, "xlm-roberta": ROBERTA}
TASKS = {
    "single_label_classification": torch.tensor(LABELS),
    "multi_label_classification": torch.tensor(MULTI_LABELS, dtype=torch.float32),
    "regression": torch.tensor(NUMBERS),
}


def main():
    reference = {
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft)},
        "ids": IDS,
        "labels": LABELS,
        "multi_labels": MULTI_LABELS,
        "numbers": NUMBERS,
        "learning_rate": LEARNING_RATE,
        "rank": RANK,
        "alpha": ALPHA,
        "families": {family: of_family(family, config) for family, config in FAMILIES.items()},
    }
    path = ROOT / "client/tests/data/encoders_reference.json"
    path.write_text(json.dumps(reference) + "\n")


def of_family(family, keys):
    model, config = tiny(family, keys, "single_label_classification")
    batch = padded(config)
    with torch.no_grad():
        cls = model(**batch).logits
        hidden = model.base_model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).float()
        dense = getattr(model.classifier, "out_proj", model.classifier)
        mean = dense((hidden * mask).sum(1) / mask.sum(1))
    return {
        "config": keys | {"model_type": family},
        "tensors": {name: list(tensor.shape) for name, tensor in sorted(model.state_dict().items())},
        "logits": {"cls": cls.tolist(), "mean": mean.tolist()},
        "losses": {task: losses(family, keys, task) for task in TASKS},
        "adapter_losses": {bias: adapter_losses(family, keys, bias) for bias in ("none", "all", "lora_only")},
    }


def tiny(family, keys, task):
    """A model whose tensor number n, by name, has the values 0.4 sin(0.37 i^2 + n), 1 more for a norm's weight."""
    names = {"num_labels": 1 if task == "regression" else 3, "problem_type": task}
    config = AutoConfig.for_model(family, **keys, **names)
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for number, (name, tensor) in enumerate(sorted(model.state_dict().items())):
            centre = 1.0 if name.lower().replace("_", "").endswith("layernorm.weight") else 0.0
            wave = [centre + 0.4 * math.sin(0.37 * at * at + number) for at in range(tensor.numel())]
            tensor.copy_(torch.tensor(wave, dtype=torch.float64).view_as(tensor))
    return model, config


def padded(config):
    longest = max(map(len, IDS))
    rows = [ids + [config.pad_token_id] * (longest - len(ids)) for ids in IDS]
    mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids in IDS]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask)}


def losses(family, keys, task):
    """Of each step of fine-tuning all parameters on the whole batch, as transformers compute the loss."""
    model, config = tiny(family, keys, task)  # in evaluation mode, so without dropout
    return descend(model, config, TASKS[task])


def adapter_losses(family, keys, bias):
    """The same of training low-rank adapters, with these biases and the classifier; B is not 0, so that A moves, too."""
    model, config = tiny(family, keys, "single_label_classification")
    targets = ["q_lin", "v_lin"] if family == "distilbert" else ["query", "value"]
    lora = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, bias=bias, target_modules=targets, task_type="SEQ_CLS")
    model = peft.get_peft_model(model, lora).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                wave = [0.2 * math.sin(1.7 * at + ("lora_B" in name)) for at in range(parameter.numel())]
                parameter.copy_(torch.tensor(wave, dtype=torch.float64).view_as(parameter))
    return descend(model, config, TASKS["single_label_classification"])


def descend(model, config, labels):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    found = []
    for _ in range(STEPS):
        loss = model(**padded(config), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


main()
