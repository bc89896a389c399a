"""Reading leases: a training job may read a release for an hour while others publish and vacuum.

In a folder a reader holds a shared `flock` on the release's lease file. A vacuum takes it exclusively before it records the release
as vacuumed, and leaves a release alone whose lease somebody holds; a reader looks at that record after it has the lease, so each
sees the other. The operating system frees a lease however its holder ends. In an object store a lease is an object that expires
(`stored_leases`), and nothing keeps a reader from beginning: a vacuum looks again after it has written its record.
Not done here: leases across machines that mount one folder without its locks (there, pin the release), and for DuckDB connections,
which live as long as their owner likes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sidlake.errors import StorageError
from sidlake.warehouse.keep.shared_leases import TERM, forget, leased, stored_leases
from sidlake.warehouse.places.location import ObjectStore
from sidlake.warehouse.releases import Release, find, get
from sidlake.warehouse.tables import Warehouse

__all__ = ["discard", "readers", "reading", "withdrawn"]


@contextmanager
def reading(warehouse: Warehouse, release_id: str = "current", *, term: float = TERM) -> Iterator[Release]:
    """Yield the release of that id or pin, or the latest; its files stay while the block runs, whatever a vacuum is told.

    In an object store they stay until `term` seconds after this process was killed or cut off; in a folder `term` says nothing.
    Raises `NotFoundError` as `releases.get` does, and `StorageError` where the lease can be neither made nor opened.
    """
    release = find(warehouse, release_id)
    if isinstance(warehouse.location, ObjectStore):
        with leased(warehouse.location, release.release_id, term=term):
            yield get(warehouse, release.release_id)
        return
    descriptor = _open(_path(warehouse, release.release_id))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a vacuum to write its record: milliseconds
        yield get(warehouse, release.release_id)
    finally:
        os.close(descriptor)


@contextmanager
def withdrawn(warehouse: Warehouse, release_ids: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield which releases are being read, and the words for it; in a folder nobody can begin to read one of `release_ids`.

    In an object store all leases are told, those on releases that were vacuumed before too, and anybody may begin.
    """
    if isinstance(warehouse.location, ObjectStore):
        yield readers(warehouse)
        return
    with ExitStack() as stack:
        held = {}
        for release_id in release_ids:
            descriptor = _open(_path(warehouse, release_id))
            stack.callback(os.close, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held[release_id] = "being read"
        yield held


def readers(warehouse: Warehouse) -> dict[str, str]:
    """Return which releases other machines and this one read now, and the words for it; none in a folder (see `withdrawn`)."""
    if not isinstance(warehouse.location, ObjectStore):
        return {}
    holders: dict[str, list[str]] = {}
    for lease in stored_leases(warehouse.location):
        if not lease.expired:
            holders.setdefault(lease.release_id, []).append(lease.holder)
    return {name: f"being read by {', '.join(sorted(set(who)))}" for name, who in holders.items()}


def discard(warehouse: Warehouse, release_ids: Iterable[str]) -> None:
    """Remove what killed readers left of the leases of vacuumed releases; whoever waits for one still finds the record."""
    if isinstance(warehouse.location, ObjectStore):
        forget(warehouse.location, set(release_ids))
        return
    for release_id in release_ids:
        _path(warehouse, release_id).unlink(missing_ok=True)


def _path(warehouse: Warehouse, release_id: str) -> Path:
    return warehouse.root / "readers" / f"{release_id}.lock"


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
