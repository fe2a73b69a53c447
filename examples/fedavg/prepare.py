"""Fashion-MNIST as two tables, and the runs and simulations of FedAvg against FedSGD (McMahan et al. 2017).

A multi-layer perceptron takes a table, so every pixel is a column. Usage: python3 prepare.py FASHION_MNIST_FOLDER OUT
"""

import csv
import gzip
import pathlib
import sys

LABELS = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]
PIXELS = 28 * 28

# Name: (epochs, batch size, learning rate, rounds). FedSGD is one step on all that a client has.
ALGORITHMS = {
    "fedsgd": (1, 600, 0.3, 100),
    "fedavg-e1": (1, 10, 0.05, 50),
    "fedavg-e5": (5, 10, 0.05, 30),
}
SPLITS = {"iid": 'partition = "iid"', "shards": 'partition = "shards"\nshards_per_client = 2'}

RUN = """name = "{name}"
rounds = {rounds}
seed = 1
# What is compared is the algorithm, so nothing is added to the sum.
secure_aggregation = "off"

[model]
# The paper's 2NN.
architecture = "mlp"
hidden = [200, 200]
dropout = 0.0

[task]
type = "tabular-classification"
dataset = "fashion"
label = "label"
labels = {labels}
features = [
{features}
]

[training]
optimizer = "sgd"
learning_rate = {learning_rate}
batch_size = {batch_size}
local_epochs = {epochs}
validation_split = 0.0

[cohort]
fraction = 0.1
min_sites = 10
min_updates = 10
round_timeout = "1h"
"""

SIMULATION = """run = "{algorithm}.toml"
clients = 100
seed = 1

[data]
source = {{ path = "train.csv" }}
test = {{ path = "test.csv" }}
{partition}
"""


def idx(path, skip):
    with gzip.open(path) as file:
        return file.read()[skip:]


def table(folder, part, out):
    images = idx(folder / f"{part}-images-idx3-ubyte.gz", 16)
    labels = idx(folder / f"{part}-labels-idx1-ubyte.gz", 8)
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([f"p{pixel}" for pixel in range(PIXELS)] + ["label"])
        for number, label in enumerate(labels):
            writer.writerow(list(images[number * PIXELS:(number + 1) * PIXELS]) + [LABELS[label]])


def main(folder, out):
    folder, out = pathlib.Path(folder), pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    table(folder, "train", out / "train.csv")
    table(folder, "t10k", out / "test.csv")
    features = ",\n".join(
        f'    {{ column = "p{pixel}", type = "numeric", mean = 0.0, std = 255.0 }}' for pixel in range(PIXELS)
    )
    for algorithm, (epochs, batch_size, learning_rate, rounds) in ALGORITHMS.items():
        run = RUN.format(
            name=algorithm, rounds=rounds, labels=LABELS, features=features,
            learning_rate=learning_rate, batch_size=batch_size, epochs=epochs,
        )
        (out / f"{algorithm}.toml").write_text(run.replace("'", '"'), encoding="utf-8")
        for split, partition in SPLITS.items():
            simulation = SIMULATION.format(algorithm=algorithm, partition=partition)
            (out / f"{algorithm}-{split}.toml").write_text(simulation, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
