"""Writes minilm_reference.json: what MiniLM makes of a few texts, computed in float64 by numpy alone.

An implementation that shares no code with Sheaf's. To make the file again (numpy, safetensors, tokenizers):
    python minilm_reference.py FOLDER_OF_THE_MODEL > minilm_reference.json
"""

import json
import math
import sys

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

MAX_LENGTH = 24
TEXTS = [
    "OPEC said it would cut oil production by 1.2 million barrels a day.",
    "Wheat!",
    "Net profit for the quarter rose to 3.4 mln dlrs, or 12 cts per share, from 2.9 mln dlrs a year earlier, on "
    "sales that grew by a quarter, the company said in a statement to its shareholders.",
    "Café crème à Zürich, naïvely: 東京 ok?",
]

folder = sys.argv[1]
weights = {name: value.astype(np.float64) for name, value in load_file(f"{folder}/model.safetensors").items()}
config = json.load(open(f"{folder}/config.json"))
erf = np.vectorize(math.erf)


def linear(x, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(x, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def embed(ids):
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    size = config["hidden_size"] // config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        query, key, value = (linear(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(config["num_attention_heads"]):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(query[:, part] @ key[:, part].T / math.sqrt(size))
            heads.append(scores / scores.sum(-1, keepdims=True) @ value[:, part])
        attended = linear(np.concatenate(heads, -1), f"{at}.attention.output.dense")
        x = norm(x + attended, f"{at}.attention.output.LayerNorm")
        up = linear(x, f"{at}.intermediate.dense")
        up = up * 0.5 * (1 + erf(up / math.sqrt(2)))
        x = norm(x + linear(up, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    cls = np.tanh(linear(x[0], "pooler.dense"))
    return x.mean(0), cls


tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.no_padding()
tokenizer.enable_truncation(MAX_LENGTH)
texts = []
for text in TEXTS:
    ids = tokenizer.encode(text).ids
    mean, cls = embed(np.array(ids))
    rounded = lambda values: [round(float(value), 6) for value in values]
    texts.append({"text": text, "tokens": ids, "mean": rounded(mean), "cls": rounded(cls)})
lines = ",\n".join(json.dumps(text, ensure_ascii=False) for text in texts)
print(f'{{"made_by": "minilm_reference.py", "max_length": {MAX_LENGTH}, "texts": [\n{lines}\n]}}')
