"""SHA-256 of every file that a release names, so that a file damaged later is found by its name.

A Parquet file that delta-rs writes carries no checksums, and a flipped bit changes neither its size nor, often, its readability:
the release's content hash tells that rows have changed, not where, and leaves out columns that say when. So publishing notes the
digest of each file that is new, as rows of the table `file_digests`; files never change, so a digest never does. Not done here:
finding damage while rows are read, which would read every file twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.fs as pafs

from sidlake.errors import StorageError
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.places.storage import storage_errors
from sidlake.warehouse.tables import Warehouse

__all__ = ["check_files", "note_files"]

_BLOCK = 1 << 20


def note_files(warehouse: Warehouse, tables: Mapping[str, int], *, run_id: str) -> int:
    """Note the digests of the files of these versions that have none, in one commit, and return how many those are."""
    known = _known(warehouse)
    new = {(table, name): path for table, name, path in _files(warehouse, tables) if (table, name) not in known}
    if new:
        rows = [{"table_name": table, "file": name, "sha256": _digest(warehouse, path)} for (table, name), path in new.items()]
        warehouse.append("file_digests", pa.Table.from_pylist(rows, CONTRACTS["file_digests"]), run_id=run_id)
    return len(new)


def check_files(warehouse: Warehouse, tables: Mapping[str, int]) -> int:
    """Return how many files of these versions have the digest they were published with; others have none noted.

    Reads every file once. Raises `StorageError` naming each file that is missing or differs.
    """
    known, checked, damaged = _known(warehouse), 0, []
    for table, name, path in _files(warehouse, tables):
        wanted = known.get((table, name))
        if wanted is None:
            continue
        checked += 1
        if _digest(warehouse, path) != wanted:
            damaged.append(path)
    if damaged:
        shown = ", ".join(damaged[:5])
        msg = (
            f"{len(damaged)} of {checked} files are not as they were published: {shown}; restore them from a backup, "
            "or roll back to a release that does not name them"
        )
        raise StorageError(msg, paths=damaged)
    return checked


def _known(warehouse: Warehouse) -> dict[tuple[str, str], str]:
    if not warehouse.exists("file_digests"):
        return {}
    rows = warehouse.read("file_digests").to_pylist()
    return {(row["table_name"], row["file"]): row["sha256"] for row in rows}


def _files(warehouse: Warehouse, tables: Mapping[str, int]) -> Iterator[tuple[str, str, str]]:
    """Yield table, name below the table's folder, and path of each file."""
    for table, version in sorted(tables.items()):
        folder = warehouse.table_url(table)
        for path in warehouse.files(table, version=version):
            yield table, path.removeprefix(folder).lstrip("/"), path


def _digest(warehouse: Warehouse, path: str) -> str:
    system = warehouse.location.filesystem or pafs.LocalFileSystem()
    state = hashlib.sha256()
    with storage_errors(path), system.open_input_stream(warehouse.location.arrow_path(path)) as stream:
        while block := stream.read(_BLOCK):
            state.update(block)
    return state.hexdigest()
