"""Rows as a multiset: a hash of each row's canonical bytes, added up, so that order, files and batches do not matter and sums add.

**A row's bytes.** For each column whose value is not null, in the order of the names' UTF-8 bytes: the name's length (4 bytes), the
name, the value. So a null is as if the column were not there, and a nullable column that a later contract adds changes no old row.
A value: integers and floats as stored (their width, two's complement, IEEE 754: -0.0 is not 0.0, a NaN counts by its bits); a
boolean one byte; a timestamp its microseconds since 1970 UTC in 8 bytes; a string (UTF-8) or binary its number of bytes (4), then
these; a list its number of values (4), then each as a byte 1 and the value, or a byte 0 where it is null. Everything little-endian.

**A sum.** BLAKE2b (RFC 7693, 64 bytes, no key) of each row's bytes as a little-endian number, added modulo 2**512 (AdHash: Bellare
and Micciancio, EUROCRYPT 1997); beside it the number of rows. A row that is there twice counts twice. It finds damage and mistakes.
It is no seal against somebody who makes up rows to fit a sum: he could as well write another sum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.warehouse.hashing.row_loops import Bytes, Places, put, sum_hashes

__all__ = ["RowSum", "sum_of_rows"]

_MODULUS = 1 << 512
_PART_BYTES = 1 << 24
_NOTHING, _PRESENT, _NULL = (np.frombuffer(head, dtype=np.uint8) for head in (b"", b"\x01", b"\x00"))


@dataclass(frozen=True, slots=True)
class RowSum:
    """The sum of the hashes of rows, and their number; sums of disjoint rows add up to that of them all."""

    total: int = 0
    num_rows: int = 0

    def __add__(self, other: RowSum) -> RowSum:
        return RowSum((self.total + other.total) % _MODULUS, self.num_rows + other.num_rows)


@dataclass(frozen=True, slots=True)
class _Column:
    """Values of N rows: which are there, where the bytes of each lie in `data`, and the counts that go before them, if any."""

    valid_N: np.ndarray
    counts_N: Places | None
    data_B: Bytes
    starts_N: Places
    stops_N: Places

    def lengths(self, head: Bytes, absent: Bytes) -> Places:
        """Return how many bytes each row takes with `head` before a value and `absent` in place of none."""
        here = len(head) + (0 if self.counts_N is None else 4) + self.stops_N - self.starts_N
        return np.where(self.valid_N, here, len(absent)).astype(np.int64)

    def write(self, out_B: Bytes, places_N: Places, head: Bytes, absent: Bytes) -> None:
        """Write the rows at their places, which move behind what was written."""
        counts_N = self.starts_N if self.counts_N is None else self.counts_N
        counted = self.counts_N is not None
        put(out_B, places_N, self.valid_N, head, absent, counted, counts_N, self.data_B, self.starts_N, self.stops_N)


def sum_of_rows(batches: Iterable[pa.RecordBatch]) -> RowSum:
    """Return the sum of the rows of `batches`, whose columns are of the types that contracts have; else ValueError.

    Memory: about twice the rows of 16 MiB, beside one batch.

    >>> rows = pa.record_batch({"a": [1, None]})
    >>> sum_of_rows([rows]) == sum_of_rows([rows.slice(1), rows.slice(0, 1)])
    True
    """
    found = RowSum()
    for batch in batches:
        step = max(1, batch.num_rows * _PART_BYTES // max(1, batch.nbytes))
        for start in range(0, batch.num_rows, step):
            found += _sum_of(batch.slice(start, step))
    return found


def _sum_of(batch: pa.RecordBatch) -> RowSum:
    names = sorted(batch.schema.names, key=lambda name: name.encode())
    columns = [(_head(name), _column(batch.column(name))) for name in names]
    lengths_N = sum((column.lengths(head, _NOTHING) for head, column in columns), np.zeros(batch.num_rows, dtype=np.int64))
    offsets = np.concatenate([[0], np.cumsum(lengths_N)]).astype(np.int64)
    out_B, places_N = np.empty(offsets[-1], dtype=np.uint8), offsets[:-1].copy()
    for head, column in columns:
        column.write(out_B, places_N, head, _NOTHING)
    return RowSum(int.from_bytes(sum_hashes(out_B, offsets).astype("<u8").tobytes(), "little"), batch.num_rows)


def _head(name: str) -> Bytes:
    text = name.encode()
    return np.frombuffer(len(text).to_bytes(4, "little") + text, dtype=np.uint8)


def _column(values: pa.Array) -> _Column:
    kind = values.type
    valid_N = np.asarray(values.is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)
    if pa.types.is_list(kind):
        return _of_lists(values, valid_N)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        data_B = np.frombuffer(values.buffers()[2] or b"", dtype=np.uint8)
        starts_N, stops_N = _offsets(values)
        return _Column(valid_N, stops_N - starts_N, data_B, starts_N, stops_N)
    data_B = _little_endian(values)
    width = len(data_B) // max(1, len(values))
    starts_N = np.arange(len(values), dtype=np.int64) * width
    return _Column(valid_N, None, data_B, starts_N, starts_N + width)


def _of_lists(values: pa.ListArray, valid_N: np.ndarray) -> _Column:
    """Return lists as slices of the bytes of their values, which lie one after another."""
    starts_N, stops_N = _offsets(values)
    first, last = (int(starts_N[0]), int(stops_N[-1])) if len(values) else (0, 0)
    inner = _column(values.values.slice(first, last - first))
    offsets = np.concatenate([[0], np.cumsum(inner.lengths(_PRESENT, _NULL))]).astype(np.int64)
    data_B, places = np.empty(offsets[-1], dtype=np.uint8), offsets[:-1].copy()
    inner.write(data_B, places, _PRESENT, _NULL)
    data_B.setflags(write=False)  # as all others are: the loops are compiled once
    return _Column(valid_N, stops_N - starts_N, data_B, offsets[starts_N - first], offsets[stops_N - first])


def _offsets(values: pa.Array) -> tuple[Places, Places]:
    found = np.frombuffer(values.buffers()[1] or bytes(4), dtype="<i4")[values.offset : values.offset + len(values) + 1]
    return found[:-1].astype(np.int64), found[1:].astype(np.int64)


def _little_endian(values: pa.Array) -> Bytes:
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.unit == "us":
        values, width = values.cast(pa.int64()), "<i8"
    elif pa.types.is_boolean(kind):
        values, width = values.cast(pa.uint8()), "u1"
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        letter = "f" if pa.types.is_floating(kind) else "u" if pa.types.is_unsigned_integer(kind) else "i"
        width = f"<{letter}{kind.bit_width // 8}"
    else:
        msg = f"a column of type {kind} has no bytes to be hashed by; the types of contracts have"
        raise ValueError(msg)
    filled = pc.fill_null(values, pa.scalar(0, values.type)) if values.null_count else values
    return np.frombuffer(filled.to_numpy(zero_copy_only=False).astype(width, copy=False).tobytes(), dtype=np.uint8)
