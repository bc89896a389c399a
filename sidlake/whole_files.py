"""Files and folders that appear whole or not at all, whatever dies and whenever: written beside, flushed, renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, on which the block writes a file or makes a folder that takes the place of `path`.

    It does so, flushed to disk, when the block succeeds, and is removed when it fails. Its name is its own, so several processes
    may write the same `path`: the last one stays. Raises OSError, also where a folder is to replace one that is not empty.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, replacing(Path(folder, "new", "a.txt")) as beside:
    ...     _ = beside.write_text("whole")
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        yield beside
        for written in (*(beside.rglob("*") if beside.is_dir() else ()), beside):
            _flush(written)
        beside.replace(path)
        _flush(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        with suppress(OSError):  # a folder that nobody may write to has its own error under way
            beside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
