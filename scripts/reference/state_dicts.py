"""State dicts as PyTorch saves them, for the tests of Sheaf's own reader.

Writes common/src/model/foreign/tests/*.pth, of one or two thousand bytes each. Needs torch; the files that are checked in
were made with torch 2.11.0.
"""

import pathlib

import torch

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "common/src/model/foreign/tests"
grid = torch.arange(6, dtype=torch.float32).view(2, 3)
state = {
    "grid": grid,
    "row": grid[1],  # a part of the same storage
    "half": torch.tensor([1.0, -0.5], dtype=torch.float16),
    "bf16": torch.tensor([3.0, -2.0, 0.5], dtype=torch.bfloat16),
    "double": torch.tensor(0.25, dtype=torch.float64),
    "parameter": torch.nn.Parameter(torch.tensor([[7.0], [8.0]])),
    "num_batches_tracked": torch.tensor(5),
}


def save(name, value, zipped=True):
    torch.save(value, FOLDER / f"{name}.pth", _use_new_zipfile_serialization=zipped)


layers = torch.nn.Sequential(torch.nn.BatchNorm2d(2))
save("zip", state)
save("legacy", state, zipped=False)
save("checkpoint", {"epoch": 3, "best": 0.5, "state_dict": layers.state_dict()})
save("transposed", {"grid": torch.arange(24.0).view(2, 3, 1, 4).permute(3, 0, 2, 1)})
save("gaps", {"grid": grid[:, :2]})
save("module", layers)
