"""Sessions of DuckDB for questions about a warehouse's files, apart from its catalogue.

Making a database takes DuckDB 20 ms, reading the files of a small release less. So the sessions of a process share one in memory,
each by a cursor of its own: what a session creates must be temporary, which other sessions do not see and which goes with it.
DuckDB spills to disk beyond its share of the warehouse's limit of memory, into the system's folder of temporary files (TMPDIR).
The share is the database's: sessions of warehouses with other limits set it anew. An object store's sessions have a
database each, because its files are read through a file system that is registered with one. Not done here: the catalogue.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from sidlake.errors import MemoryTooSmall, SidlakeError, StorageError
from sidlake.memory import duckdb_share, spelled
from sidlake.warehouse.places.location import ObjectStore
from sidlake.warehouse.places.object_files import let_read
from sidlake.warehouse.tables import Warehouse

__all__ = ["session", "told"]

_SHARED: dict[int, duckdb.DuckDBPyConnection] = {}
"""The database of each process, by its id: a forked child makes its own, and leaves alone the one whose threads it lacks."""
_GUARD = threading.Lock()


@contextmanager
def session(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection for temporary tables and views, which holds at most its share of `warehouse.memory`.

    What DuckDB raises in the block becomes `MemoryTooSmall` where the share is too small even with spilling, else `StorageError`,
    which tells a full disk of temporary files from a damaged table.
    """
    apart = isinstance(warehouse.location, ObjectStore)
    with _database() if apart else _shared().cursor() as connection:
        try:
            connection.execute(f"SET memory_limit = '{duckdb_share(warehouse.memory)}B'")
            let_read(connection, warehouse.location)
            yield connection
        except duckdb.Error as error:
            raise told(error, warehouse) from error


def told(error: duckdb.Error, warehouse: Warehouse) -> SidlakeError:
    """Return what DuckDB raised, as what it means here and what to do."""
    if isinstance(error, duckdb.OutOfMemoryException):
        share = spelled(duckdb_share(warehouse.memory))
        msg = (
            f"DuckDB cannot go on within {share}, half of the limit of memory: {str(error).splitlines()[0]}; give more by --memory"
        )
        return MemoryTooSmall(msg, limit=warehouse.memory)
    if f"{Path(tempfile.gettempdir()) / 'sidlake-'}" in str(error):
        folder = tempfile.gettempdir()
        msg = f"DuckDB cannot spill to {folder}: {error}; free space there, set TMPDIR to a larger disk, or give more by --memory"
        return StorageError(msg, path=folder)
    msg = f"re-reading {warehouse.url} failed: {error}; restore the damaged file or write the table again"
    return StorageError(msg, path=warehouse.url)


def _shared() -> duckdb.DuckDBPyConnection:
    with _GUARD:
        if os.getpid() not in _SHARED:
            _SHARED[os.getpid()] = _database()
        return _SHARED[os.getpid()]


def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"temp_directory": str(Path(tempfile.gettempdir()) / f"sidlake-{os.getpid()}")})
