#!/usr/bin/env -S python3 -B
"""TorchScript modules as PyTorch saves them, and what PyTorch makes of them, as the tests of Sheaf repeat it.

Usage: PYTHONHASHSEED=0 torchscript.py

Writes client/tests/data/torchscript/*.pt, of a few thousand bytes each, and client/tests/data/torchscript_reference.json: of
each module that can be trained the logits of a batch, and the losses of a few steps of training with what they leave of the
parameters. In single precision on a CPU. The modules are without what PyTorch stores for error messages, which names the
paths of this machine. To run it: pip install torch; the file that is checked in names the version.
"""

import json
import math
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

FOLDER = Path(__file__).resolve().parents[2] / "client/tests/data"
MODULES = FOLDER / "torchscript"
ROWS, SIDE, STEPS, LEARNING_RATE = 6, 8, 5, 0.02


class Table(nn.Module):
    """Four values to three labels, with everything beside parameters that a module may hold."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 5), nn.Linear(5, 5)])
        self.head = nn.Linear(5, 3)
        self.again = self.layers[1].weight  # another name of a parameter
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.tensor([0.5, -0.5, 0.25]), requires_grad=False)
        self.register_buffer("shift", torch.tensor([1, 0, 2]))
        self.names = ["a", "b", "c"]
        self.scales = {"out": 2.0}
        self.device = torch.device("cpu")

    def forward(self, x):
        for layer in self.layers:
            x = torch.tanh(layer(x))
        x = x + F.linear(x, self.again)
        return self.head(x) * self.scales["out"] + self.frozen + self.shift


class Image(nn.Module):
    """Grey images to two labels; it counts batches."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.features(x).mean([2, 3]))


class Dropping(nn.Module):
    """Four values to three labels, half of what is between them dropped in training."""

    def __init__(self):
        super().__init__()
        self.up, self.drop, self.down = nn.Linear(4, 32), nn.Dropout(0.5), nn.Linear(32, 3)

    def forward(self, x):
        return self.down(self.drop(torch.relu(self.up(x))))


class Views(nn.Module):
    """Two parameters of which one begins within the other."""

    def __init__(self):
        super().__init__()
        values = torch.zeros(6)
        self.a, self.b = nn.Parameter(values[:4]), nn.Parameter(values[2:])

    def forward(self, x):
        return x * self.a.sum() + self.b.sum()


class Raising(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        if x.size(0) > 0:
            raise ValueError("this module never works")
        return self.linear(x)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return self.linear(x), x


def wave(number, shape, scale=1.0):
    """scale * sin(0.37 i^2 + number), in single precision."""
    values = [scale * math.sin(0.37 * at * at + number) for at in range(math.prod(shape))]
    return torch.tensor(values, dtype=torch.float64).view(shape).float()


def filled(module):
    with torch.no_grad():
        for number, (name, tensor) in enumerate(module.named_parameters()):
            if tensor.requires_grad and not name.endswith("unused"):
                tensor.copy_(wave(number, tensor.shape, 0.5))
        for name, tensor in module.named_buffers():
            if name.endswith("running_mean"):
                tensor.copy_(wave(3, tensor.shape, 0.1))
            elif name.endswith("running_var"):
                tensor.copy_(1.0 + wave(4, tensor.shape, 0.5))
    return module


def save(name, module):
    """A scripted module, without the names of its sources."""
    whole = MODULES / f"{name}.whole"
    torch.jit.save(module, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(MODULES / f"{name}.pt", "w") as target:
        for entry in source.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                name = zipfile.ZipInfo(entry.filename.replace(".whole", ""))
                target.writestr(name, source.read(entry), entry.compress_type)
    whole.unlink()


def reference(module, inputs, targets, loss_of):
    """Logits in evaluation, and losses of training the whole batch in the mode that Sheaf trains the module in."""
    module.eval()
    with torch.no_grad():
        logits = module(inputs)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=LEARNING_RATE, weight_decay=0.0)
    losses = []
    for _ in range(STEPS):
        loss = loss_of(module(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    parameters = {name: p.detach().flatten().tolist() for name, p in module.named_parameters() if p.requires_grad}
    return {"logits": logits.tolist(), "losses": losses, "parameters": parameters}


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    MODULES.mkdir(exist_ok=True)
    rows, labels = wave(7, (ROWS, 4)), torch.tensor([0, 1, 2, 2, 1, 0])
    numbers = wave(8, (ROWS, 1))
    sets = torch.tensor([[(row >> bit) & 1 for bit in range(3)] for row in range(ROWS)]).float()
    # Bytes, as sites hold images.
    pixels = (wave(9, (ROWS, 1, SIDE, SIDE)) * 127 + 128).to(torch.uint8)
    traced = torch.jit.trace(filled(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))).eval(), rows)
    table, image = torch.jit.script(filled(Table())), torch.jit.script(filled(Image()))
    save("table", table)
    save("image", image)
    save("traced", traced)
    save("dropping", torch.jit.script(filled(Dropping())))
    save("raising", torch.jit.script(Raising()))
    save("pair", torch.jit.script(Pair()))
    save("views", torch.jit.script(Views()))
    save("double", torch.jit.script(nn.Linear(4, 3).double()))
    save("frozen", torch.jit.freeze(torch.jit.script(filled(Dropping()).eval())))
    again = lambda: torch.jit.load(MODULES / "table.pt")
    result = {
        "torch": torch.__version__,
        "learning_rate": LEARNING_RATE,
        "rows": rows.flatten().tolist(),
        "labels": labels.tolist(),
        "sets": sets.int().flatten().tolist(),
        "numbers": numbers.flatten().tolist(),
        "pixels": pixels.flatten().tolist(),
        "of": {
            "table": reference(again(), rows, labels, F.cross_entropy),
            "table-multi-label": reference(again(), rows, sets, F.binary_cross_entropy_with_logits),
            "traced": reference(traced, rows, numbers, F.mse_loss),
            "image": reference(image, (pixels / 255 - 0.5) / 0.25, labels % 2, F.cross_entropy),
        },
    }
    (FOLDER / "torchscript_reference.json").write_text(json.dumps(result) + "\n")


main()
