"""Sessions of DuckDB for questions about a warehouse's files, apart from its catalogue.

Making a database takes DuckDB 20 ms, reading the files of a small release less. So the sessions of a process share one in memory,
each by a cursor of its own: what a session creates must be temporary, which other sessions do not see and which goes with it.
DuckDB spills to disk, so memory does not grow with the number of rows beyond its own limit. An object store's sessions have a
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

from sidlake.errors import StorageError
from sidlake.warehouse.places.location import ObjectStore
from sidlake.warehouse.places.object_files import let_read
from sidlake.warehouse.tables import Warehouse

__all__ = ["session"]

_SHARED: dict[int, duckdb.DuckDBPyConnection] = {}
"""The database of each process, by its id: a forked child makes its own, and leaves alone the one whose threads it lacks."""
_GUARD = threading.Lock()


@contextmanager
def session(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection for temporary tables and views; what DuckDB raises in the block becomes `StorageError`."""
    apart = isinstance(warehouse.location, ObjectStore)
    with _database() if apart else _shared().cursor() as connection:
        try:
            let_read(connection, warehouse.location)
            yield connection
        except duckdb.Error as error:
            msg = f"re-reading {warehouse.url} failed: {error}; restore the damaged file or write the table again"
            raise StorageError(msg, path=warehouse.url) from error


def _shared() -> duckdb.DuckDBPyConnection:
    with _GUARD:
        if os.getpid() not in _SHARED:
            _SHARED[os.getpid()] = _database()
        return _SHARED[os.getpid()]


def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"temp_directory": str(Path(tempfile.gettempdir()) / f"sidlake-{os.getpid()}")})
