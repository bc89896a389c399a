"""Commits of a Delta table: what they are marked with, which version they made, and losing against another machine.

Every commit carries the run's id and an id of its own. Most are made on a head that the writer names (`on_head`): they become its
next version or nothing, so what a version holds is what its writer made of the one before. Where rows stand by themselves the
commit may follow another's, and `version_of` finds which version it made.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, CommitProperties, create_table_with_add_actions

from sidlake.errors import ReleaseConflict, StorageError
from sidlake.warehouse.places.delta_logs import head_of
from sidlake.warehouse.places.location import LocalFolder, ObjectStore
from sidlake.warehouse.places.storage import storage_errors
from sidlake.warehouse.rows import schema_of_delta

__all__ = ["SETTINGS", "add_files", "commit_of", "committing", "on_head", "version_of"]

SETTINGS = {
    # The default drops log entries older than 30 days at a checkpoint, and with them the versions that releases name.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.checkpointInterval": "10",  # opening a version reads the commits since the checkpoint before it, 0.5 ms each
}

_LOST = ("concurrent transaction", "since last commit", "already exists", "commit attempts")
"""What Delta says of a commit that others came before (deltalake 1.6.6)."""


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
            # on a folder a full disk fails here as well; machines that mount it need not share the lock
            if location.options is None and not any(sign in str(error).lower() for sign in _LOST):
                raise
            msg = f"{url} was changed by another machine while this run was writing; run again"
            raise ReleaseConflict(msg, path=url) from error


@contextmanager
def on_head(location: LocalFolder | ObjectStore, url: str, head: int | None, write_id: str) -> Iterator[None]:
    """Raise `ReleaseConflict` where the block's commit was to follow `head` (None: no table yet) and another one does.

    The block commits without retries. The condition is the commit's own, so it holds between processes that share no lock.
    """
    with storage_errors(url):
        try:
            yield
        except DeltaError as error:
            found = head_of(location, url)
            if found == head:
                raise
            # the answer to a PUT may be lost on its way, and the client's second try then finds its own commit in the way
            wanted = 0 if head is None else head + 1
            if isinstance(location, LocalFolder) or not _is_version_of(location, url, write_id, wanted):
                table = url.rsplit("/", 1)[-1]
                msg = f"table {table} moved from version {head} to {found} while this run was writing; run again to build on it"
                raise ReleaseConflict(msg, table=table, expected=head, found=found) from error


def add_files(
    location: LocalFolder | ObjectStore,
    table: str,
    url: str,
    actions: list[AddAction],
    schema: pa.Schema,
    *,
    head: int | None,
    run_id: str,
) -> int:
    """Return the version that adds the files of `actions`, which lie in the table's folder, to `head` (None: no table yet)."""
    commit = commit_of(run_id, write_id := uuid.uuid4().hex, max_commit_retries=0)
    if head is None:
        with on_head(location, url, head, write_id):
            create_table_with_add_actions(
                url,
                Schema.from_arrow(schema),
                actions,
                mode="error",
                configuration=SETTINGS,
                commit_properties=commit,
                storage_options=location.options,
            )
        return 0
    target, head = _widened(location, table, url, schema, head=head, run_id=run_id)
    merged = pa.schema([*schema, *(field for field in schema_of_delta(table, target) if field.name not in schema.names)])
    with on_head(location, url, head, write_id):
        target.create_write_transaction([*actions], "append", Schema.from_arrow(merged), commit_properties=commit)
    return head + 1


def _widened(
    location: LocalFolder | ObjectStore, table: str, url: str, schema: pa.Schema, *, head: int, run_id: str
) -> tuple[DeltaTable, int]:
    """Return the table with the columns of `schema`, and its version.

    New ones are a commit of their own without rows: the transaction does not widen the schema (deltalake 1.6.6).
    """
    target = DeltaTable(url, version=head, storage_options=location.options)
    new = [field for field in schema if field.name not in schema_of_delta(table, target).names]
    if not new:
        return target, head
    commit = commit_of(run_id, write_id := uuid.uuid4().hex, max_commit_retries=0)
    with on_head(location, url, head, write_id):
        target.alter.add_columns(list(Schema.from_arrow(pa.schema(new)).fields), commit_properties=commit)
    return DeltaTable(url, version=head + 1, storage_options=location.options), head + 1


def version_of(location: LocalFolder | ObjectStore, url: str, write_id: str) -> int:
    """Return the version that the commit `write_id` made: the head, or one before it where another machine is ahead."""
    head = DeltaTable(url, storage_options=location.options).version()
    for version in range(head, -1, -1):
        if _is_version_of(location, url, write_id, version):
            return version
    msg = f"the commit {write_id} is not in the log of {url}; check that the store is healthy, then run again"
    raise StorageError(msg, path=url)


def _is_version_of(location: LocalFolder | ObjectStore, url: str, write_id: str, version: int) -> bool:
    """Return whether the commit `write_id` made `version`.

    The log entry itself is read: `DeltaTable.history` numbers commits from the version it was opened at, and lists newer ones of
    other machines first (deltalake 1.6.6).
    """
    system = location.filesystem or pafs.LocalFileSystem()
    with system.open_input_stream(location.arrow_path(f"{url}/_delta_log/{version:020d}.json")) as entry:
        actions = [json.loads(line) for line in entry.read().splitlines()]
    return any(action.get("commitInfo", {}).get("write_id") == write_id for action in actions)
