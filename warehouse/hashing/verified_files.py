"""What the last publication read of files and found right, so that a day's publication reads what the day has changed.

Data files never change, so what was read of one holds for as long as it is the same file: of the same size, times of writing and
change and inode (in a store, size and time of writing). A file written within two seconds before it was looked at (in a store,
whose clock is another, ten minutes) is not remembered: whoever writes it again in that time would not be seen, as git has it with
its index. Remembered are the sums of files (`row_sums`) and the laws that held of sets of files. It is one small file,
``verified.json``, and merely a cache: where it is missing, cut off, changed or of another version everything is read. The last of
two writers wins; what the other knew is read again. What it cannot tell is a bit that a disk has turned under an unchanged date:
for that `check` and `maintain` read everything.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

from sidlake.warehouse.hashing.row_sums import RowSum
from sidlake.warehouse.places.location import LocalFolder
from sidlake.warehouse.tables import Warehouse

__all__ = ["Verified"]

_FILE = "verified.json"
_VERSION = 1
_RACY_NS, _RACY_STORE_NS = 2 * 10**9, 600 * 10**9


class Verified:
    """What is known of the files of `warehouse`; with `trusting`, what the last publication left is believed.

    Marks are taken when a version is first asked for, before anything of it is read; one object serves one publication or check.
    """

    def __init__(self, warehouse: Warehouse, *, trusting: bool = False) -> None:
        self._warehouse = warehouse
        self._files, self._laws = _read(warehouse) if trusting else ({}, set())
        self._marks: dict[tuple[str, int], dict[str, list[int] | None]] = {}
        self._sizes: dict[tuple[str, int], dict[str, int | None]] = {}
        self._new_files: dict[str, dict[str, Any]] = {}
        self._new_laws: set[str] = set()

    def sizes(self, table: str, version: int) -> dict[str, int | None]:
        """Return the size of each file of `version` by its path, None where it is missing."""
        self._look(table, version)
        return self._sizes[table, version]

    def state(self, table: str, version: int) -> str | None:
        """Return what tells whether any file of `version` is another than before; None where one is too young to tell."""
        self._look(table, version)
        marks = self._marks[table, version]
        return None if None in marks.values() else _digest(sorted(marks.items()))

    def unknown(self, table: str, version: int) -> list[str]:
        """Return the files of `version` that were not among those that the last publication verified together, sorted."""
        self._look(table, version)
        return sorted(file for file in self._marks[table, version] if self._known(table, version, file) is None)

    def sum_of(self, table: str, version: int, file: str, generation: str) -> RowSum | None:
        """Return the sum of the rows that `generation` has in `file`, or None where it must be read; what is returned is kept."""
        known = self._known(table, version, file)
        found = known and known["sums"].get(generation)
        if not found:
            return None
        self.keep_sum(table, version, file, generation, total := RowSum(int(found[0], 16), int(found[1])))
        return total

    def keep_sum(self, table: str, version: int, file: str, generation: str, found: RowSum) -> None:
        """Remember a sum, if the file is old enough."""
        mark = self._marks[table, version].get(file)
        if mark is not None:
            entry = {"mark": mark, "sums": {generation: [f"{found.total:x}", found.num_rows]}}
            self._new_files[self._name(file)] = entry

    def held(self, law: str, states: Sequence[str | None]) -> bool:
        """Return whether `law` held of files in these states."""
        key = _digest([law, *states])
        known = None not in states and (key in self._laws or key in self._new_laws)
        if known:
            self._new_laws.add(key)
        return known

    def keep_law(self, law: str, states: Sequence[str | None]) -> None:
        """Remember that `law` held of files in these states, if all are old enough."""
        if None not in states:
            self._new_laws.add(_digest([law, *states]))

    def save(self) -> None:
        """Leave what was found for the next publication, in place of what was there."""
        self._save({"files": self._new_files, "laws": sorted(self._new_laws)})

    def save_laws(self) -> None:
        """Leave the laws that held, beside what is there: for the publication that follows a check of one step."""
        files, laws = _read(self._warehouse)
        self._save({"files": files, "laws": sorted(laws | self._new_laws)})

    def _save(self, content: dict[str, Any]) -> None:
        self._warehouse.put(_FILE, json.dumps({"version": _VERSION, "sha256": _digest(content), "content": content}).encode())

    def _look(self, table: str, version: int) -> None:
        if (table, version) in self._marks:
            return
        place, files = self._warehouse.location, self._warehouse.files(table, version=version)
        now, margin = time.time_ns(), _RACY_NS if isinstance(place, LocalFolder) else _RACY_STORE_NS
        marks = dict(zip(files, place.marks(files), strict=True))
        self._sizes[table, version] = {file: mark[0] if mark else None for file, mark in marks.items()}
        self._marks[table, version] = {
            file: list(mark) if mark and mark[1] + margin < now else None for file, mark in marks.items()
        }

    def _known(self, table: str, version: int, file: str) -> dict[str, Any] | None:
        self._look(table, version)
        mark, known = self._marks[table, version].get(file), self._files.get(self._name(file))
        return known if known and mark is not None and known["mark"] == mark else None

    def _name(self, file: str) -> str:
        return file.removeprefix(self._warehouse.url)


def _read(warehouse: Warehouse) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Return files and laws as they were left; nothing where they were not, or what is there is not what was left."""
    try:
        found = json.loads(warehouse.get(_FILE) or b"{}")
        content = found.get("content")
        if found.get("version") == _VERSION and found.get("sha256") == _digest(content):
            return content["files"], set(content["laws"])
    except (ValueError, AttributeError, KeyError, TypeError):  # foreign: it says nothing that could be believed
        pass
    return {}, set()


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
