#!/usr/bin/env -S python3 -B
"""Makes the environment of the frameworks that `make bench` compares with, in the user's cache, and prints its Python.

A virtual environment cannot be renamed, so it is made in its place; a file in it says that it is whole.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from cache import Stop, check_disk, locked, root, run, sha256

REQUIREMENTS = Path(__file__).resolve().parent.parent / "bench" / "peers" / "requirements.txt"


def main():
    place = root() / f"peers-{sha256(REQUIREMENTS)[:12]}"
    whole = place / "whole"
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place):
        if not whole.exists():
            check_disk(place.parent, 1000)
            shutil.rmtree(place, ignore_errors=True)  # left by a set-up that was killed
            make(place)
            whole.touch()
    print(place / "bin" / "python")


def make(place):
    """A virtual environment with exactly what is pinned."""
    say_to_user("Flower and NVFLARE, for comparison")
    for command in (
        [sys.executable, "-m", "venv", place],
        [place / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        # There is no wheel of pyhocon, which is Python alone.
        + ["--only-binary=:all:", "--no-binary=pyhocon", "-r", REQUIREMENTS],
    ):
        step = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        if step.returncode:
            said = (step.stderr.strip().splitlines() or ["nothing"])[-1]
            raise Stop(f"the frameworks to compare with cannot be installed: check the network, then try again; {said}")


def say_to_user(text):
    """Progress, beside the path that a caller reads."""
    print(f"sheaf: {text}", file=sys.stderr, flush=True)


run(main)
