"""What the log of a Delta table says without being opened: its head, and whether an entry is still the one that was read.

In a folder the head is the highest entry, which one listing tells (0.05 ms, where opening the table takes 3 to 4 ms and grows with
the log), and an entry is known by its file: versions never change, so what was read of one holds for as long as its entry is the
same file of the same size and time. An object store is asked through Delta's own reader, which knows its pages and its caches.
"""

from __future__ import annotations

import os
from pathlib import Path

from deltalake import DeltaTable

from sidlake.warehouse.places.location import LocalFolder, ObjectStore

__all__ = ["Mark", "has_log", "head_of", "mark_of"]

Mark = tuple[int, int, int]
"""Inode, size and time of change of a log's entry."""

_ENTRY = ".json"
_DIGITS = 20


def head_of(location: LocalFolder | ObjectStore, url: str) -> int | None:
    """Return the newest version of the table at `url`, None where there is none; raises as `DeltaTable` and the system do."""
    if isinstance(location, LocalFolder):
        return _newest_entry(f"{url}/_delta_log")
    if not has_log(location, url):
        return None
    return DeltaTable(url, storage_options=location.options).version()


def has_log(location: LocalFolder | ObjectStore, url: str) -> bool:
    """Return whether there is a table at `url`."""
    if isinstance(location, LocalFolder):
        return _newest_entry(f"{url}/_delta_log") is not None
    return bool(DeltaTable.is_deltatable(url, storage_options=location.options))


def mark_of(location: LocalFolder | ObjectStore, url: str, version: int) -> Mark | None:
    """Return what tells whether the entry of `version` is replaced; None in an object store, or where there is no such entry."""
    if not isinstance(location, LocalFolder):
        return None
    try:
        found = Path(f"{url}/_delta_log/{version:0{_DIGITS}d}{_ENTRY}").stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _newest_entry(log: str) -> int | None:
    try:
        with os.scandir(log) as found:
            names = [entry.name for entry in found]
    except (FileNotFoundError, NotADirectoryError):
        return None
    entries = [name for name in names if len(name) == _DIGITS + len(_ENTRY) and name.endswith(_ENTRY) and name[:_DIGITS].isdigit()]
    return int(max(entries)[:_DIGITS]) if entries else None
