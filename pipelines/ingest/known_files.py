"""Digests of files outside the warehouse: taken once, and again where anything tells that a file is another.

Between runs a digest is remembered beside the file's size, times of writing and change, and inode; where all are as they were, the
file is not read. A file that was written or moved within two seconds before its digest was taken is not remembered, nor one that
changed while it was read: whoever writes it again within one tick of the clock would not be seen (git does the same with its
index). What is remembered is a cache: where it is missing, or says nothing that can be read, all files are read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

from sidlake.whole_files import replacing

__all__ = ["KnownFiles"]

_RACY_NS = 2 * 10**9
_Mark = list[int]


class KnownFiles:
    """Digests of files; `memory` is where they are remembered, None for nowhere.

    With `reread` what is remembered is not believed. `clock` tells the nanoseconds that it is since 1970.
    """

    def __init__(self, memory: Path | None = None, *, reread: bool = False, clock: Callable[[], int] = time.time_ns) -> None:
        self._memory = memory
        self._known = {} if reread else _read(memory)
        self._clock = clock
        self._seen: dict[str, tuple[_Mark, str]] = {}

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of the file's bytes, in hex; OSError where it cannot be read."""
        name, now, mark = str(path.absolute()), self._clock(), _mark(path)
        known = self._known.get(name)
        if known is None or known[0] != mark:
            with path.open("rb") as stream:
                known = mark, hashlib.file_digest(stream, "sha256").hexdigest()
        _, written, changed, _ = mark
        if max(written, changed) + _RACY_NS < now and _mark(path) == mark:
            self._seen[name] = known
        return known[1]

    def remember(self) -> None:
        """Write what was seen, in place of what was remembered."""
        if self._memory is not None and self._seen:
            with replacing(self._memory) as beside:
                beside.write_text(json.dumps(self._seen), encoding="utf-8")


def _mark(path: Path) -> _Mark:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read(memory: Path | None) -> dict[str, tuple[_Mark, str]]:
    if memory is None or not memory.exists():
        return {}
    try:
        return {name: (mark, str(digest)) for name, (mark, digest) in json.loads(memory.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError):  # cut off or foreign
        return {}
