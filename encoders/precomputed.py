"""Vectors made elsewhere as a modality: graph or collaborative embeddings, audio, what a team already has.

A Parquet file (by its content) with an identifier and a list column, or an .npy matrix beside a file of identifiers (without one,
a row's number is its item's id). Checked before use: identifiers that are null or repeat, lists of several lengths, values that
are not finite, a table that knows none of the catalogue's items. No pickle. A table is read in blocks, and the vectors of items
that are asked for are kept.

Shapes: N items asked for, M rows of the table, B rows of a block, D dimensions.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sidlake.errors import EncoderError
from sidlake.tokenizers.item_ids import normal_ids, read_id_list

__all__ = ["PrecomputedConfig", "PrecomputedVectors", "load_precomputed", "precomputed_id"]

_BLOCK_ROWS = 4096
_READ = 2**20  # bytes of a file that are read at once


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecomputedConfig:
    """Where the vectors are.

    Attributes:
        path: a .parquet or .npy file; relative paths start at the recipe's folder.
        item_id: column of a Parquet file that holds the identifiers.
        vector: column of a Parquet file that holds the vectors.
        ids_path: for .npy, the identifiers in the rows' order: one per line of a text file, or a Parquet file's `item_id` column.
    """

    path: str
    item_id: str = "item_id"
    vector: str = "vector"
    ids_path: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PrecomputedVectors:
    """Vectors float32 [N, D] in the order of the items asked for (zeros where absent), bool [N], and what else is in the table.

    Attributes:
        digest: SHA-256, hex, of the identifiers and vectors.
        unknown_ids: rows of the table whose item was not asked for.
    """

    vectors_ND: NDArray[np.float32]
    present_N: NDArray[np.bool_]
    digest: str
    unknown_ids: int


def load_precomputed(
    config: PrecomputedConfig, item_ids: Sequence[str], *, root: str | Path = ".", uppercase_ids: bool = False
) -> PrecomputedVectors:
    """Return the table's vectors for `item_ids`; the table's own ids are spelled as the items' are (`item_ids`).

    Memory: 4 * D bytes per item, about 400 bytes per row of the table for its identifiers, and a block.

    Raises:
        EncoderError: the file is missing, unreadable or broken; the message names it, the row or id, and the remedy.
    """
    path = Path(root) / config.path
    if not path.is_file():
        raise EncoderError(f"There is no file {path}: give precomputed vectors as .parquet or .npy.", path=str(path))
    read = _parquet if _is_parquet(path) else _npy
    written, dim, blocks = read(path, config, Path(root))
    ids = normal_ids(written, uppercase=uppercase_ids)
    _check_ids(path, ids, dim)
    if not _is_parquet(path) and config.ids_path is None:
        _check_counting(path, len(ids), item_ids)
    where = {item: row for row, item in enumerate(ids)}
    rows_N = np.array([where.get(item, -1) for item in item_ids], dtype=np.int64)
    del where
    present_N = rows_N >= 0
    if not present_N.any():
        raise EncoderError(
            f"{path} knows none of the {len(item_ids)} items: its ids look like {ids[0]!r}, the items' like {item_ids[0]!r}.",
            path=str(path),
        )
    vectors_ND, digest = _placed(path, ids, blocks, rows_N, dim)
    unknown = len(ids) - int(present_N.sum())
    return PrecomputedVectors(vectors_ND=vectors_ND, present_N=present_N, digest=digest, unknown_ids=unknown)


def _placed(
    path: Path, ids: list[str], blocks: Iterator[NDArray[np.float32]], rows_N: NDArray[np.int64], dim: int
) -> tuple[NDArray[np.float32], str]:
    """Return the vectors of `rows_N`, zeros for −1, and the digest of identifiers and all vectors."""
    digest = hashlib.sha256("\n".join(ids).encode())
    vectors_ND = np.zeros((len(rows_N), dim), dtype=np.float32)
    by_row = np.argsort(rows_N, kind="stable")
    sorted_N = rows_N[by_row]
    start, broken = 0, []
    for block_BD in blocks:
        digest.update(np.ascontiguousarray(block_BD, dtype="<f4").data)
        broken.append(start + np.flatnonzero(~np.isfinite(block_BD).all(axis=1)))
        first, end = np.searchsorted(sorted_N, [start, start + len(block_BD)])
        vectors_ND[by_row[first:end]] = block_BD[sorted_N[first:end] - start]
        start += len(block_BD)
    if bad := np.concatenate(broken).tolist():
        raise EncoderError(
            f"{path}: the vector of {ids[bad[0]]!r} (row {bad[0]}) is not finite, {len(bad)} such rows: leave them out.",
            path=str(path),
            row=bad[0],
        )
    return vectors_ND, digest.hexdigest()


def precomputed_id(config: PrecomputedConfig, digest: str) -> str:
    """Return the encoder id of a table: its file's name and its content.

    >>> precomputed_id(PrecomputedConfig(path="graph/vectors.npy"), "0123456789abcdef")
    'precomputed:vectors:0123456789ab'
    """
    return f"precomputed:{Path(config.path).stem}:{digest[:12]}"


def _parquet(path: Path, config: PrecomputedConfig, root: Path) -> tuple[list[str], int, Iterator[NDArray[np.float32]]]:
    """Return the identifiers, the dimensions, and what yields the vectors in blocks."""
    schema, written = _table(path, [config.item_id, config.vector])
    kind = schema.field(config.vector).type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise EncoderError(f"{path}: column {config.vector!r} is {kind}, a list of numbers is needed.", path=str(path))
    inner = kind.value_type
    if not (pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_decimal(inner)):
        raise EncoderError(f"{path}: column {config.vector!r} is {kind}, a list of numbers is needed.", path=str(path))
    lengths, num_null = [np.empty(0, np.int64)], 0
    for column in _columns(path, config.vector):
        num_null += column.null_count
        lengths.append(pa.compute.fill_null(pa.compute.list_value_length(column), 0).to_numpy().astype(np.int64))
    lengths_M = np.concatenate(lengths)
    if num_null:
        raise EncoderError(f"{path}: {num_null} rows have no vector: leave such items out.", path=str(path))
    if len(lengths_M) and lengths_M.min() != lengths_M.max():
        odd = int(np.flatnonzero(lengths_M != lengths_M[0])[0])
        raise EncoderError(
            f"{path}: row {odd} has {lengths_M[odd]} dimensions, row 0 has {lengths_M[0]}; all must have the same.", path=str(path)
        )
    dim = int(lengths_M[0]) if len(lengths_M) else 0
    flat = (np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32) for column in _columns(path, config.vector))
    ids = _ids(path, written) if len(lengths_M) else []
    return ids, dim, (values.reshape(-1, dim) for values in flat)


def _columns(path: Path, name: str) -> Iterator[pa.Array]:
    """Yield a column in blocks: a page and not a row group is in memory, as long as nothing is read ahead."""
    try:
        with pq.ParquetFile(path, buffer_size=_READ, pre_buffer=False) as file:
            for batch in file.iter_batches(_BLOCK_ROWS, columns=[name], use_threads=False):
                yield batch.column(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise EncoderError(f"{path} is not a readable Parquet file: {error}", path=str(path)) from error


def _npy(path: Path, config: PrecomputedConfig, root: Path) -> tuple[list[str], int, Iterator[NDArray[np.float32]]]:
    """Return the identifiers, the dimensions, and what yields the rows of the mapped file in blocks."""
    try:
        vectors = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise EncoderError(f"{path} is not a readable .npy matrix: {error}. Save it with numpy.save, without objects.") from error
    if not isinstance(vectors, np.ndarray) or vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.number):
        raise EncoderError(f"{path} must hold a matrix of numbers, got {getattr(vectors, 'shape', type(vectors).__name__)}.")
    if np.iscomplexobj(vectors):
        raise EncoderError(
            f"{path} holds {vectors.dtype}: complex numbers are no vector of real ones; save real and imaginary parts."
        )
    blocks = (vectors[start : start + _BLOCK_ROWS].astype(np.float32) for start in range(0, len(vectors), _BLOCK_ROWS))
    if config.ids_path is None:
        return [str(row) for row in range(len(vectors))], vectors.shape[1], blocks
    ids_path = root / config.ids_path
    if not ids_path.is_file():
        raise EncoderError(f"There is no file {ids_path} with the identifiers of {path}.", path=str(ids_path))
    if _is_parquet(ids_path):
        ids = _ids(ids_path, _table(ids_path, [config.item_id])[1])
    else:
        try:
            ids = read_id_list(ids_path)
        except (OSError, UnicodeDecodeError) as error:
            raise EncoderError(f"{ids_path} is no readable UTF-8 list of identifiers, one per line: {error}") from error
    if len(ids) != len(vectors):
        raise EncoderError(f"{ids_path} has {len(ids)} identifiers, {path} has {len(vectors)} rows; they must agree.")
    return ids, vectors.shape[1], blocks


def _table(path: Path, columns: list[str]) -> tuple[pa.Schema, pa.ChunkedArray]:
    """Return the schema of a file that has `columns`, and the first of them."""
    try:
        schema = pq.read_schema(path)
        missing = [name for name in columns if name not in schema.names]
        if missing:
            raise EncoderError(f"{path} has no column {missing[0]!r}; it has {', '.join(schema.names)}.", path=str(path))
        return schema, pq.read_table(path, columns=columns[:1]).column(0)
    except (pa.ArrowInvalid, OSError) as error:
        raise EncoderError(f"{path} is not a readable Parquet file: {error}", path=str(path)) from error


def _ids(path: Path, column: pa.ChunkedArray) -> list[str]:
    if column.null_count:
        raise EncoderError(f"{path}: {column.null_count} rows have no identifier: remove them.", path=str(path))
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_integer(kind)
    ):
        raise EncoderError(f"{path}: the identifiers are {kind}; text or whole numbers are needed: convert them.", path=str(path))
    return [str(value) for value in column.to_pylist()]


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) == b"PAR1"


def _check_counting(path: Path, num_rows: int, item_ids: Sequence[str]) -> None:
    """Raise `EncoderError` where rows are counted from 0 and the catalogue's numbers from 1: each vector would be a neighbour's."""
    if str(num_rows) in item_ids and "0" not in item_ids:
        msg = (
            f"{path} has {num_rows} rows and no identifiers: they would be items 0 to {num_rows - 1}, the catalogue has an item "
            f"{num_rows} and none 0. Say which row is which item by ids_path."
        )
        raise EncoderError(msg, path=str(path))


def _check_ids(path: Path, ids: list[str], dim: int) -> None:
    if not len(ids) or not dim:
        raise EncoderError(f"{path} is empty: {len(ids)} rows of {dim} dimensions.", path=str(path))
    if "" in ids:
        raise EncoderError(f"{path}: row {ids.index('')} has no identifier: remove it.", path=str(path), row=ids.index(""))
    if len(set(ids)) < len(ids):
        twice = next(item for item, count in Counter(ids).items() if count > 1)
        raise EncoderError(f"{path}: item {twice!r} is there more than once: one vector per item.", path=str(path), item=twice)
