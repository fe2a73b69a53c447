"""Whether PEFT makes of an exported adapter of a language model what Sheaf makes of it.

Usage: language_adapter.py MERGED ADAPTER BASE

MERGED is the folder of `sheaf model export RUN --out MERGED`, ADAPTER that of `--adapter`, BASE the model that the run
started from: a folder or a GGUF file. Prints the largest difference of the logits of both, and how far the adapter moved
them. Needs torch, transformers and peft, and gguf for such a file.
"""

import pathlib
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = ["oil prices rise as opec cuts output", "The bank raised its interest rate to 7.5 pct."]

merged_dir, adapter_dir, base = map(pathlib.Path, sys.argv[1:])
where = dict(pretrained_model_name_or_path=base)
if base.is_file():
    where = dict(pretrained_model_name_or_path=base.parent, gguf_file=base.name)
tokenizer = AutoTokenizer.from_pretrained(merged_dir)
merged = AutoModelForCausalLM.from_pretrained(merged_dir).eval()
original = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
batches = [tokenizer(text, return_tensors="pt") for text in TEXTS]
with torch.no_grad():
    before = [original(**batch).logits for batch in batches]
    ours = [merged(**batch).logits for batch in batches]
    adapted = PeftModel.from_pretrained(original, adapter_dir).eval()
    theirs = [adapted(**batch).logits for batch in batches]


def furthest(a, b):
    return max((x - y).abs().max().item() for x, y in zip(a, b))


print(f"largest difference {furthest(ours, theirs):.2e} of logits up to {max(x.abs().max() for x in ours):.2f}")
print(f"the adapter moved them by up to {furthest(ours, before):.2e}")
