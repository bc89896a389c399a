"""Where a warehouse lies: a folder of this machine, or ``s3://bucket/prefix`` with a folder of this machine beside it.

Both answer the same few questions: the address of a table, the sizes of files, how Arrow, Delta and Polars open them, how a staged
file becomes a table's, where an artifact is kept. On an object store the folder beside it holds what is of this machine alone (the
writer lock, run state, staging, copies of artifacts); its name is a digest of endpoint and address, below ``SIDLAKE_CACHE`` or the
user's cache folder. Credentials, region and endpoint are the environment's ``AWS_*``, read by the three libraries themselves.
A commit is a conditional PUT of the next log entry, so the store itself decides between two machines; `ObjectStore.prepare` tries
that once per warehouse, because a store that ignores the condition would lose commits without a word. Not done here: GCS and
Azure, creating buckets, and a lock between machines.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import CommitProperties

from sidlake.errors import StorageError
from sidlake.warehouse.places.staged_files import moved, uploaded
from sidlake.warehouse.places.storage import storage_errors
from sidlake.whole_files import replacing

__all__ = ["DEFAULT_FOLDER", "LocalFolder", "Mark", "ObjectStore", "absolute", "default_warehouse", "locate"]

# `Path("s3://bucket/x")` is written s3:/bucket/x, and command lines hand paths around.
_STORE = re.compile(r"s3:/{1,2}([^/]+)/?(.*)")
# With these deltalake 1.6.6 panics or writes into another directory; polars 2.1.0 takes a directory x=1 for a partition, and DuckDB
# puts the name of its log before a question mark.
_BAD_IN_PATH = re.compile(r"[\[\]|^\\%=?\x00-\x1f]")
_MARKER = "warehouse.json"
_COMPLETE = ".complete"
_NUM_TRIES = 4


Mark = tuple[int, int, int, int]
"""Size, time of writing, time of change and inode of a file; the last two are 0 in a store."""

DEFAULT_FOLDER = "lake"
"""Where a warehouse lies unless somebody says otherwise, below the working directory."""


def default_warehouse(folder: Path | None = None) -> Path:
    """Return `DEFAULT_FOLDER`, or ``warehouse`` where an earlier version of sidlake has left one and there is no other."""
    here = folder or Path()
    former = Path("warehouse")
    return (
        former if (here / former / "delta" / "releases").is_dir() and not (here / DEFAULT_FOLDER).exists() else Path(DEFAULT_FOLDER)
    )


def locate(root: str | Path) -> LocalFolder | ObjectStore:
    """Return the place that `root` names; nothing is read. ValueError where a name starts with s3: and names no bucket."""
    text = str(root)
    if not text.startswith("s3:"):
        return LocalFolder(Path(root).expanduser().absolute())
    parts = _STORE.fullmatch(text)
    if parts is None:
        msg = f"{text!r} names no bucket; write s3://bucket/prefix"
        raise ValueError(msg)
    return ObjectStore(parts[1], parts[2].strip("/"))


def absolute(root: str | Path) -> str:
    """Return the address of the warehouse at `root`, the same from every working directory.

    >>> absolute(Path("s3://shop/lake"))
    's3://shop/lake'
    """
    return locate(root).url


class LocalFolder:
    """A warehouse in a folder of this machine."""

    options: dict[str, str] | None = None
    scan_options: dict[str, Any] | None = None
    filesystem: pafs.FileSystem | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = str(folder)

    def prepare(self, folders: Sequence[Path]) -> None:
        """Make `folders` where absent; `StorageError` where the path is no directory or has a character that Delta cannot take."""
        _refuse_bad(self.url)
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if folders[0].is_dir():
                return
            msg = f"cannot use {self.url} as a warehouse: {error.strerror} ({error.filename}); name a writable directory"
            raise StorageError(msg, path=self.url) from error

    def exists(self) -> bool:
        """Return whether there is such a folder."""
        return self.folder.is_dir()

    def marks(self, files: Sequence[str]) -> list[Mark | None]:
        """Return what tells of each file whether it is another by now, its size in bytes first; None where there is none."""
        return [_mark(file) for file in files]

    def taking(self, files: Sequence[Path], folder: str, names: Sequence[str]) -> AbstractContextManager[None]:
        """Return a block within which `files` lie in `folder` under `names`; they go back where it fails."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        return moved(files, [Path(folder, name) for name in names])

    def keep(self, path: Path, digest: str = "") -> None:
        """Move the file `path` under its `digest`: machines that fit the same generation never overwrite each other's.

        What has no digest is kept as it was written.
        """
        if digest:
            with storage_errors(path), replacing(path.parent / digest / path.name) as beside:
                path.replace(beside)

    def fetched(self, path: Path, digest: str = "") -> Path:
        """Return where what was kept as `path` lies; `path` itself, which may not exist, where nothing was kept under `digest`."""
        kept = path.parent / digest / path.name
        return kept if kept.exists() else path

    def is_kept(self, path: Path) -> bool:
        """Return whether the folder `path` was kept to its end: it was written in one step."""
        return True

    def put(self, url: str, content: bytes) -> None:
        """Write the small file `url`, whole or not at all, in place of one that is there."""
        with storage_errors(url), replacing(Path(url)) as temporary:
            temporary.write_bytes(content)

    def get(self, url: str) -> bytes | None:
        """Return the content of the file `url`, or None where there is none."""
        with storage_errors(url):
            try:
                return Path(url).read_bytes()
            except FileNotFoundError:
                return None

    def remove(self, url: str) -> None:
        """Delete the file `url`, if there is one."""
        with storage_errors(url):
            Path(url).unlink(missing_ok=True)

    def arrow_path(self, path: str) -> str:
        """Return `path` as Arrow's file system takes it."""
        return path


