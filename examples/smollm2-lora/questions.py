#!/usr/bin/env -S python3 -B
"""Writes each desk's questions about Reuters R8 as JSON lines, and a common test set: questions.py OUT [EACH]

Each of three desks gets EACH documents (60 when not given) of all topics, and no document goes to two of them; the test
set are as many that no desk has. The data come from the cache: python3 scripts/fetch_data.py reuters-r8
"""

import json
import os
import sys
from pathlib import Path

WORDS = 60  # of a document's, so that question and answer fit the run's tokens
NAMES = {
    "acq": "takeovers", "crude": "crude oil", "earn": "earnings", "grain": "grain", "interest": "interest rates",
    "money-fx": "currencies", "ship": "shipping", "trade": "trade",
}  # fmt: skip

cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sheaf/data/reuters-r8"
out, each = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 60
lines = (cache / "reuters-r8-train.tab").read_text(encoding="utf-8").split("\n")[3:]
by_topic = {topic: [] for topic in NAMES}
for topic, text, *_ in (line.split("\t") for line in lines if line):
    by_topic[topic].append(" ".join(text.split()[:WORDS]))
# Topics in turns, so that every desk has all of them.
turns = [(topic, texts[turn]) for turn in range(each) for topic, texts in by_topic.items() if turn < len(texts)]
out.mkdir(parents=True, exist_ok=True)
for place, name in enumerate(["east", "north", "west", "test"]):
    with open(out / f"{name}.jsonl", "w", encoding="utf-8") as file:
        for topic, text in turns[place * each : (place + 1) * each]:
            question = f"Which topic is this newswire about? {text}"
            file.write(json.dumps({"question": question, "answer": NAMES[topic]}) + "\n")
