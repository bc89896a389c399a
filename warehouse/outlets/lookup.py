"""Single answers from a release, in microseconds: an item's SID, a SID's item, the items below a prefix.

    with open_lookup(Warehouse("lake"), "prod") as lookup:
        lookup.item("85123A")

A lookup shows one release for as long as it is open, whatever is published, rolled back or vacuumed meanwhile. An item that has
left the catalogue is still found, with the time when it left: nobody else gets its SID. Not done here: noticing a new release (open
another), and anything over many items, for which `catalog.duckdb` is faster.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sidlake.errors import StorageError
from sidlake.tokenizers.item_ids import normal_id
from sidlake.tokenizers.semantic_id import parse_sid
from sidlake.warehouse.outlets.lookup_file import key_of, lookup_file, write_file
from sidlake.warehouse.releases import Release, get
from sidlake.warehouse.tables import Warehouse

__all__ = ["Found", "Lookup", "open_lookup"]

_NUM_CODES = 2**31


@dataclass(frozen=True, slots=True)
class Found:
    """An item and its SID; `retired_at` is ISO 8601 in UTC where the item has left the catalogue."""

    item_id: str
    sid: str
    retired_at: str | None = None


def open_lookup(warehouse: Warehouse, release_id: str = "current") -> Lookup:
    """Return the lookup of the release of that id or pin, or the latest.

    Its file is read whole once, to see that it is sound, and made if it is missing or damaged; where this reader may not write into
    the warehouse, for this lookup alone. Raises `NotFoundError` as `releases.get` does.
    """
    return Lookup(warehouse, get(warehouse, release_id))


class Lookup:
    """Answers from one release; close it, or use it as a block. One thread at a time."""

    def __init__(self, warehouse: Warehouse, release: Release) -> None:
        self.release = release
        self._warehouse = warehouse
        self._uppercase = bool(release.config.get("items", {}).get("uppercase_ids", False))
        self._connection = _connected(warehouse, release)
        (self.num_items,) = self._ask("SELECT num_items FROM release")[0]

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; twice does no harm."""
        self._connection.close()

    def item(self, item_id: str) -> Found | None:
        """Return the item, however its identifier is spelled (see `tokenizers.item_ids`), or None."""
        if not _is_text(item_id):
            return None
        rows = self._items(item_id) or self._items(normal_id(item_id, uppercase=self._uppercase))
        return Found(*rows[0]) if rows else None

    def _items(self, item_id: str) -> list[tuple[Any, ...]]:
        return self._ask("SELECT item_id, sid, retired_at FROM items WHERE item_id = ?", item_id)

    def sid(self, sid: str) -> Found | None:
        """Return the item whose SID this is, or None; ValueError where `sid` is not spelled like ``<a_12><b_7><c_33>``."""
        codes = parse_sid(sid)
        if max(codes) >= _NUM_CODES:
            return None
        rows = self._ask("SELECT item_id, sid, retired_at FROM sids WHERE codes = ?", key_of(codes))
        return Found(*rows[0]) if rows else None

    def under(self, prefix: str, *, limit: int = 100, after: str | None = None) -> list[Found]:
        """Return the first `limit` items in force whose SIDs begin with `prefix`, in the order of their codes.

        The empty prefix is every item's. `after` is the SID to go on behind. ValueError where either is spelled wrong.
        """
        codes = parse_sid(prefix) if prefix else ()
        behind = parse_sid(after) if after else ()
        if max((*codes, *behind), default=0) >= _NUM_CODES:
            return []
        sql = "SELECT item_id, sid, retired_at FROM sids WHERE codes >= ? AND codes < ? AND retired_at IS NULL"
        first = max(key_of(codes), key_of(behind) + b"\0" if behind else b"")
        return [Found(*row) for row in self._ask(f"{sql} ORDER BY codes LIMIT ?", first, _end_of(codes), limit)]

    def _ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except sqlite3.ProgrammingError:
            raise  # closed, or asked by another thread
        except sqlite3.DatabaseError:  # damaged after it was opened
            self._connection.close()
            self._connection = _connected(self._warehouse, self.release)
            return self._connection.execute(sql, values).fetchall()


def _end_of(codes: tuple[int, ...]) -> bytes:
    """Return the first key behind all that begin with `codes`."""
    return (int.from_bytes(key_of(codes), "big") + 1).to_bytes(4 * len(codes), "big") if codes else b"\xff"


def _is_text(item_id: str) -> bool:
    """Return whether `item_id` can be stored as UTF-8: half of a surrogate pair cannot, so no item is called that."""
    try:
        item_id.encode()
    except UnicodeEncodeError:
        return False
    return True


def _connected(warehouse: Warehouse, release: Release) -> sqlite3.Connection:
    with suppress(StorageError, sqlite3.OperationalError):  # no right to write, a full disk; or removed between finding and opening
        return _opened(lookup_file(warehouse, release))
    with tempfile.TemporaryDirectory(prefix="sidlake-lookup-") as folder:
        return _opened(write_file(warehouse, release, Path(folder)))  # which stays open after its name is gone


def _opened(path: Path) -> sqlite3.Connection:
    """Return a connection that reads, takes no locks, and looks for no journal: the file never changes."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)
    connection.execute("SELECT 1 FROM release").fetchone()
    return connection
