"""Reading and writing vectors of `item_embeddings`: Arrow lists on disk, float32 matrices in the steps.

A vector belongs to (item_id, modality, encoder_id, content_hash). A release holds those in force and no others; a run may add
rows for more; `matrix_for` picks exactly the rows that are asked for.

Memory: 4 * D bytes per item for each matrix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sidlake.errors import ContractError

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


def as_matrix(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.float32]:
    """Return a list<float32> column as a float32 matrix (N, D); `ContractError` where the lengths differ.

    >>> as_matrix(pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32()))).tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(array) == 0:
        return np.empty((0, 0), np.float32)
    lengths = np.diff(array.offsets.to_numpy())
    if lengths.min() != lengths.max():
        msg = f"vectors of {lengths.min()} to {lengths.max()} dimensions in one column; all must have the same"
        raise ContractError(msg)
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(flat, dtype=np.float32).reshape(len(array), -1)


def as_lists(x_ND: npt.NDArray[np.float32]) -> pa.ListArray:
    """Return a matrix as a list<float32> array, without copying its values."""
    offsets = np.arange(len(x_ND) + 1, dtype=np.int32) * np.int32(x_ND.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(x_ND).ravel(), pa.float32()))


def as_codes(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int32]:
    """Return a list<int32> column of codes, all of one length, as an int32 matrix (N, L); (0, 0) without rows."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(array) == 0:
        return np.empty((0, 0), np.int32)
    flat: npt.NDArray[np.int32] = array.flatten().to_numpy(zero_copy_only=False).astype(np.int32)
    return flat.reshape(len(array), -1)


def as_code_lists(codes_NL: npt.NDArray[np.int32]) -> pa.ListArray:
    """Return a matrix of codes as a list<int32> array.

    >>> as_code_lists(np.array([[1, 2], [3, 4]], np.int32)).to_pylist()
    [[1, 2], [3, 4]]
    """
    offsets = np.arange(len(codes_NL) + 1, dtype=np.int32) * np.int32(codes_NL.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(codes_NL).ravel(), pa.int32()))


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
    return missing.collect().to_arrow().cast(items.schema)


def matrix_for(
    items: pa.Table, embeddings: pl.LazyFrame, modality: str, encoder_id: str, *, by: Sequence[str] = ("item_id", "content_hash")
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (vectors (N, D), present (N,)) in the order of `items`; an absent vector is zero and not present.

    `by` is what a row is found by: behaviour belongs to the item, whatever its content is now.
    """
    wanted = pl.from_arrow(items.select(["item_id", "content_hash"]))
    assert isinstance(wanted, pl.DataFrame)
    rows = embeddings.filter((pl.col("modality") == modality) & (pl.col("encoder_id") == encoder_id))
    found = (
        wanted.with_row_index("__row").lazy()
        .join(rows.select(*by, "vector"), on=list(by), how="inner", maintain_order="left")
        .select("__row", "vector").collect()
    )  # fmt: skip
    vectors_MD = as_matrix(found["vector"].to_arrow().cast(pa.list_(pa.float32())))
    x_ND = np.zeros((len(items), vectors_MD.shape[1]), np.float32)
    present_N = np.zeros(len(items), bool)
    where = found["__row"].to_numpy()
    x_ND[where], present_N[where] = vectors_MD, True
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
