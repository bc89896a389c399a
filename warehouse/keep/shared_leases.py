"""Reading leases in an object store: a vacuum on one machine sees who reads on another.

A lease is a small object ``leases/<release>.<uuid>.json`` that its reader writes before it looks whether the release was vacuumed,
writes again every third of a term while it reads, and deletes at the end. A vacuum records what it frees before it looks at the
leases for the last time, so each sees the other. Where a holder is killed or cut off, its lease expires after one term.

Clocks: a lease's age is the difference of two times that the store itself gave, its own and that of an object that the vacuum has
just written, so the machines' clocks may differ by any amount. A second more than the term is granted, because stores tell whole
seconds; a store whose nodes differ by more than two thirds of a term would free what is being read. Even then, and where a reader
sleeps for longer than a term, it reads what was published or is told that an object is missing: objects never change.
Not done here: leases in a folder, which the kernel frees (see `leases`).
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow.fs as pafs

from sidlake.errors import StorageError
from sidlake.warehouse.identity import user_at_host
from sidlake.warehouse.places.location import ObjectStore
from sidlake.warehouse.places.storage import storage_errors

__all__ = ["MAX_TERM", "TERM", "StoredLease", "forget", "leased", "stored_leases"]

TERM = 600.0
"""Seconds for which a lease holds after it was last written, unless its reader asks for another term."""

MAX_TERM = 86_400.0

_CLOCK = ".now"
_NAME = re.compile(r"(r\d+)\.[0-9a-f]{32}\.json")
_RESOLUTION = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredLease:
    """A lease as a vacuum finds it: `holder` is user@host, `path` the object's for Arrow's file system."""

    release_id: str
    holder: str
    path: str
    expired: bool


@contextmanager
def leased(store: ObjectStore, release_id: str, *, term: float = TERM) -> Iterator[None]:
    """Hold a lease on `release_id` while the block runs, whatever a vacuum has recorded: look for that inside the block.

    Raises ValueError unless 0 < `term` <= `MAX_TERM` seconds, and `StorageError` where the lease cannot be written.
    """
    if not 0 < term <= MAX_TERM:
        msg = f"the term of a lease must be above 0 and at most {MAX_TERM:g} seconds, got {term}"
        raise ValueError(msg)
    url = f"{store.url}/leases/{release_id}.{uuid.uuid4().hex}.json"
    since = datetime.now(UTC)

    def write() -> None:
        until = datetime.now(UTC) + timedelta(seconds=term)  # for people: what counts is the store's time and the term
        about = {"holder": user_at_host(), "since": since.isoformat(), "until": until.isoformat(), "term": term}
        store.put(url, json.dumps(about).encode())

    try:
        with storage_errors(url):
            write()
    except StorageError as error:
        msg = f"cannot write the lease of {release_id}: {error}; or pin the release and read it without a lease"
        raise StorageError(msg, path=url) from error
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(write, stop, term / 3), name=f"lease of {release_id}", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()  # or it might write the lease again after it was deleted
        with suppress(OSError):  # what was read is read; the lease expires
            store.filesystem.delete_file(store.arrow_path(url))


def _renew(write: Callable[[], None], stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        with suppress(OSError):  # tried again in time; a reader that stays cut off finds out by a missing object
            write()


def stored_leases(store: ObjectStore) -> list[StoredLease]:
    """Return the leases there are, by release; `StorageError` where the store's time cannot be had, which takes a write."""
    folder = f"{store.url}/leases"
    with storage_errors(folder):
        store.put(f"{folder}/{_CLOCK}", b"")
        infos = {info.base_name: info for info in store.filesystem.get_file_info(pafs.FileSelector(store.arrow_path(folder)))}
        found = [_lease(store, infos[name], infos[_CLOCK].mtime) for name in sorted(infos) if _NAME.fullmatch(name)]
    return [lease for lease in found if lease is not None]


def _lease(store: ObjectStore, info: pafs.FileInfo, now: datetime) -> StoredLease | None:
    """Return the lease of that object; None where its reader has just ended."""
    try:
        with store.filesystem.open_input_stream(info.path) as stream:
            about = json.loads(stream.read())
        holder, term = str(about["holder"]), min(float(about["term"]), MAX_TERM)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        holder, term = "somebody whose lease cannot be read", TERM
    expired = now - info.mtime > timedelta(seconds=term) + _RESOLUTION
    return StoredLease(release_id=info.base_name.split(".")[0], holder=holder, path=info.path, expired=expired)


def forget(store: ObjectStore, release_ids: Container[str]) -> None:
    """Delete the expired leases of `release_ids`, which were vacuumed: whoever held one is refused, should he wake up."""
    with storage_errors(f"{store.url}/leases"):
        for lease in stored_leases(store):
            if lease.expired and lease.release_id in release_ids:
                with suppress(FileNotFoundError):
                    store.filesystem.delete_file(lease.path)
