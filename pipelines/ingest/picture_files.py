"""Picture files by their content: a file that is overwritten is another picture, one that is only named anew is the same.

A source that names its pictures says nothing of what they show, so their digests count in an item's content hash. Between runs a
digest is remembered beside the file's size and time of modification, and a file where both are as they were is not read again. Not
done here: pictures at addresses of the web, which count by their name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sidlake.whole_files import replacing

__all__ = ["PictureFiles"]


class PictureFiles:
    """Digests of the files below `root` that sources name as pictures; `memory` is where they are remembered, None for nowhere."""

    def __init__(self, root: Path, memory: Path | None = None) -> None:
        self._root = root.resolve()
        self._memory = memory
        self._known: dict[str, list[object]] = json.loads(memory.read_text(encoding="utf-8")) if memory and memory.exists() else {}
        self._seen: dict[str, list[object]] = {}

    def digest(self, place: str) -> str | None:
        """Return the SHA-256 of the file's bytes, in hex; None for what is no readable file below the root."""
        if place in self._seen:
            return str(self._seen[place][2])
        try:
            path = (self._root / place).resolve()
            if not path.is_relative_to(self._root) or not path.is_file():
                return None
            at = path.stat()
            known = self._known.get(place)
            if known is None or known[:2] != [at.st_size, at.st_mtime_ns]:
                with path.open("rb") as stream:
                    known = [at.st_size, at.st_mtime_ns, hashlib.file_digest(stream, "sha256").hexdigest()]
        except (OSError, ValueError):  # ValueError: a name with a null character
            return None
        self._seen[place] = known
        return str(known[2])

    def state(self, places: Iterable[str | None]) -> str:
        """Return one digest over different places and their contents; empty for no places."""
        digests = {place: self.digest(place) for place in places if place is not None}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest() if digests else ""

    def remember(self) -> None:
        """Write what was seen."""
        if self._memory is None or not self._seen:
            return
        with replacing(self._memory) as beside:
            beside.write_text(json.dumps(self._seen), encoding="utf-8")