class ObjectStore:
    """A warehouse below ``s3://bucket/prefix``; `folder` is of this machine alone."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.url = "/".join(part for part in (f"s3://{bucket}", prefix) if part)
        self._endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        cache = os.environ.get("SIDLAKE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "sidlake")
        self.folder = Path(cache).expanduser().absolute() / sha256(f"{self._endpoint or ''} {self.url}".encode()).hexdigest()[:16]

    @property
    def options(self) -> dict[str, str]:
        """What deltalake needs beyond the environment: the endpoint, commits by conditional PUT, and an end to retrying."""
        return {
            **self._where(),
            "aws_conditional_put": "etag",
            "connect_timeout": "5s",
            "timeout": "60s",
            "max_retries": "3",
            "retry_timeout": "20s",
        }

    @property
    def scan_options(self) -> dict[str, Any]:
        """What Polars needs beyond the environment."""
        return {**self._where(), "max_retries": 3}

    def _where(self) -> dict[str, str]:
        if self._endpoint is None:
            return {}
        return {"aws_endpoint_url": self._endpoint, "aws_allow_http": str(self._endpoint.startswith("http://")).lower()}

    @cached_property
    def filesystem(self) -> pafs.FileSystem:
        """Arrow's own S3 client, written in C++: no Python call-backs on its threads."""
        return pafs.S3FileSystem(
            endpoint_override=self._endpoint,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"),
            connect_timeout=5,
            request_timeout=60,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=3),
        )

    def prepare(self, folders: Sequence[Path]) -> None:
        """Make the folder beside the store; on first use, see that the bucket is there and that its commits are conditional.

        Raises `StorageError` that names the address and the remedy: no bucket, no credentials, no connection, no conditional PUT.
        """
        _refuse_bad(self.url)
        with storage_errors(self.folder):
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
        if not self.exists():
            with storage_errors(self.url):
                self._try_commits()
                self.put(f"{self.url}/{_MARKER}", json.dumps({"sidlake": 1}).encode())

    def exists(self) -> bool:
        """Return whether a warehouse was made at this address."""
        with storage_errors(self.url):
            marker, bucket = self.filesystem.get_file_info([self.arrow_path(f"{self.url}/{_MARKER}"), self.bucket])
        if bucket.type == pafs.FileType.NotFound:
            at = f" at {self._endpoint}" if self._endpoint else ""
            msg = f"cannot use {self.url} as a warehouse: there is no bucket {self.bucket!r}{at}; create it or name another"
            raise StorageError(msg, path=self.url)
        return bool(marker.type == pafs.FileType.File)

    def _try_commits(self) -> None:
        """Raise `StorageError` unless the store lets one of several commits on the same version through.

        They must come at once: a client first looks whether the version is taken, and only then relies on the condition.
        """
        url, start = f"{self.url}/delta/.probe-{uuid.uuid4().hex}", threading.Barrier(_NUM_TRIES)
        write_deltalake(url, pa.table({"probe": [1]}), storage_options=self.options)

        def commits(table: DeltaTable) -> bool:
            start.wait()
            try:
                table.create_write_transaction(
                    [], "append", table.schema(), commit_properties=CommitProperties(max_commit_retries=0)
                )
            except CommitFailedError:
                return False
            return True

        try:
            tables = [DeltaTable(url, storage_options=self.options) for _ in range(_NUM_TRIES)]
            with ThreadPoolExecutor(_NUM_TRIES) as threads:
                won = sum(threads.map(commits, tables))
        finally:
            self.filesystem.delete_dir(self.arrow_path(url))
        if won != 1:
            msg = (
                f"{self.url} let {won} of {_NUM_TRIES} writers of one object through (If-None-Match), so two machines could "
                "overwrite each other's commits; use a store with conditional writes, or a newer version of this one"
            )
            raise StorageError(msg, path=self.url)

    def marks(self, files: Sequence[str]) -> list[Mark | None]:
        """Return of each object its size in bytes and when it was written; None where there is none."""
        with storage_errors(self.url):
            found = self.filesystem.get_file_info([self.arrow_path(file) for file in files])
        return [(info.size, info.mtime_ns, 0, 0) if info.type == pafs.FileType.File else None for info in found]

    def taking(self, files: Sequence[Path], folder: str, names: Sequence[str]) -> AbstractContextManager[None]:
        """Return a block within which `files` lie in `folder` under `names`; the objects are deleted where it fails."""
        return uploaded(files, [self.arrow_path(f"{folder}/{name}") for name in names], self.filesystem)

    def keep(self, path: Path, digest: str = "") -> None:
        """Upload `path`, a file or folder below `folder`, so that other machines fetch it.

        A file goes under its `digest`: two machines that fit the same generation never overwrite each other's. A folder counts as
        stored once its last object, a marker, is there.
        """
        with storage_errors(self.url):
            if path.is_dir():
                self._upload(path)
                self.put(f"{self._remote(path)}/{_COMPLETE}", b"")
                return
            copy = path.parent / digest / path.name
            if digest:
                with replacing(copy) as temporary:
                    shutil.copyfile(path, temporary)
            self._upload(copy)

    def fetched(self, path: Path, digest: str = "") -> Path:
        """Return where this machine's copy of what was kept as `path` lies, fetched if need be; it may not exist."""
        copy = path.parent / digest / path.name
        if copy.exists():
            return copy
        remote = self._remote(copy)
        with storage_errors(self.url):
            file, marker = self.filesystem.get_file_info([self.arrow_path(remote), self.arrow_path(f"{remote}/{_COMPLETE}")])
            if pafs.FileType.File in (file.type, marker.type):
                with replacing(copy) as temporary:
                    if marker.type == pafs.FileType.File:
                        temporary.mkdir()
                    pafs.copy_files(self.arrow_path(remote), str(temporary), source_filesystem=self.filesystem)
        return copy

    def is_kept(self, path: Path) -> bool:
        """Return whether the folder `path` was uploaded to its end."""
        with storage_errors(self.url):
            marker = self.filesystem.get_file_info(self.arrow_path(f"{self._remote(path)}/{_COMPLETE}"))
        return bool(marker.type == pafs.FileType.File)

    def arrow_path(self, path: str) -> str:
        """Return ``bucket/key`` of an address, as Arrow's file system takes it."""
        return path.removeprefix("s3://")

    def _remote(self, path: Path) -> str:
        return f"{self.url}/{path.relative_to(self.folder).as_posix()}"

    def _upload(self, path: Path) -> None:
        # not through a stream of ours: closing one after an error would store the half that was written
        pafs.copy_files(str(path), self.arrow_path(self._remote(path)), destination_filesystem=self.filesystem)

    def put(self, url: str, content: bytes) -> None:
        """Write a small object, in place of one that is there; OSError where that fails."""
        with self.filesystem.open_output_stream(self.arrow_path(url)) as stream:
            stream.write(content)

    def get(self, url: str) -> bytes | None:
        """Return the content of a small object, or None where there is none."""
        with storage_errors(self.url):
            (found,) = self.filesystem.get_file_info([self.arrow_path(url)])
            if found.type != pafs.FileType.File:
                return None
            with self.filesystem.open_input_stream(self.arrow_path(url)) as stream:
                return bytes(stream.read())

    def remove(self, url: str) -> None:
        """Delete a small object, if there is one."""
        with storage_errors(self.url):
            (found,) = self.filesystem.get_file_info([self.arrow_path(url)])
            if found.type == pafs.FileType.File:
                self.filesystem.delete_file(self.arrow_path(url))


def _mark(file: str) -> Mark | None:
    try:
        found = Path(file).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _refuse_bad(url: str) -> None:
    bad = _BAD_IN_PATH.search(url)
    if bad:
        msg = f"the path {url} contains {bad.group()!r}, which Delta tables cannot be stored under; choose another"
        raise StorageError(msg, path=url)
