"""Runs and simulations of what the options of [compression] cost: newswire with few documents, and heart at its hospitals.

Runs are those of the examples of these names, without encryption. Usage: python3 prepare.py DATA OUT
"""

import csv
import pathlib
import random
import re
import sys

HERE = pathlib.Path(__file__).parent
DOCUMENTS, TESTED = 400, 300

ENCODINGS = {
    "plain": "",
    "bf16": 'encoding = "bf16"\nzstd = true\n',
    "int8": 'encoding = "int8"\nzstd = true\n',
    "top-10": 'encoding = "top-k"\nshare = 0.1\nzstd = true\n',
    "top-1": 'encoding = "top-k"\nshare = 0.01\nzstd = true\n',
}

NEWSWIRE = """run = "newswire-{encoding}-run.toml"
model = "{minilm}"
clients = 4
seed = 1

[data]
source = {{ path = "newswire.tsv" }}
test = {{ path = "newswire-test.tsv" }}
partition = "dirichlet"
alpha = 1.0
"""

HEART = """run = "heart-{encoding}-run.toml"
clients = 4
seed = 1

[data]
source = {{ path = "heart.csv" }}
test_share = 0.25
partition = "column"
column = "dataset"
"""


def changed(text, *changes):
    for what, by in changes:
        text, times = re.subn(what, by, text, count=1, flags=re.MULTILINE | re.DOTALL)
        if times != 1:
            raise SystemExit(f"the example's run has no {what}")
    return text


def documents(path, number):
    """So many of a file's documents, drawn with a seed of its own."""
    lines = path.read_text(encoding="utf-8").splitlines()[4:]
    return ["topic\ttext"] + random.Random(1).sample(lines, number)


def newswire(data, out):
    for name, part, number in [("newswire", "train", DOCUMENTS), ("newswire-test", "test", TESTED)]:
        chosen = documents(data / "reuters-r8" / f"reuters-r8-{part}.tab", number)
        (out / f"{name}.tsv").write_text("\n".join(chosen) + "\n", encoding="utf-8")
    run = (HERE.parent / "newswire" / "run.toml").read_text(encoding="utf-8")
    return changed(run, ('"required"', '"off"'), (r"^validation_split = \S+", "validation_split = 0.0"))


def heart(data, out):
    with open(data / "heart" / "heart_disease_uci.csv", newline="", encoding="utf-8") as file:
        patients = list(csv.DictReader(file))
    with open(out / "heart.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*patients[0], "disease"])
        writer.writeheader()
        for patient in patients:
            writer.writerow({**patient, "disease": "no" if patient["num"].strip() == "0" else "yes"})
    run = (HERE.parent / "heart" / "run.toml").read_text(encoding="utf-8")
    return changed(
        run,
        ('"required"', '"off"'),
        (r"^rounds = \d+", "rounds = 20"),
        (r'^name = "cleveland-mlp"\ntrainable = "all"', 'architecture = "mlp"\nhidden = [16]'),
        (r"^validation_split = \S+", "validation_split = 0.0"),
    )


def main(data, out):
    data, out = pathlib.Path(data), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    for name, run, simulation in [("newswire", newswire(data, out), NEWSWIRE), ("heart", heart(data, out), HEART)]:
        for encoding, options in ENCODINGS.items():
            table = f"\n[compression]\n{options}" if options else ""
            (out / f"{name}-{encoding}-run.toml").write_text(run + table, encoding="utf-8")
            text = simulation.format(encoding=encoding, minilm=data / "minilm")
            (out / f"{name}-{encoding}.toml").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
