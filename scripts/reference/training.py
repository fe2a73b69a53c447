"""Values of PyTorch that the tests of training are held against.

Writes client/src/trainer/torch/tests/optimizers.json and common/src/run/tests/schedules.json. Needs torch
and transformers; the files that are checked in were made with torch 2.11.0 and transformers 5.23.0.
"""

import json
import math
import pathlib

import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = 50
SIZE = 12
# The rate of step s is RATE / (1 + s / 10).
RATE = 0.05

# Which of Sheaf's keys is which argument.
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, dict(weight_decay=0.1)),
    "sgd momentum": (torch.optim.SGD, dict(momentum=0.9)),
    "sgd nesterov": (torch.optim.SGD, dict(momentum=0.9, nesterov=True, weight_decay=0.1)),
    "adam": (torch.optim.Adam, dict(betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1)),
    "adamw": (torch.optim.AdamW, dict(weight_decay=0.1)),
    "rmsprop": (torch.optim.RMSprop, dict(alpha=0.9, weight_decay=0.1)),
    "rmsprop momentum": (torch.optim.RMSprop, dict(alpha=0.9, momentum=0.5)),
    "rmsprop centered": (torch.optim.RMSprop, dict(alpha=0.9, momentum=0.5, centered=True)),
    "adagrad": (torch.optim.Adagrad, dict(weight_decay=0.1)),
    "adagrad decay": (torch.optim.Adagrad, dict(lr_decay=0.1, initial_accumulator_value=0.5)),
}


def gradient(step):
    return [math.sin(1.3 * step + 0.7 * at) + 0.1 * at for at in range(SIZE)]


def trajectory(kind, arguments):
    weights = torch.nn.Parameter(torch.tensor([math.cos(at) for at in range(SIZE)], dtype=torch.float64))
    optimizer = kind([weights], lr=RATE, **arguments)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE / (1 + step / 10)
        weights.grad = torch.tensor(gradient(step), dtype=torch.float64)
        optimizer.step()
    return weights.tolist()


TOTAL, WARMUP = 20, 6


def transformers_schedule(name):
    # Hugging Face's first step has the rate 0 and changes nothing: Sheaf begins with the second.
    def make(optimizer):
        schedule = transformers.get_scheduler(name, optimizer, WARMUP + 1, TOTAL + 1)
        optimizer.step()
        schedule.step()
        return schedule

    return make


SCHEDULES = {
    "constant": transformers_schedule("constant_with_warmup"),
    "linear": transformers_schedule("linear"),
    "cosine": transformers_schedule("cosine"),
    "polynomial": lambda o: torch.optim.lr_scheduler.PolynomialLR(o, total_iters=TOTAL, power=2.5),
    "one-cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=1.0, total_steps=TOTAL),
    "step": lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=6, gamma=0.3),
    "exponential": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, gamma=0.9),
}


def factors(make):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make(optimizer)
    rates = []
    for _ in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def write(path, value):
    (ROOT / path).write_text(json.dumps(value, indent=1) + "\n")


write(
    "client/src/trainer/torch/tests/optimizers.json",
    {name: trajectory(*optimizer) for name, optimizer in OPTIMIZERS.items()},
)
write("common/src/run/tests/schedules.json", {name: factors(make) for name, make in SCHEDULES.items()})
