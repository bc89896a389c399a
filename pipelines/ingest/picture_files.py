"""Picture files by their content: a file that is overwritten is another picture, one that is only named anew is the same.

A source that names its pictures says nothing of what they show, so their digests count in an item's content hash. Not done here:
pictures at addresses of the web, which count by their name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from sidlake.pipelines.ingest.known_files import KnownFiles

__all__ = ["PictureFiles"]


class PictureFiles:
    """Digests of the files below `root` that sources name as pictures, by what is known of files."""

    def __init__(self, root: Path, known: KnownFiles | None = None) -> None:
        self._root = root.resolve()
        self._known = known or KnownFiles()
        self._seen: dict[str, str | None] = {}

    def digest(self, place: str) -> str | None:
        """Return the SHA-256 of the file's bytes, in hex, once for each place; None for what is no readable file below the root."""
        if place not in self._seen:
            self._seen[place] = self._digest(place)
        return self._seen[place]

    def _digest(self, place: str) -> str | None:
        try:
            path = (self._root / place).resolve()
            return self._known.digest(path) if path.is_relative_to(self._root) and path.is_file() else None
        except (OSError, ValueError):  # ValueError: a name with a null character
            return None

    def state(self, places: Iterable[str | None]) -> str:
        """Return one digest over different places and their contents; empty for no places."""
        digests = {place: self.digest(place) for place in places if place is not None}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest() if digests else ""
