"""Rows as a table stores them: the contract's columns, with room for generations of different lengths.

Not done here: reading and writing (see `tables`), and judging rows (see `laws`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from sidlake.errors import ContractError
from sidlake.warehouse.contracts import conform, narrow, schema_of

__all__ = ["count_levels", "refuse_duplicates", "schema_of_delta", "select", "storable", "stored_schema"]


def count_levels(names: Sequence[str]) -> int:
    """Return how many of `names` are code columns.

    >>> count_levels(["item_id", "code_0", "code_1"])
    2
    """
    return sum(re.fullmatch(r"code_\d+", name) is not None for name in names)


def stored_schema(table: str, num_levels: int) -> pa.Schema:
    """Return the contract, with nullable code columns: a table may hold generations of different lengths."""
    schema = schema_of(table, num_levels=num_levels)
    return pa.schema([field.with_nullable(True) if re.fullmatch(r"code_\d+", field.name) else field for field in schema])


def schema_of_delta(table: str, delta: DeltaTable) -> pa.Schema:
    """Return the contract's fields that `delta` has."""
    names = [field.name for field in delta.schema().fields]
    return pa.schema([field for field in stored_schema(table, count_levels(names)) if field.name in names])


def storable(table: str, data: pa.Table, num_levels: int | None) -> pa.Table:
    """Return `data` in the types in which `table` stores it; `ContractError` where it does not fit."""
    levels = num_levels if num_levels is not None else count_levels(data.column_names)
    return narrow(conform(data, table, num_levels=levels), stored_schema(table, levels))


def select(schema: pa.Schema, columns: Sequence[str] | None) -> pa.Schema:
    """Return the fields of `columns`, all where None; ValueError names unknown ones."""
    if columns is None:
        return schema
    unknown = [name for name in columns if name not in schema.names]
    if unknown:
        msg = f"unknown columns {unknown}; the table has {schema.names}"
        raise ValueError(msg)
    return pa.schema([schema.field(name) for name in columns])


def refuse_duplicates(table: str, data: pa.Table, keys: Sequence[str]) -> None:
    """Raise `ContractError` where `keys` occur twice in `data`."""
    counts = data.group_by(list(keys)).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1))
    if twice.num_rows:
        example = twice.select(list(keys)).slice(0, 3).to_pylist()
        msg = f"table {table}: {twice.num_rows} keys occur more than once in the rows to merge, such as {example}; keep one per key"
        raise ContractError(msg, table=table, duplicates=twice.num_rows)
