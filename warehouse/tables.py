"""The warehouse's tables: Delta Lake tables under one root, written one commit at a time and readable at every version.

Every write is one commit whose metadata carries the run's id; a failed write leaves the head where it was, and what it left on disk
is named by no version. A write follows the head that it was made for, or is refused (`ReleaseConflict`); only `append` and
`upsert`, for rows that stand by themselves, let others' commits come between. The log is never shortened (`commits.SETTINGS`):
releases name old versions. Where the tables lie, a folder or an object store, is `location`'s; the lock holds on one machine.
Not done here: opening files (`parquet_files`), compaction, vacuum, and judging the rows (see `laws`).
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import EllipsisType
from typing import Any, Literal, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from sidlake.errors import NotFoundError, StorageError
from sidlake.memory import default_limit
from sidlake.warehouse.commits import SETTINGS, add_files, commit_of, committing, on_head, version_of
from sidlake.warehouse.contracts import CONTRACTS, PARTITIONED_BY
from sidlake.warehouse.locks import hold
from sidlake.warehouse.places.delta_logs import Mark, has_log, head_of, mark_of
from sidlake.warehouse.places.location import LocalFolder, locate
from sidlake.warehouse.places.parquet_files import batches_of, frame_of
from sidlake.warehouse.places.staged_files import add_action, checked_rows
from sidlake.warehouse.places.storage import storage_errors
from sidlake.warehouse.rows import count_levels, refuse_duplicates, schema_of_delta, select, storable, stored_schema

__all__ = ["TABLES", "Warehouse"]

T = TypeVar("T")

TABLES = (*CONTRACTS, "semantic_ids")

_MAX_KNOWN = 256
_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")


class Warehouse:
    """The tables, artifacts and checkpoints at `root`: a folder, which may hold other files, or ``s3://bucket/prefix``.

    Attributes:
        location: where the tables lie; opening it reads nothing.
        url: the address that messages name.
        root: the folder on this machine: the warehouse itself, or what an object store needs beside it (see `location`).
        memory: bytes that this process may hold for it (`memory`); half of the machine's where none are given.
    """

    def __init__(self, root: str | Path, *, memory: int | None = None) -> None:
        self.memory = memory or default_limit()
        self.location = locate(root)
        self.url = self.location.url
        self.root = self.location.folder
        self._remembers = self.location.options is not None
        self._known: dict[tuple[str, int], tuple[pa.Schema, pa.Table, Mark | None]] = {}
        self._made: dict[tuple[str, str], tuple[tuple[int, Mark | None], Any]] = {}
        self._handles: dict[str, DeltaTable] | None = None

    def __repr__(self) -> str:
        return f"Warehouse({self.url!r})"

    @classmethod
    def create_or_open(cls, root: str | Path, *, memory: int | None = None) -> Warehouse:
        """Return the warehouse at `root`, made if absent; one that exists may be read-only.

        Raises `StorageError` when the path is not a directory, cannot be created, or has a character that Delta cannot store under;
        of an object store, when bucket, credentials or connection are missing, or its writes are not conditional.
        """
        warehouse = cls(root, memory=memory)
        warehouse.location.prepare(
            [warehouse.root / "delta", warehouse.artifacts_dir, warehouse.checkpoints_dir, warehouse.root / "runs"]
        )
        return warehouse

    @classmethod
    def is_at(cls, root: str | Path) -> bool:
        """Return whether there is a warehouse at `root`: a directory, or an address where one was made."""
        return locate(root).exists()

    @property
    def artifacts_dir(self) -> Path:
        """The directory of codebook and fusion artifacts."""
        return self.root / "artifacts"

    @property
    def checkpoints_dir(self) -> Path:
        """The directory of trainer checkpoints."""
        return self.root / "checkpoints"

    def keep(self, path: Path, digest: str = "") -> None:
        """Keep the file or folder `path`, written below `root`, where every machine finds it (`ObjectStore.keep`)."""
        self.location.keep(path, digest)

    def fetched(self, path: Path, digest: str = "") -> Path:
        """Return where this machine has what was kept as `path`; `path` itself on a local warehouse. It may not exist."""
        return self.location.fetched(path, digest)

    def put(self, name: str, content: bytes) -> None:
        """Write the small file `name` below the warehouse, whole or not at all; every machine reads it."""
        with storage_errors(self.url):
            self.location.put(f"{self.url}/{name}", content)

    def get(self, name: str) -> bytes | None:
        """Return what was `put` as `name`, or None."""
        return self.location.get(f"{self.url}/{name}")

    def remove(self, name: str) -> None:
        """Delete what was `put` as `name`, if it is there."""
        self.location.remove(f"{self.url}/{name}")

    def staging(self, run_id: str) -> Path:
        """Return the directory, made if absent, where the workers of `run_id` write Parquet files for `append_files`."""
        folder = self._staging(run_id)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard_staging(self, run_id: str) -> None:
        """Delete the staging directory of `run_id`, if there is one."""
        folder = self._staging(run_id)
        if folder.exists():
            with storage_errors(folder):
                shutil.rmtree(folder)
                folder.parent.rmdir()

    def _staging(self, run_id: str) -> Path:
        return self.root / "runs" / _checked_run_id(run_id) / "staging"

    def writing(self, run_id: str, *, wait_for_own: bool = False) -> AbstractContextManager[None]:
        """Return a block that holds the writer lock for `run_id`; free when that run already holds it in this process.

        Entering raises `WarehouseBusy` when another run or process holds it; `wait_for_own` waits for a process of the same run.
        Every write below takes the lock by itself.
        """
        return hold(self.root / "writer.lock", _checked_run_id(run_id), wait_for_own=wait_for_own)

    # Reading

    def table_url(self, table: str) -> str:
        """Return where `table` is stored, whether or not it exists; ValueError for a name without a contract."""
        if table not in TABLES:
            msg = f"there is no table {table!r}; the tables are {', '.join(TABLES)}"
            raise ValueError(msg)
        return f"{self.url}/delta/{table}"

    def exists(self, table: str) -> bool:
        """Return whether `table` has at least one version."""
        return self.version(table) is not None

    def version(self, table: str) -> int | None:
        """Return the head version of `table`, or None where it has none."""
        url = self.table_url(table)
        with storage_errors(url):
            return head_of(self.location, url)

    def _at(self, url: str, version: int | None = None) -> DeltaTable:
        return DeltaTable(url, version=version, storage_options=self.location.options)

    def delta(self, table: str, version: int | None = None) -> DeltaTable:
        """Return the Delta table at `version` (the head by default); `NotFoundError` where there is no such table or version."""
        url = self.table_url(table)
        with storage_errors(url):
            if not has_log(self.location, url):
                msg = f"table {table} does not exist in {self.url}; run the pipeline first"
                raise NotFoundError(msg, table=table)
            if version is not None and version < 0:
                raise self._no_version(table, version)
            try:
                return self._at(url, version)
            except DeltaError as error:
                if version is not None and version > (head_of(self.location, url) or 0):
                    raise self._no_version(table, version) from error
                raise

    def _no_version(self, table: str, version: int) -> NotFoundError:
        msg = f"table {table} has no version {version}; it has versions 0 to {self.version(table)}"
        return NotFoundError(msg, table=table, version=version)

    def schema(self, table: str, *, version: int | None = None) -> pa.Schema:
        """Return the contract's fields as stored at `version`; `semantic_ids` has the codes of its longest generation."""
        return self._opened(table, version)[0]

    def manifest(self, table: str, *, version: int | None = None) -> pa.Table:
        """Return path (absolute), size_bytes and num_records of each file of `version`, as the log states them."""
        return self._opened(table, version)[1]

    def remembering(self) -> Warehouse:
        """Return this warehouse as one that asks for each version's files once, whatever becomes of the log meanwhile."""
        other = Warehouse(self.url, memory=self.memory)
        other._remembers, other._known, other._handles = True, self._known, {}
        return other

    def _opened(self, table: str, version: int | None) -> tuple[pa.Schema, pa.Table]:
        """Return schema and manifest of `version`, which never change: they are read again only where its log entry is another.

        A store is not asked for that (five requests); a warehouse that is `remembering` never looks.
        """
        version = self.version(table) if version is None and isinstance(self.location, LocalFolder) else version
        mark = None if version is None or self._remembers else mark_of(self.location, self.table_url(table), version)
        known = None if version is None else self._known.get((table, version))
        if known and (self._remembers or (mark and known[2] == mark)):
            return known[:2]
        delta = self._stepped(table, version)
        actions = pa.table(delta.get_add_actions(flatten=True)).select(["path", "size_bytes", "num_records"])
        paths = [f"{self.table_url(table)}/{path}" for path in actions["path"].to_pylist()]
        opened = schema_of_delta(table, delta), actions.set_column(0, "path", pa.array(paths, pa.string())).sort_by("path")
        if self._remembers or mark:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[table, delta.version()] = (*opened, mark)
        return opened

    def made_of(self, table: str, version: int, what: str, make: Callable[[], T]) -> T:
        """Return what `make` makes of the rows of `version`, made once for each name `what`; it must not be changed.

        Made again, as the version is read again, where its log entry is another; for small tables that are asked for many times.
        """
        mark = None if self._remembers else mark_of(self.location, self.table_url(table), version)
        known = self._made.get((table, what))
        if known and known[0] == (version, mark):
            return known[1]  # type: ignore[no-any-return]
        made = make()
        self._made[table, what] = (version, mark), made
        return made

    def _stepped(self, table: str, version: int | None) -> DeltaTable:
        """Return `delta`; in a `remembering` warehouse by reading only the commits since the version asked for last."""
        if self._handles is None or version is None:
            return self.delta(table, version)
        if table not in self._handles:
            self._handles[table] = self.delta(table, version)
        with storage_errors(self.table_url(table)):
            self._handles[table].load_as_version(version)
        return self._handles[table]

    def files(self, table: str, *, version: int | None = None) -> list[str]:
        """Return the absolute paths of the files of `version`, sorted; a partition column is in the path (hive) alone."""
        return list(self._opened(table, version)[1]["path"].to_pylist())

    def num_rows(self, table: str, version: int | None = None) -> int:
        """Return the number of rows of `version` as the log states it; no data file is opened."""
        counts = self.manifest(table, version=version)["num_records"].to_pylist()
        if None in counts:
            msg = f"table {table} in {self.url} has files without a row count in the log; write them through append_files"
            raise StorageError(msg, table=table)
        return sum(counts)

    def read(self, table: str, *, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of `version` in the contract's types, in no stated order; holds the whole table in memory."""
        schema = select(self.schema(table, version=version), columns)
        return pa.Table.from_batches(self.batches(table, version=version, columns=columns), schema)

    def batches(
        self, table: str, *, version: int | None = None, columns: Sequence[str] | None = None, batch_size: int = 65536
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of `version` in batches of at most `batch_size`, in no stated order; a few batches are in memory."""
        schema, manifest = self._opened(table, version)
        wanted = select(schema, columns)
        if not manifest.num_rows:
            return
        yield from batches_of(
            self.location, table, self.table_url(table), schema, manifest["path"].to_pylist(), columns=wanted.names, size=batch_size
        )

    def scan(self, table: str, *, version: int | None = None) -> pl.LazyFrame:
        """Return a lazy frame over `version` with the contract's columns."""
        schema, manifest = self._opened(table, version)
        return frame_of(self.location, table, schema, manifest["path"].to_pylist())

    # Writing: one commit each

    def overwrite(self, table: str, data: pa.Table, *, run_id: str, num_levels: int | None = None) -> int:
        """Replace the content of `table` with `data` and return the new version; the schema may change.

        Raises `ReleaseConflict` where another machine commits to it at the same time: its rows would be among these.
        """
        return self._write(table, data, run_id, "overwrite", num_levels, head=self.version(table))

    def append_at(self, table: str, data: pa.Table, *, head: int | None, run_id: str, num_levels: int | None = None) -> int:
        """Add `data` only if the head still is `head` (None: no table yet) and return the new version; else `ReleaseConflict`.

        The schema may widen, as with `append`.
        """
        return self._write(table, data, run_id, "append", num_levels, head=head)

    def _write(
        self, table: str, data: pa.Table, run_id: str, mode: Literal["append", "overwrite"], levels: int | None, *, head: int | None
    ) -> int:
        url, stored, write_id = self.table_url(table), storable(table, data, levels), uuid.uuid4().hex
        with self.writing(run_id), on_head(self.location, url, head, write_id):
            write_deltalake(
                url if head is None else self._at(url, head),
                stored,
                mode="error" if head is None else mode,
                schema_mode=None if head is None else "overwrite" if mode == "overwrite" else "merge",
                partition_by=PARTITIONED_BY.get(table),
                configuration=SETTINGS,
                commit_properties=commit_of(run_id, write_id, max_commit_retries=0),
                storage_options=self.location.options,
            )
        return 0 if head is None else head + 1

    def append(self, table: str, data: pa.Table, *, run_id: str, num_levels: int | None = None) -> int:
        """Add `data`, whatever else `table` holds by then, and return the version that this made.

        A generation with more levels adds code columns, null in older rows.
        """
        url, stored, write_id = self.table_url(table), storable(table, data, num_levels), uuid.uuid4().hex
        with self.writing(run_id), committing(self.location, url):
            write_deltalake(
                url,
                stored,
                mode="append",
                schema_mode="merge",
                partition_by=PARTITIONED_BY.get(table),
                configuration=SETTINGS,
                commit_properties=commit_of(run_id, write_id),
                storage_options=self.location.options,
            )
            return version_of(self.location, url, write_id)

    def extend(self, table: str, version: int, data: pa.Table, *, run_id: str, num_levels: int | None = None) -> int:
        """Return the version that holds the rows of `version` and `data`; what others have written since is set aside first.

        Raises `ReleaseConflict` where another machine commits to `table` at the same time.
        """
        with self.writing(run_id):
            head = self.restore(table, version, run_id=run_id)
            return self.append_at(table, data, head=head, run_id=run_id, num_levels=num_levels)

    def upsert(self, table: str, data: pa.Table, keys: Sequence[str], *, run_id: str) -> int:
        """Replace the rows of `table` whose `keys` occur in `data`, add the others, and return the new version.

        Raises `ContractError` when a key occurs twice in `data`. The changed files are rewritten, so memory is bounded by them.
        """
        stored = storable(table, data, None)
        refuse_duplicates(table, stored, keys)
        if not self.exists(table):
            return self.append(table, data, run_id=run_id)
        url = self.table_url(table)
        on = " AND ".join(f'old."{key}" = new."{key}"' for key in keys)
        commit = commit_of(run_id, write_id := uuid.uuid4().hex)
        with self.writing(run_id), committing(self.location, self.table_url(table)):
            merger = self.delta(table).merge(
                stored, on, source_alias="new", target_alias="old", merge_schema=True, commit_properties=commit
            )
            merger.when_matched_update_all().when_not_matched_insert_all().execute()
            return version_of(self.location, url, write_id)

    def append_files(
        self,
        table: str,
        files: Sequence[Path],
        *,
        run_id: str,
        head: int | EllipsisType | None = ...,
        num_levels: int | None = None,
    ) -> int:
        """Make Parquet files written by workers part of `table` in one commit and return the new version.

        `head` is the version that the rows were made for, None where there was no table, ... for whatever it is now; with another
        one, or where another machine commits at the same time, `ReleaseConflict`. The files are moved from the staging directory
        into the table's. Names and types must be the contract's, without nulls where it allows none, else `ContractError` names
        file and column; nothing is moved then. Partitioned tables are refused.
        """
        if table in PARTITIONED_BY:
            msg = f"table {table} is partitioned by {PARTITIONED_BY[table]}; use append, which places the rows"
            raise ValueError(msg)
        if not files:
            msg = f"no files to append to table {table}; the workers wrote none"
            raise ValueError(msg)
        url = self.table_url(table)
        with storage_errors(url):
            schema = stored_schema(table, num_levels if num_levels is not None else count_levels(pq.read_schema(files[0]).names))
            rows = [checked_rows(table, Path(file), schema) for file in files]
        names = [f"part-{index:05d}-{uuid.uuid4()}.parquet" for index in range(len(files))]
        with self.writing(run_id):
            actions = [add_action(Path(file), name, count) for file, name, count in zip(files, names, rows, strict=True)]
            with storage_errors(url), self.location.taking(files, url, names):
                head = self.version(table) if head is ... else head
                return add_files(self.location, table, url, actions, schema, head=head, run_id=run_id)

    def restore(self, table: str, version: int, *, run_id: str = "restore") -> int:
        """Return the head version after giving it the content of `version`; a head that already is `version` stays."""
        url = self.table_url(table)
        with self.writing(run_id):
            self.delta(table, version)
            target = self.delta(table)
            head = target.version()
            if head == version:
                return version
            with on_head(self.location, url, head, write_id := uuid.uuid4().hex):
                target.restore(version, commit_properties=commit_of(run_id, write_id, max_commit_retries=0))
            return head + 1

    def compact(self, table: str, version: int, *, run_id: str) -> int:
        """Return the version that holds the rows of `version` in as few files as Delta finds good; `version` where it has them.

        Raises `ReleaseConflict` where another machine commits to `table` at the same time.
        """
        url = self.table_url(table)
        with self.writing(run_id):
            head = self.restore(table, version, run_id=run_id)
            target = self.delta(table)
            with on_head(self.location, url, head, write_id := uuid.uuid4().hex):
                target.optimize.compact(commit_properties=commit_of(run_id, write_id, max_commit_retries=0))
            found = self.version(table)
        return head if found is None else found


def _checked_run_id(run_id: str) -> str:
    if not _RUN_ID.fullmatch(run_id):
        msg = f"run_id {run_id!r} must be 1 to 200 characters of A-Z a-z 0-9 _ . + - and not start with a dot: it names a directory"
        raise ValueError(msg)
    return run_id
