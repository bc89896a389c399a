"""Reading and writing vectors of `item_embeddings`: Arrow lists on disk, float32 matrices in the steps.

A vector belongs to (item_id, modality, encoder_id, content_hash). A release holds those in force and no others; a run may add
rows for more; `matrix_for` picks exactly the rows that are asked for.

Memory: 4 * D bytes per item for each matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.errors import ContractError
from sidlake.warehouse.contracts import narrow

__all__ = [
    "BY_ITEM",
    "as_code_lists",
    "as_codes",
    "as_lists",
    "as_matrix",
    "embedding_rows",
    "matrix_for",
    "missing_rows",
    "present_modalities",
]

_MAX_OFFSET = 2**31 - 1
"""Values that a list array with 32-bit offsets can number: 5.6 million vectors of 384 dimensions have more."""


def as_matrix(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float32]:
    """Return a column of float lists as a float32 matrix (N, D); `ContractError` where the lengths differ.

    >>> as_matrix(pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32()))).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    return _stacked(column, np.dtype(np.float32))


def as_lists(x_ND: npt.NDArray[np.float32]) -> pa.ChunkedArray:
    """Return a matrix as list<float32>, without copying its values; in chunks that 32-bit offsets can number."""
    return _lists(x_ND, pa.float32())


def as_codes(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int32]:
    """Return a column of lists of codes, all of one length, as an int32 matrix (N, L); (0, 0) without rows."""
    return _stacked(column, np.dtype(np.int32))


def as_code_lists(codes_NL: npt.NDArray[np.int32]) -> pa.ChunkedArray:
    """Return a matrix of codes as list<int32>, likewise.

    >>> as_code_lists(np.array([[1, 2], [3, 4]], np.int32)).to_pylist()
    [[1, 2], [3, 4]]
    """
    return _lists(codes_NL, pa.int32())


def _lists(values_ND: npt.NDArray[Any], kind: pa.DataType) -> pa.ChunkedArray:
    num_rows, width = values_ND.shape
    step = max(1, _MAX_OFFSET // max(width, 1))
    parts = [values_ND[start : start + step] for start in range(0, max(num_rows, 1), step)]
    arrays = [
        pa.ListArray.from_arrays(
            pa.array(np.arange(len(part) + 1, dtype=np.int32) * np.int32(width)), pa.array(np.ascontiguousarray(part).ravel(), kind)
        )
        for part in parts
    ]
    return pa.chunked_array(arrays)


def _stacked(column: pa.ChunkedArray | pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    parts = _views(column)
    if not parts:
        return np.empty((0, 0), dtype)
    stacked = np.empty((sum(map(len, parts)), parts[0].shape[1]), dtype)
    start = 0
    for part in parts:
        stacked[start : start + len(part)] = part
        start += len(part)
    return stacked


def _views(column: pa.ChunkedArray | pa.Array) -> list[npt.NDArray[Any]]:
    """Return the values of each chunk as a matrix, not copied where none is null; `ContractError` where the lengths differ."""
    chunks = [chunk for chunk in (column.chunks if isinstance(column, pa.ChunkedArray) else [column]) if len(chunk)]
    lengths = {int(length) for chunk in chunks for length in pc.unique(pc.list_value_length(chunk)).to_pylist()}
    if len(lengths) > 1:
        msg = f"vectors of {min(lengths)} to {max(lengths)} dimensions in one column; all must have the same"
        raise ContractError(msg)
    return [chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1) for chunk in chunks]


def embedding_rows(items: pa.Table, modality: str, encoder_id: str, x_ND: npt.NDArray[np.float32]) -> pa.Table:
    """Return rows of `item_embeddings` for `items` (item_id, content_hash), one vector each."""
    return pa.table(
        {
            "item_id": items.column("item_id"),
            "modality": pa.array([modality] * len(items), pa.string()),
            "encoder_id": pa.array([encoder_id] * len(items), pa.string()),
            "content_hash": items.column("content_hash"),
            "vector": as_lists(x_ND),
        }
    )


def missing_rows(items: pa.Table, embeddings: pl.LazyFrame | None, modality: str, encoder_id: str) -> pa.Table:
    """Return the rows of `items` whose content this encoder has not embedded yet, in item order."""
    if embeddings is None:
        return items
    wanted = pl.from_arrow(items)
    assert isinstance(wanted, pl.DataFrame)
    have = embeddings.filter((pl.col("modality") == modality) & (pl.col("encoder_id") == encoder_id))
    missing = wanted.lazy().join(
        have.select("item_id", "content_hash"), on=["item_id", "content_hash"], how="anti", maintain_order="left"
    )
    return narrow(missing.collect().to_arrow(), items.schema)


def matrix_for(
    items: pa.Table, embeddings: pl.LazyFrame, modality: str, encoder_id: str, *, by: Sequence[str] = ("item_id", "content_hash")
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (vectors (N, D), present (N,)) in the order of `items`; an absent vector is zero and not present.

    `by` is what a row is found by: behaviour belongs to the item, whatever its content is now. Memory: 8 * D bytes per item, what
    was read and what is returned.
    """
    wanted = pl.from_arrow(items.select(["item_id", "content_hash"]))
    assert isinstance(wanted, pl.DataFrame)
    rows = embeddings.filter((pl.col("modality") == modality) & (pl.col("encoder_id") == encoder_id))
    found = (
        wanted.with_row_index("__row").lazy()
        .join(rows.select(*by, "vector"), on=list(by), how="inner", maintain_order="left")
        .select("__row", "vector").collect()
    )  # fmt: skip
    parts, where = _views(found["vector"].to_arrow()), found["__row"].to_numpy()
    x_ND = np.zeros((len(items), parts[0].shape[1] if parts else 0), np.float32)
    present_N = np.zeros(len(items), bool)
    start = 0
    for part in parts:  # placed from what was read: a matrix of their own would be one copy of all vectors more
        x_ND[where[start : start + len(part)]] = part
        start += len(part)
    present_N[where] = True
    return x_ND, present_N


BY_ITEM = ("behaviour",)
"""Modalities that belong to the item, whatever its content is now."""


def present_modalities(items: pa.Table, embeddings: pl.LazyFrame, encoders: Mapping[str, str]) -> pa.ListArray:
    """Return list<string>: for each of `items` (item_id, content_hash) those of `encoders` (by modality) that have embedded it."""
    wanted = pl.from_arrow(items.select(["item_id", "content_hash"]))
    assert isinstance(wanted, pl.DataFrame)
    columns = []
    for modality, encoder_id in encoders.items():
        by = ["item_id"] if modality in BY_ITEM else ["item_id", "content_hash"]
        rows = embeddings.filter((pl.col("modality") == modality) & (pl.col("encoder_id") == encoder_id)).select(by).unique()
        has = wanted.lazy().join(rows.with_columns(pl.lit(modality).alias("has")), on=by, how="left", maintain_order="left")
        columns.append(has.select(pl.col("has").alias(modality)).collect()[modality])
    lists = pl.DataFrame(columns).select(pl.concat_list(pl.all()).list.drop_nulls().alias("modalities"))
    return lists["modalities"].to_arrow().cast(pa.list_(pa.string()))
