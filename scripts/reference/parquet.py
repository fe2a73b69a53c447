"""Small Parquet files and the CSV file that holds the same, for the tests of how a site reads Parquet.

Writes client/tests/data/parquet/*. Needs pyarrow; the files that are checked in were made with pyarrow 26.
"""

import pathlib

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "client/tests/data/parquet"
FOLDER.mkdir(parents=True, exist_ok=True)

rows = 40
age = [None if i % 7 == 3 else 20 + i for i in range(rows)]
chol = [None if i % 11 == 5 else 180 + i * 1.25 + 1 / (i + 3) for i in range(rows)]
small = [i / 8 - 2.5 for i in range(rows)]
kind = [None if i % 5 == 4 else ["typical", "none", "größer"][i % 3] for i in range(rows)]
smoker = [i % 3 == 0 for i in range(rows)]
disease = ["yes" if i % 4 == 0 else "no" for i in range(rows)]
table = pa.table(
    {
        "age": pa.array(age, pa.int32()),
        "visits": pa.array([[i] * (i % 3) for i in range(rows)], pa.list_(pa.int64())),
        "chol": pa.array(chol, pa.float64()),
        "small": pa.array(small, pa.float32()),
        "kind": pa.array(kind, pa.string()).dictionary_encode(),
        "smoker": pa.array(smoker, pa.bool_()),
        "born": pa.array([i * 86_400_000 for i in range(rows)], pa.timestamp("ms")),
        "count": pa.array([2**63 + i for i in range(rows)], pa.uint64()),
        "disease": pa.array(disease, pa.large_string()),
    }
)
for codec in ["none", "snappy", "gzip", "zstd"]:
    pq.write_table(table, FOLDER / f"{codec}.parquet", compression=codec, row_group_size=15)
pq.write_table(table, FOLDER / "v2.parquet", version="2.6", data_page_version="2.0", use_dictionary=False)
pq.write_table(table, FOLDER / "brotli.parquet", compression="brotli")

cell = lambda value: "" if value is None else str(value).lower() if isinstance(value, bool) else repr(value).strip("'")
names = ["age", "chol", "small", "kind", "smoker", "count", "disease"]
lines = [",".join(cell(table[name][i].as_py()) for name in names) for i in range(rows)]
(FOLDER / "same.csv").write_text("\n".join([",".join(names), *lines]) + "\n")
