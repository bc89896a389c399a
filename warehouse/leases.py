"""Reading leases: a training job may read a release for an hour while others publish and vacuum.

A reader holds a shared `flock` on the release's lease file. A vacuum takes it exclusively before it records the release as
vacuumed, and leaves a release alone whose lease somebody holds; a reader looks at that record after it has the lease, so each sees
the other. The operating system frees a lease however its holder ends. Not done here: leases across machines that share no file
locks (there, pin the release), and for DuckDB connections, which live as long as their owner likes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sidlake.tokenizers.errors import StorageError
from sidlake.warehouse.releases import Release, find, get
from sidlake.warehouse.tables import Warehouse

__all__ = ["discard", "reading", "withdrawn"]


@contextmanager
def reading(warehouse: Warehouse, release_id: str = "current") -> Iterator[Release]:
    """Yield the release of that id or pin, or the latest; its files stay while the block runs, whatever a vacuum is told.

    Raises `NotFoundError` as `releases.get` does, and `StorageError` where the lease file can be neither made nor opened.
    """
    release = find(warehouse, release_id)
    descriptor = _open(_path(warehouse, release.release_id))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a vacuum to write its record: milliseconds
        yield get(warehouse, release.release_id)
    finally:
        os.close(descriptor)


@contextmanager
def withdrawn(warehouse: Warehouse, release_ids: list[str]) -> Iterator[list[str]]:
    """Yield those of `release_ids` that nobody reads; nobody can begin to while the block runs."""
    with ExitStack() as stack:
        free = []
        for release_id in release_ids:
            descriptor = _open(_path(warehouse, release_id))
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            free.append(release_id)
        yield free


def discard(warehouse: Warehouse, release_id: str) -> None:
    """Remove the lease file of a vacuumed release; whoever waits for it still finds the record."""
    _path(warehouse, release_id).unlink(missing_ok=True)


def _path(warehouse: Warehouse, release_id: str) -> Path:
    return warehouse.root / "leases" / f"{release_id}.lock"


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # a reader without write permission: a shared lock needs none
        except OSError:
            msg = f"cannot open the lease {path}: {error.strerror}; make {path.parent} writable, or pin the release"
            raise StorageError(msg, path=str(path)) from error
