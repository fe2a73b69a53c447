"""Logits of torchvision's and timm's image classifiers, and fifty steps of training one, as the tests repeat them.

Writes client/tests/data/vision_reference.json. Needs torch, torchvision and timm; the file that is checked in was made with
torch 2.11.0, torchvision 0.26.0 and timm 1.0.31. Run it as
    python scripts/reference/vision.py FOLDER_OF_EFFICIENTNET_LITE0
It prints the time of a training step, without the first five. ResNets and the vision transformer have weights made by a
formula, which the tests make again; EfficientNet-Lite0 has its own, put into timm's model in the order of its layers.
"""

import json
import pathlib
import sys
import time

import numpy as np
import timm
import torch
import torchvision

ROOT = pathlib.Path(__file__).resolve().parents[2]
# With larger rates what rounding does grows from step to step: PyTorch with and without oneDNN differs as much.
STEPS, BATCH_SIZE, SIDE, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 50, 4, 64, 4e-6, 0.9, 0.01
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
LITE = ([127 / 255] * 3, [128 / 255] * 3)
HALF = ([0.5] * 3, [0.5] * 3)

# Nor does PyTorch agree with itself where batches are small: what a batch counts depends on every rounding.
COUNTING_STEPS, COUNTING_BATCH, COUNTING_RATE = 4, 8, 1e-4

(folder,) = sys.argv[1:]


def uniform(name, shape):
    """Values in [0, 1) that any language can make: a hash of the tensor's name and the value's place."""
    seed = 0
    for byte in name.encode():
        seed = (seed * 31 + byte) % 2**32
    x = (np.arange(int(np.prod(shape)), dtype=np.uint64) * 2654435761 + seed) % 2**32
    x = (x ^ (x >> 15)) * 2246822519 % 2**32
    x = (x ^ (x >> 13)) * 3266489917 % 2**32
    x = x ^ (x >> 16)
    return (x / 2**32).reshape(shape)


def made(name, shape):
    values = uniform(name, shape)
    if len(shape) == 1:
        values = values + 0.5 if name.endswith(("weight", "running_var")) else 0.2 * (values - 0.5)
    else:
        values = (values - 0.5) * 2 * np.sqrt(3 / np.prod(shape[1:]))
    return torch.tensor(values, dtype=torch.float32)


def with_made(net):
    state = {name: made(name, value.shape) for name, value in net.state_dict().items() if value.is_floating_point()}
    net.load_state_dict(state, strict=False)
    return net.eval()


def lite0():
    state = torch.load(next(pathlib.Path(folder).glob("*.pth")), map_location="cpu", weights_only=True)
    net = timm.create_model("tf_efficientnet_lite0")
    own = net.state_dict()
    pairs = list(zip(own.items(), state.values(), strict=True))
    assert all(value.shape == theirs.shape for (_, value), theirs in pairs)
    net.load_state_dict({name: theirs for (name, _), theirs in pairs})
    return net.eval()


def images(count, side):
    return torch.tensor(uniform(f"images {side}", (count, 3, side, side)), dtype=torch.float32)


def normalised(batch, constants):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in constants)
    return (batch - mean) / std


def logits(net, side, constants, bf16=False):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return net(normalised(images(2, side), constants)).float().tolist()


def lite0_with_new_head():
    net = lite0()
    net.classifier = torch.nn.Linear(net.num_features, 2)
    with torch.no_grad():
        net.classifier.weight.copy_(made("classifier.weight", net.classifier.weight.shape))
        net.classifier.bias.zero_()
    return net


def train():
    """All parameters of EfficientNet-Lite0 with a new head, batch normalisation by what it has counted."""
    net = lite0_with_new_head()
    decayed = [p for p in net.parameters() if p.dim() >= 2]
    rest = [p for p in net.parameters() if p.dim() < 2]
    groups = [dict(params=decayed, weight_decay=WEIGHT_DECAY), dict(params=rest, weight_decay=0.0)]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM)
    labels = torch.arange(STEPS * BATCH_SIZE) % 2
    # One label's images are a little brighter.
    pixels = images(STEPS * BATCH_SIZE, SIDE) * 0.9 + 0.1 * labels.float().view(-1, 1, 1, 1)
    losses, times = [], []
    for step in range(STEPS):
        started = time.perf_counter()
        part = slice(step * BATCH_SIZE, (step + 1) * BATCH_SIZE)
        loss = torch.nn.functional.cross_entropy(net(normalised(pixels[part], LITE)), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - started)
    times = sorted(times[5:])
    print(f"PyTorch: median {1e3 * times[len(times) // 2]:.1f} ms a step, {torch.get_num_threads()} threads")
    return losses


def count(net, constants):
    """A few steps in which batch normalisation counts: losses, what was counted, and logits of the trained model."""
    net.train()
    optimizer = torch.optim.SGD(net.parameters(), lr=COUNTING_RATE)
    losses = []
    for step in range(COUNTING_STEPS):
        part = slice(step * COUNTING_BATCH, (step + 1) * COUNTING_BATCH)
        pixels, labels = images(COUNTING_STEPS * COUNTING_BATCH, SIDE)[part], torch.arange(COUNTING_BATCH) % 2
        loss = torch.nn.functional.cross_entropy(net(normalised(pixels, constants)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        after = net(normalised(images(2, SIDE), constants)).tolist()
    # Of each layer one value, wide layers and narrow ones alike.
    counted = {name: values[len(values) // 2].item() for name, values in net.state_dict().items() if "running" in name}
    return {"losses": losses, "counted": counted, "logits": rounded(after)}


def rounded(rows):
    return [[round(value, 6) for value in row] for row in rows]


reference = {
    "resnet18": rounded(logits(with_made(torchvision.models.resnet18(num_classes=8)), 64, IMAGENET)),
    "resnet34": rounded(logits(with_made(torchvision.models.resnet34(num_classes=8)), 64, IMAGENET)),
    "resnet50": rounded(logits(with_made(torchvision.models.resnet50(num_classes=8)), 64, IMAGENET)),
    "vit": rounded(logits(with_made(timm.create_model("vit_tiny_patch16_224", num_classes=8)), 224, HALF)),
    "efficientnet-lite0": rounded(logits(lite0(), 224, LITE)),
    "resnet18 in bf16": rounded(logits(with_made(torchvision.models.resnet18(num_classes=8)), 64, IMAGENET, bf16=True)),
    "vit in bf16": rounded(logits(with_made(timm.create_model("vit_tiny_patch16_224", num_classes=8)), 224, HALF, bf16=True)),
    "efficientnet-lite0 in bf16": rounded(logits(lite0(), 224, LITE, bf16=True)),
    "training": {
        "batch_size": BATCH_SIZE,
        "side": SIDE,
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
        "weight_decay": WEIGHT_DECAY,
        "losses": train(),
    },
    "counting": {
        "learning_rate": COUNTING_RATE,
        "batch_size": COUNTING_BATCH,
        "resnet18": count(with_made(torchvision.models.resnet18(num_classes=2)), IMAGENET),
        "efficientnet-lite0": count(lite0_with_new_head(), LITE),
    },
}
for name in ("resnet18", "resnet34", "resnet50", "vit", "efficientnet-lite0"):
    print(name, max(abs(value) for row in reference[name] for value in row))
path = ROOT / "client/tests/data/vision_reference.json"
path.write_text(json.dumps(reference) + "\n")
