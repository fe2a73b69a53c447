#!/usr/bin/env -S python3 -B
"""Makes an environment that `make bench` compares with, in the user's cache, and prints its Python.

`peers.py frameworks` has Flower and NVFLARE, `peers.py pytorch` PyTorch and libraries of models. A virtual environment cannot be
renamed, so it is made in its place; a file in it says that it is whole.
"""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from cache import Stop, check_disk, locked, root, run, sha256

PINNED = Path(__file__).resolve().parent.parent / "bench" / "peers"
# Which what is pinned is for.
PYTHON = (3, 11)
# What each holds, for people, and megabytes that making it takes.
ENVIRONMENTS = {"frameworks": ("Flower and NVFLARE", 1000), "pytorch": ("PyTorch", 12000)}


def main():
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    if name not in ENVIRONMENTS:
        raise Stop(f"usage: peers.py {'|'.join(ENVIRONMENTS)}")
    what, megabytes = ENVIRONMENTS[name]
    pinned = PINNED / f"{name}.txt"
    place = root() / f"{name}-{sha256(pinned)[:12]}"
    whole = place / "whole"
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place):
        if not whole.exists():
            check_disk(place.parent, megabytes)
            shutil.rmtree(place, ignore_errors=True)  # left by a set-up that was killed
            say_to_user(f"{what}, for comparison")
            make(place, pinned)
            whole.touch()
    print(place / "bin" / "python")


def make(place, pinned):
    """A virtual environment with exactly what is pinned."""
    if sys.version_info < PYTHON:
        raise Stop(f"what to compare with needs Python {'.'.join(map(str, PYTHON))} or later; this is {sys.version.split()[0]}")
    if importlib.util.find_spec("ensurepip") is None:
        raise Stop("python3 cannot make a virtual environment: install the rest of it (Debian: apt install python3-venv)")
    for command in (
        [sys.executable, "-m", "venv", place],
        [place / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        # There is no wheel of pyhocon, which is Python alone.
        + ["--only-binary=:all:", "--no-binary=pyhocon", "-r", pinned],
    ):
        # As in cache.py, whoever goes on after we were killed still holds the lock.
        step = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, close_fds=False)
        if step.returncode:
            said = (step.stderr.strip().splitlines() or ["nothing"])[-1]
            raise Stop(f"what to compare with cannot be installed: check the network, then try again; {said}")


def say_to_user(text):
    """Progress, beside the path that a caller reads."""
    print(f"sheaf: {text}", file=sys.stderr, flush=True)


run(main)
