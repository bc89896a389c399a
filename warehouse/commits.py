"""Commits of a Delta table: what they are marked with, which version they made, and losing against another machine.

Every commit carries the run's id and an id of its own, by which `version_of` finds it where others commit at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import CommitProperties

from sidlake.tokenizers.errors import ReleaseConflict, StorageError
from sidlake.warehouse.location import LocalFolder, ObjectStore
from sidlake.warehouse.storage import storage_errors

__all__ = ["commit_of", "committing", "is_version_of", "version_of"]


def commit_of(run_id: str, write_id: str, *, max_commit_retries: int | None = None) -> CommitProperties:
    """Return what a commit of `run_id` is marked with; `write_id` is its own."""
    return CommitProperties(custom_metadata={"run_id": run_id, "write_id": write_id}, max_commit_retries=max_commit_retries)


@contextmanager
def committing(location: LocalFolder | ObjectStore, url: str) -> Iterator[None]:
    """Raise what the block raises as errors of ours; a commit that lost against another machine's is a `ReleaseConflict`."""
    with storage_errors(url):
        try:
            yield
        except CommitFailedError as error:
            if location.options is None:  # the lock keeps others out of a folder: what failed is the disk
                raise
            msg = f"{url} was changed by another machine while this run was writing; run again"
            raise ReleaseConflict(msg, path=url) from error


def version_of(location: LocalFolder | ObjectStore, url: str, write_id: str) -> int:
    """Return the version that the commit `write_id` made: in a folder the head, in a store another machine may be ahead.

    The version of the `DeltaTable` that wrote is no answer: after a commit that was tried twice it may be another's (deltalake
    1.6.6).
    """
    delta = DeltaTable(url, storage_options=location.options)
    if location.options is None:
        return delta.version()
    for limit in (20, None):
        for entry in delta.history(limit):
            if entry.get("write_id") == write_id:
                return int(entry["version"])
    msg = f"the commit {write_id} is not in the log of {url}; check that the store is healthy, then run again"
    raise StorageError(msg, path=url)


def is_version_of(location: LocalFolder | ObjectStore, url: str, write_id: str, version: int) -> bool:
    """Return whether the commit `write_id` made `version`."""
    entry = DeltaTable(url, version=version, storage_options=location.options).history(1)[0]
    return bool(entry.get("write_id") == write_id)
