"""The content hash that releases had before `row_sums`: one SHA-256 over their sorted rows. It verifies those releases, makes none.

Rows come out of storage sorted by a total order per table (DuckDB, which spills to disk), and each column feeds its own hashes: the
values as little-endian bytes, the lengths of strings and lists, and which values are null. So batch borders do not matter, and one
batch is in memory. Vectors count by their float32 bytes. Columns that say when something was written are left out (`_LEFT_OUT`).
It can go when no warehouse has a release whose hash is 64 hex digits and nothing more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.warehouse.sessions import session
from sidlake.warehouse.sql import identifier, literal, table_at
from sidlake.warehouse.tables import Warehouse

__all__ = ["sorted_hash"]

# The tables that count, and the columns by which their rows are sorted before all others.
_KEYS = {
    "codebooks": ["level", "code"],
    "interactions": ["user_id", "ts", "item_id"],
    "items": ["item_id"],
    "retired_sids": ["generation", "item_id"],
    "semantic_ids": ["item_id"],
    "sid_quality": ["metric", "level"],
    "sid_trie": ["level", "node"],
    "user_sequences": ["user_id", "split"],
}
_UNIQUE = {"codebooks", "items", "semantic_ids", "sid_trie"}
_LEFT_OUT = {"items": {"updated_at"}, "retired_sids": {"assigned_at", "retired_at"}, "semantic_ids": {"assigned_at"}}
_BATCH_SIZE = 16384


def sorted_hash(warehouse: Warehouse, tables: Mapping[str, int], generation: str) -> str:
    """Return the hex SHA-256 of the rows of `tables` at these versions; of `semantic_ids` and `codebooks`, the generation's rows.

    Raises `StorageError` when a file cannot be read.
    """
    total = hashlib.sha256(b"sidlake release content 1\n")
    with session(warehouse) as connection:
        for table in sorted(_KEYS.keys() & tables.keys()):
            schema = _hashed_schema(warehouse, table, tables[table])
            query = _in_order(table, table_at(warehouse, table, tables[table]), schema, generation)
            digests = _column_digests(schema, connection.sql(query).to_arrow_reader(_BATCH_SIZE))
            total.update(f"{table}\n".encode())
            for name in sorted(digests):
                total.update(f"{table}.{name}={digests[name]}\n".encode())
    return total.hexdigest()


def _in_order(table: str, relation: str, schema: pa.Schema, generation: str) -> str:
    names = [identifier(name) for name in schema.names]
    order = [identifier(name) for name in _KEYS[table]]
    if table not in _UNIQUE:
        order += [name for name in names if name not in order]
    where = f" WHERE generation = {literal(generation)}" if table in ("semantic_ids", "codebooks") else ""
    return f"SELECT {', '.join(names)} FROM ({relation}){where} ORDER BY {', '.join(order)}"


def _hashed_schema(warehouse: Warehouse, table: str, version: int) -> pa.Schema:
    left_out = _LEFT_OUT.get(table, set())
    schema = warehouse.schema(table, version=version)
    if table == "semantic_ids":
        # Another generation of the same table may have more levels; `codes` says all that the code columns say.
        left_out = left_out | {name for name in schema.names if name.startswith("code_")}
    return pa.schema([field for field in schema if field.name not in left_out])


def _column_digests(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> dict[str, str]:
    hashes: dict[str, hashlib._Hash] = {}
    for batch in batches:
        for field in schema:
            _feed(hashes, field.name, batch.column(batch.schema.get_field_index(field.name)).cast(field.type))
    return {name: digest.hexdigest() for name, digest in hashes.items()}


def _feed(hashes: dict[str, hashlib._Hash], name: str, values: pa.Array) -> None:
    """Add `values` to the hashes of column `name`: one for validity, one for lengths, one for the bytes."""
    _add(hashes, name + "?", np.asarray(values.is_valid().to_numpy(zero_copy_only=False), dtype="u1").tobytes())
    kind = values.type
    if pa.types.is_list(kind):
        _add(hashes, name + "#", _little_endian(pc.fill_null(pc.list_value_length(values), 0), "<i8"))
        _feed(hashes, name + "[]", values.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        filled = pc.fill_null(values, b"" if pa.types.is_binary(kind) else "").cast(pa.large_binary())
        _add(hashes, name + "#", _little_endian(pc.binary_length(filled), "<i8"))
        _add(hashes, name, b"".join(filled.to_pylist()))
    elif pa.types.is_timestamp(kind):
        _add(hashes, name, _little_endian(pc.fill_null(values.cast(pa.int64()), 0), "<i8"))
    elif pa.types.is_boolean(kind):
        _add(hashes, name, _little_endian(pc.fill_null(values, False), "u1"))
    else:
        width = ("<f" if pa.types.is_floating(kind) else "<i") + str(kind.bit_width // 8)
        _add(hashes, name, _little_endian(pc.fill_null(values, pa.scalar(0, kind)), width))


def _little_endian(values: pa.Array, kind: str) -> bytes:
    return bytes(np.asarray(values.to_numpy(zero_copy_only=False), dtype=kind).tobytes())


def _add(hashes: dict[str, hashlib._Hash], name: str, data: bytes) -> None:
    hashes.setdefault(name, hashlib.sha256()).update(data)
