"""Whether PEFT makes of an exported adapter what Sheaf makes of it.

Usage: adapter.py MERGED ADAPTER BASE

MERGED is the folder of `sheaf model export RUN --out MERGED`, ADAPTER that of `--adapter`, BASE the model that the run
started from. Prints the largest difference of the logits of both. Needs torch, transformers and peft.
"""

import json
import pathlib
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TEXTS = ["oil prices rise as opec cuts output", "the bank raised its interest rate"]


def logits(encoder, head, batch):
    """Mean pooling, as the run has it."""
    hidden = encoder(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).float()
    return head((hidden * mask).sum(1) / mask.sum(1))


merged_dir, adapter_dir, base_dir = map(pathlib.Path, sys.argv[1:])
labels = json.loads((merged_dir / "config.json").read_text())["id2label"]
batch = AutoTokenizer.from_pretrained(merged_dir)(TEXTS, padding=True, return_tensors="pt")
merged = AutoModelForSequenceClassification.from_pretrained(merged_dir).eval()
base = AutoModelForSequenceClassification.from_pretrained(base_dir, num_labels=len(labels))
adapted = PeftModel.from_pretrained(base, adapter_dir).eval().base_model.model
with torch.no_grad():
    ours = logits(merged.base_model, merged.classifier, batch)
    theirs = logits(adapted.base_model, adapted.classifier, batch)
print(f"largest difference {(ours - theirs).abs().max():.2e} of logits up to {ours.abs().max():.2f}")
