"""Writes where scikit-learn's FeatureHasher puts words, which client/src/data/hashing.rs is tested against.

To run it: pip install scikit-learn==1.9.1, then python3 scripts/reference/hashing.py from the repository's root.
"""

import json
from pathlib import Path

import sklearn
from sklearn.feature_extraction import FeatureHasher

WORDS = ["", "a", "ab", "abc", "abcd", "Zürich", "東京", "New York", "0", "a=b"] + [f"word {n}" for n in range(30)]

cases = []
for column, buckets in [("city", 2), ("city", 16), ("job", 16), ("größe", 1000), ("city", 65536)]:
    hasher = FeatureHasher(n_features=buckets)
    rows = hasher.transform([{column: word} for word in WORDS])
    for word, row in zip(WORDS, rows):
        cases.append([column, buckets, word, int(row.indices[0]), float(row.data[0])])
out = Path("client/tests/data/hashing.json")
made = f"scripts/reference/hashing.py with scikit-learn {sklearn.__version__}"
lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
out.write_text(f'{{"made_by": "{made}", "cases": [\n{lines}\n]}}\n')
