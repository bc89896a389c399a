"""Parquet files that workers wrote beside a table: checked against its contract, then moved or uploaded into it.

Only schemas and footers are read, so a commit of many large files stays cheap. Not done here: the commit (see `tables`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from sidlake.errors import ContractError

__all__ = ["add_action", "checked_rows", "moved", "uploaded"]


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type without the differences that Parquet does not store (large and view variants, names of list items)."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def checked_rows(table: str, file: Path, schema: pa.Schema) -> int:
    """Return the number of rows of a staged file whose columns are the contract's."""
    found = pq.read_schema(file)
    wanted = {field.name: _plain(field.type) for field in schema}
    actual = {field.name: _plain(field.type) for field in found}
    if actual != wanted:
        differences = sorted(name for name in wanted.keys() | actual.keys() if wanted.get(name) != actual.get(name))
        shown = ", ".join(f"{name}: {actual.get(name)} instead of {wanted.get(name)}" for name in differences)
        msg = f"{file} does not fit the contract of {table}: {shown}; write it with that schema (lists, not fixed-size lists)"
        raise ContractError(msg, table=table, path=str(file), columns=differences)
    metadata = pq.read_metadata(file)
    required = [field.name for field in schema if not field.nullable]
    nulls = [name for name in required if _has_nulls(metadata, name)]
    if nulls:
        msg = f"{file} does not fit the contract of {table}: nulls in {nulls}, allowed 0; drop or reject those rows before writing"
        raise ContractError(msg, table=table, path=str(file), columns=nulls)
    return int(metadata.num_rows)


def _has_nulls(metadata: pq.FileMetaData, name: str) -> bool:
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            if column.path_in_schema == name and column.is_stats_set and column.statistics.null_count:
                return True
    return False


def add_action(file: Path, name: str, num_rows: int) -> AddAction:
    """Return the log entry that makes the staged `file` part of the table once it lies in the table's directory as `name`."""
    state = file.stat()
    return AddAction(name, state.st_size, {}, int(state.st_mtime * 1000), True, json.dumps({"numRecords": num_rows}))


@contextmanager
def moved(files: Sequence[Path], targets: Sequence[Path]) -> Iterator[None]:
    """Move `files` to `targets` for the block, and back if it fails."""
    done: list[tuple[Path, Path]] = []
    try:
        for file, target in zip(files, targets, strict=True):
            Path(file).replace(target)
            done.append((Path(file), target))
        yield
    except BaseException:
        for file, target in done:
            target.replace(file)
        raise


@contextmanager
def uploaded(files: Sequence[Path], targets: Sequence[str], filesystem: pafs.FileSystem) -> Iterator[None]:
    """Upload `files` to `targets` for the block; then delete them here, or, where the block fails, delete the uploads."""
    done: list[str] = []
    try:
        for file, target in zip(files, targets, strict=True):
            pafs.copy_files(str(file), target, destination_filesystem=filesystem)
            done.append(target)
        yield
    except BaseException:
        for target in done:
            filesystem.delete_file(target)
        raise
    for file in files:
        Path(file).unlink()
