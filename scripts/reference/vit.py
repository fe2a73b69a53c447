#!/usr/bin/env -S python3 -B
"""What Hugging Face's transformers make of a vision transformer, as the tests of the trainer repeat it.

Usage: vit.py [FOLDER]

Writes client/tests/data/vit_reference.json: of a tiny ViTForImageClassification, whose weights follow a formula under the names
that its file has, the logits for two images, the losses of a few steps of full fine-tuning, and those of training peft's
adapters on queries and values with the classifier. In single precision on a CPU. With FOLDER, a model that Sheaf exported,
prints its labels and its logits for the same images instead. To run it: pip install torch transformers peft; the file that
is checked in names their versions.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTForImageClassification

ROOT = Path(__file__).resolve().parents[2]
SIDE, LABELS = 16, [2, 0]
STEPS, LEARNING_RATE = 4, 1e-3
RANK, ALPHA = 2, 6
MEAN, STD = [0.5, 0.4, 0.3], [0.5, 0.25, 0.2]
CONFIG = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20, image_size=SIDE, patch_size=8,
    layer_norm_eps=1e-6, num_labels=3,
)  # fmt: skip


def main():
    folder = Path(tempfile.mkdtemp())
    tensors = write(folder)
    with torch.no_grad():
        logits = opened(folder)(pixels()).logits.tolist()
    reference = {
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft)},
        "config": json.loads((folder / "config.json").read_text()),
        "processor": {"image_mean": MEAN, "image_std": STD, "size": {"height": SIDE, "width": SIDE}},
        "tensors": tensors,
        "labels": LABELS,
        "logits": logits,
        "learning_rate": LEARNING_RATE,
        "losses": descend(opened(folder)),
        "rank": RANK,
        "alpha": ALPHA,
        "adapter_losses": descend(adapted(opened(folder))),
    }
    path = ROOT / "client/tests/data/vit_reference.json"
    path.write_text(json.dumps(reference) + "\n")


def write(folder):
    """A model whose tensor number n, by the names in the file, has the values 0.4 sin(0.37 i^2 + n), 1 more for a norm's weight."""
    ViTForImageClassification(ViTConfig(**CONFIG)).save_pretrained(folder)
    path = folder / "model.safetensors"
    state = dict(sorted(load_file(path).items()))
    for number, (name, tensor) in enumerate(state.items()):
        centre = 1.0 if "layernorm" in name and name.endswith("weight") else 0.0
        values = wave(tensor.numel(), lambda at: centre + 0.4 * math.sin(0.37 * at * at + number))
        state[name] = values.view_as(tensor)
    save_file(state, path, metadata={"format": "pt"})
    return {name: list(tensor.shape) for name, tensor in state.items()}


def wave(count, value):
    return torch.tensor([value(at) for at in range(count)], dtype=torch.float64).float()


def opened(folder):
    model, found = ViTForImageClassification.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(found.values()), found
    return model.eval()


def adapted(model):
    """B is not 0, so that A moves, too."""
    # This version of transformers calls the modules so; in files they are `query` and `value`.
    lora = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"]
    )
    model = peft.get_peft_model(model, lora).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                phase = float("lora_B" in name)
                values = wave(parameter.numel(), lambda at: 0.2 * math.sin(1.7 * at + phase))
                parameter.copy_(values.view_as(parameter))
    return model


def pixels():
    """Two images of bytes, as the model reads them."""
    numbers = torch.arange(2 * 3 * SIDE * SIDE)
    images = (numbers * numbers * 7 % 251).view(2, 3, SIDE, SIDE) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def descend(model):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    found = []
    for _ in range(STEPS):
        loss = model(pixel_values=pixels(), labels=torch.tensor(LABELS)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def show(folder):
    model = opened(folder)
    with torch.no_grad():
        print(model.config.id2label, model(pixels()).logits.tolist())


if len(sys.argv) > 1:
    show(Path(sys.argv[1]))
else:
    main()
