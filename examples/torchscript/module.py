#!/usr/bin/env -S python3 -B
"""A network of one's own as a TorchScript module: gated residual blocks for the patients of examples/heart.

Usage: module.py MODEL.pt

To run it: pip install torch.
"""

import sys

import torch
from torch import nn

# Sheaf gives a number as two values, itself and whether it is missing, and a category as one value for each that there is:
# 2 * 6 numbers and 19 categories.
INPUTS, WIDTH, LABELS = 31, 32, 2


class Gated(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.value, self.gate = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.value(y) * torch.sigmoid(self.gate(y))


torch.manual_seed(1)
network = nn.Sequential(
    nn.Linear(INPUTS, WIDTH), Gated(WIDTH), nn.Dropout(0.2), Gated(WIDTH), nn.Linear(WIDTH, LABELS)
)
# Here is where your own would be trained, or loaded. It gives logits: no softmax behind the last layer.
torch.jit.script(network).save(sys.argv[1])
