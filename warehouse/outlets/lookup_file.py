"""The file by which items and SIDs are looked up one at a time: one SQLite database per release, made of its tables alone.

`lookup/RELEASE-DIGEST.sqlite` never changes once it has its name, whose digest is of its bytes: a damaged one is known by it.
The link `lookup.sqlite` leads to the current release's, for clients that know nothing of sidlake; it is replaced in one step, and
whoever has a file open keeps it. All of it is derived, as `catalog.duckdb` is: what is missing or damaged is made anew, and no
release waits for it. Beside an object store the files are of this machine, made of the release's columns when first asked for.

Memory: about 200 bytes per item while a file is made. Not done here: answering (see `lookup`), titles and vectors of items.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from sidlake.errors import StorageError
from sidlake.warehouse.embeddings import as_codes
from sidlake.warehouse.keep.pins import pins
from sidlake.warehouse.places.storage import disk_errors
from sidlake.warehouse.releases import Release, get
from sidlake.warehouse.tables import Warehouse

__all__ = ["LINK", "key_of", "lookup_file", "refresh_lookup", "write_file", "write_lookup"]

LINK = "lookup.sqlite"
"""The link to the current release's file, below the warehouse's folder."""

_FOLDER = "lookup"
_DIGITS = 16
_BATCH = 65_536
_SETUP = (
    "PRAGMA journal_mode = OFF",  # the file is thrown away where writing it fails
    "PRAGMA synchronous = OFF",
    "CREATE TABLE release (release_id TEXT, generation TEXT, content_hash TEXT, created_at TEXT, num_items INTEGER)",
    "CREATE TABLE items (item_id TEXT PRIMARY KEY, sid TEXT NOT NULL, retired_at TEXT) WITHOUT ROWID",
    "CREATE TABLE sids (codes BLOB PRIMARY KEY, item_id TEXT NOT NULL, sid TEXT NOT NULL, retired_at TEXT) WITHOUT ROWID",
)
_COLUMNS = ["item_id", "codes", "sid"]


def write_lookup(warehouse: Warehouse) -> Path:
    """Return the current release's file, made if need be, after the link leads to it and files nobody needs are gone.

    Raises `NotFoundError` before the first release, `StorageError` where a file cannot be written.
    """
    release = get(warehouse)
    path = lookup_file(warehouse, release)
    _link(warehouse, path)
    _forget(warehouse, {release.release_id, *(str(pin.release_id) for pin in pins(warehouse))})
    return path


def refresh_lookup(warehouse: Warehouse) -> str | None:
    """Do as `write_lookup`, and return why it could not be done: a release that is out does not wait for what derives from it."""
    try:
        write_lookup(warehouse)
    except StorageError as error:
        return f"no lookup file: {error}. Whoever looks up next makes it"
    return None


def lookup_file(warehouse: Warehouse, release: Release) -> Path:
    """Return the file of `release`, whole, made anew where it is missing or damaged; reads it once, 0.1 s per 100 MB.

    Raises `StorageError` where it cannot be written, or the release's tables cannot be read.
    """
    for path in sorted(_folder(warehouse).glob(f"{release.release_id}-*.sqlite")):
        if _is_whole(path):
            return path
        with disk_errors(path):
            path.unlink(missing_ok=True)
    return write_file(warehouse, release, _folder(warehouse))


def write_file(warehouse: Warehouse, release: Release, folder: Path) -> Path:
    """Return a new file of `release` in `folder`, under its final name only once it is complete and on disk."""
    temporary = folder / f".{release.release_id}-{uuid.uuid4().hex}"
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            _fill(temporary, release, _rows(warehouse, release))
            path = folder / f"{release.release_id}-{_digest(temporary)}.sqlite"
            _flush(temporary)
            return temporary.replace(path)
    except sqlite3.Error as error:
        msg = f"cannot write {temporary}: {error}; free space, or make the folder writable"
        raise StorageError(msg, path=str(folder)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def key_of(codes: tuple[int, ...]) -> bytes:
    """Return the codes, each below 2**32, as the bytes that order SIDs: four per code, coarse to fine, big-endian.

    >>> key_of((1, 258)).hex(" ", 4)
    '00000001 00000102'
    """
    return b"".join(code.to_bytes(4, "big") for code in codes)


def _rows(warehouse: Warehouse, release: Release) -> pl.DataFrame:
    """Return item_id, codes, sid and retired_at (null where in force) of the release's items and of those that have left."""
    kept = [_of_table(warehouse, release, "semantic_ids").with_columns(pl.lit(None, pl.String).alias("retired_at"))]
    if "retired_sids" in release.tables:
        at = pl.col("retired_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        kept.append(_of_table(warehouse, release, "retired_sids", "retired_at").with_columns(at))
    return pl.concat(pl.collect_all(kept))


def _of_table(warehouse: Warehouse, release: Release, table: str, *more: str) -> pl.LazyFrame:
    rows = warehouse.scan(table, version=release.tables[table])
    return rows.filter(pl.col("generation") == release.generation).select(*_COLUMNS, *more)


def _fill(path: Path, release: Release, rows: pl.DataFrame) -> None:
    codes_NL = as_codes(rows["codes"].to_arrow().cast(pa.list_(pa.int32())))
    keys = np.ascontiguousarray(codes_NL.astype(">u4")).view(f"V{4 * codes_NL.shape[1]}")[:, 0]
    about = (release.release_id, release.generation, release.content_hash, release.created_at.isoformat())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in _SETUP:
            connection.execute(statement)
        connection.execute("BEGIN")
        connection.execute("INSERT INTO release VALUES (?, ?, ?, ?, ?)", (*about, int(rows["retired_at"].is_null().sum())))
        by_item = rows.select("item_id", "sid", "retired_at").sort("item_id")  # in the order of the key: each page is written once
        connection.executemany("INSERT INTO items VALUES (?, ?, ?)", by_item.iter_rows(buffer_size=_BATCH))
        order_N = np.lexsort(codes_NL.T[::-1])
        by_codes = rows.select("item_id", "sid", "retired_at")[order_N]
        connection.executemany("INSERT INTO sids VALUES (?, ?, ?, ?)", _with_keys(keys[order_N], by_codes))
        connection.execute("COMMIT")


def _with_keys(
    keys_N: np.ndarray[tuple[int], np.dtype[np.void]], rows: pl.DataFrame
) -> Iterator[tuple[bytes, str, str, str | None]]:
    for start in range(0, len(rows), _BATCH):
        part = rows[start : start + _BATCH]
        for key, row in zip(keys_N[start : start + _BATCH], part.iter_rows(), strict=True):
            yield (key.tobytes(), *row)


def _folder(warehouse: Warehouse) -> Path:
    return warehouse.root / _FOLDER


def _is_whole(path: Path) -> bool:
    with suppress(OSError):  # gone meanwhile, or not to be read
        return path.stem.rpartition("-")[2] == _digest(path)
    return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _link(warehouse: Warehouse, path: Path) -> None:
    link = warehouse.root / LINK
    temporary = link.with_name(f".{LINK}-{uuid.uuid4().hex}")
    with disk_errors(link):
        temporary.symlink_to(path.relative_to(warehouse.root))
        temporary.replace(link)


def _forget(warehouse: Warehouse, needed: set[str]) -> None:
    """Remove the files of releases that are neither current nor pinned; who asks for one again has it made."""
    for path in _folder(warehouse).glob("*.sqlite"):
        if path.stem.rpartition("-")[0] not in needed:
            with suppress(OSError):
                path.unlink()
