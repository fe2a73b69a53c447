"""Writes a table that pandas pickled as CSV, without pandas and without running anything that the pickle names.

A pickle is a program, and the one instruction of it that runs foreign code calls what `find_class` returned.
Here that is a stand-in that keeps its arguments, so that a pickle can do no more than be unreadable.
"""

import csv
import io
import lzma
import pickle


class Made:
    """What the pickle would have had made: of which arguments, and what was put into it."""

    def __new__(cls, *arguments):
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __setstate__(self, state):
        self.state = state


class Reader(pickle.Unpickler):
    """An unpickler that imports nothing."""

    def find_class(self, module, name):
        return type(name, (Made,), {})


def xz_to_csv(source, target):
    """Reads an xz-compressed pickle of a DataFrame from `source` and writes CSV to `target`, both binary files."""
    table = columns(Reader(lzma.open(source)).load())
    text = io.TextIOWrapper(target, encoding="utf-8", newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values()))
    text.detach()


def columns(frame):
    """A DataFrame's columns by name, in their order: it keeps those of one type together, in blocks."""
    blocks, (names, _) = frame.state["_mgr"].arguments
    names = values(names.arguments[1]["data"])
    found = {}
    for block in blocks:
        array, places, _ = block.arguments
        places = range(*places.arguments) if type(places).__name__ == "slice" else values(places)
        cells = values(array)
        rows = len(cells) // len(places)
        for number, place in enumerate(places):
            found[names[place]] = cells[number * rows : (number + 1) * rows]
    return {name: found[name] for name in names}


def values(array):
    """A numpy array's values as they lie: numbers as bytes, objects as a list."""
    if type(array).__name__ == "_frombuffer":
        cells, dtype, *_ = array.arguments
        return memoryview(cells).cast({"f8": "d", "i8": "q"}[dtype.arguments[0]]).tolist()
    return array.state[-1]
