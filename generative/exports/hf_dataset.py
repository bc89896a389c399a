"""A release as a folder that `datasets.load_dataset` reads: a configuration of items and one of histories, Parquet files.

The features stand twice, as the hub expects: in the Parquet files' own metadata, and in ``dataset_info`` of the README. Files are
written batch by batch, a split a file, so that memory does not grow with the release. `datasets` itself is not needed to write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidlake.errors import ContractError

__all__ = ["SEQUENCE_COLUMNS", "SID_COLUMNS", "write_hf_dataset"]

SID_COLUMNS = {"item_id": pa.string(), "sid": pa.string(), "codes": pa.list_(pa.int32())}
SEQUENCE_COLUMNS = {
    "user_id": pa.string(), "item_ids": pa.list_(pa.string()), "codes": pa.list_(pa.int32()), "target": pa.string(),
}  # fmt: skip
_SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""Names that `datasets` gives splits, by ours."""


def write_hf_dataset(
    semantic_ids: Iterable[pa.RecordBatch], sequences: Iterable[pa.RecordBatch], folder: Path, *, name: str
) -> list[Path]:
    """Write `items/` and `sequences/` as Parquet, and `README.md` that tells of both, to `folder`; `name` is the release.

    Raises `ContractError` where a batch of `sequences` holds a split other than train, valid and test, and where there is none.
    """
    items = {"train": _schema(SID_COLUMNS)}
    histories = {split: _schema(SEQUENCE_COLUMNS) for split in _SPLITS.values()}
    counts = {
        "items": _written(((("train", batch) for batch in semantic_ids)), items, folder / "items"),
        "sequences": _written(_by_split(sequences), histories, folder / "sequences"),
    }
    if not sum(counts["sequences"].values()):
        msg = f"release {name} has no rows in user_sequences; it was made without interactions, so there is nothing to train on"
        raise ContractError(msg, release=name)
    readme = folder / "README.md"
    readme.write_text(_readme(name, counts), encoding="utf-8")
    return [*(folder / config / f"{split}.parquet" for config, splits in counts.items() for split in splits), readme]


def _by_split(sequences: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, pa.RecordBatch]]:
    for batch in sequences:
        for split in pc.unique(batch.column("split")).to_pylist():
            if split not in _SPLITS:
                msg = f"user_sequences has rows of split {split!r}; known are {', '.join(_SPLITS)}"
                raise ContractError(msg, split=split)
            yield _SPLITS[split], batch.filter(pc.equal(batch.column("split"), split))


def _written(parts: Iterable[tuple[str, pa.RecordBatch]], schemas: dict[str, pa.Schema], folder: Path) -> dict[str, int]:
    """Write every part to the file of its split and return the rows of each."""
    folder.mkdir()
    counts = dict.fromkeys(schemas, 0)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(pq.ParquetWriter(folder / f"{split}.parquet", schema)) for split, schema in schemas.items()
        }
        for split, batch in parts:
            writers[split].write_table(pa.Table.from_batches([batch]).select(schemas[split].names).cast(schemas[split]))
            counts[split] += batch.num_rows
    return counts


def _schema(columns: dict[str, pa.DataType]) -> pa.Schema:
    features = {name: _feature(kind) for name, kind in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()], metadata=metadata)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": str(kind), "_type": "Value"}


def _readme(name: str, counts: dict[str, dict[str, int]]) -> str:
    lines = ["---", "configs:"]
    for config, splits in counts.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [line for split in splits for line in (f"  - split: {split}", f"    path: {config}/{split}.parquet")]
    lines += ["dataset_info:"]
    for config, columns in (("items", SID_COLUMNS), ("sequences", SEQUENCE_COLUMNS)):
        lines += [f"- config_name: {config}", "  features:"]
        lines += [f"  - name: {column}\n    {_spelled(kind)}" for column, kind in columns.items()]
        lines += ["  splits:"]
        lines += [f"  - name: {split}\n    num_examples: {rows}" for split, rows in counts[config].items()]
    return "\n".join([*lines, "---", "", f"# Semantic IDs of release {name}", "", _ABOUT, ""])


def _spelled(kind: pa.DataType) -> str:
    return f"list: {kind.value_type}" if pa.types.is_list(kind) else f"dtype: {kind}"


_ABOUT = """Configuration `items` maps every item to its SID; `sequences` holds users' histories, oldest item first, spelled in
codes. In the splits `validation` and `test` the item to predict is `target`."""
