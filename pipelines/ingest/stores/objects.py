"""Files of rows in an object store, ``s3://bucket/prefix/*.parquet``: copied to this machine once, then read as any files.

Copies lie in the warehouse's cache folder and are taken again when an object's size or time of modification differs; what is gone
from the store goes from the copies. A store tells times in whole seconds, so that an object written within the last minute is taken
again by the next run too. Credentials and endpoint are the environment's ``AWS_*``. Not done here: tables (`snapshots`).
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

import pyarrow.fs as pafs

from sidlake.errors import SourceError, StorageError
from sidlake.pipelines.ingest.sources import SourceFiles, find_files
from sidlake.pipelines.settings.sources import SourceConfig
from sidlake.warehouse.places.location import ObjectStore
from sidlake.warehouse.places.storage import storage_errors
from sidlake.whole_files import replacing

__all__ = ["copied", "listed_objects"]

_SIGNS = re.compile(r"[*?\[]")
_THREADS = 8
_SETTLED_NS = 60 * 10**9


def copied(source: SourceConfig, folder: Path, name: str) -> SourceFiles:
    """Return the files of source `name` at an ``s3://`` address, copied below `folder`.

    Raises:
        SourceError: nothing is there, the store cannot be read, or an object's name is no file name.
    """
    place, top, pattern = _parts(source.path, name)
    objects = listed_objects(source, name)
    here = folder / sha256(f"{place.options} {source.path}".encode()).hexdigest()[:16]
    _forget(here, objects)
    stale = [key for key, info in objects.items() if _differs(here / key, info)]
    with _told(name, source), ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(lambda key: _copy(place.filesystem, objects[key], here / key), stale))
    if not pattern and list(objects) == [Path(top).name]:
        return SourceFiles({"": here / Path(top).name})
    here.mkdir(parents=True, exist_ok=True)
    try:
        return find_files(here / pattern, source.format, name)
    except SourceError as error:
        msg = f"source {name}: no file of a known format at {source.path}; see the keys path and format"
        raise SourceError(msg, path=source.path, left_out=error.details.get("left_out", [])) from error


def listed_objects(source: SourceConfig, name: str) -> dict[str, pafs.FileInfo]:
    """Return what the address of source `name` holds, by name below its last folder without signs of a pattern; hidden ones too."""
    place, top, pattern = _parts(source.path, name)
    with _told(name, source):
        (info,) = place.filesystem.get_file_info([top])
        if info.type == pafs.FileType.File and not pattern:
            return {Path(top).name: info}
        found = place.filesystem.get_file_info(pafs.FileSelector(top, recursive=True, allow_not_found=True))
    files = {each.path.removeprefix(f"{top}/"): each for each in found if each.type == pafs.FileType.File}
    if any(key.startswith("_delta_log/") for key in files):
        msg = f"source {name}: {source.path} is a Delta table: set format = 'delta'"
        raise SourceError(msg, path=source.path)
    for key in files:
        if any(part in ("", ".", "..") for part in key.split("/")):
            msg = f"source {name}: the object {key!r} below {source.path} has a name that no file can have; rename it"
            raise SourceError(msg, path=source.path)
    wanted = pattern.split("/") if pattern else ["**", "*"]
    return {key: info for key, info in sorted(files.items()) if _fits(key.split("/"), wanted)}


def _parts(address: str, name: str) -> tuple[ObjectStore, str, str]:
    """Return the store, the bucket and key before any sign of a pattern, and the pattern, empty where there is none."""
    parts = address.removeprefix("s3://").strip("/").split("/")
    at = next((at for at, part in enumerate(parts) if _SIGNS.search(part)), len(parts))
    if at == 0 or not parts[0]:
        msg = f"source {name}: {address} names no bucket; write s3://bucket/folder/*.parquet"
        raise SourceError(msg, path=address)
    return ObjectStore(parts[0], "/".join(parts[1:at])), "/".join(parts[:at]), "/".join(parts[at:])


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a name's parts are those of a pattern, in which ``**`` stands for any number of folders.

    >>> _fits(["day=1", "a.parquet"], ["**", "*.parquet"]), _fits(["day=1", "a.parquet"], ["*.parquet"])
    (True, False)
    """
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (bool(parts) and _fits(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _differs(copy: Path, info: pafs.FileInfo) -> bool:
    if not copy.is_file():
        return True
    at = copy.stat()
    return bool(at.st_size != info.size or at.st_mtime_ns != info.mtime_ns)


def _copy(store: pafs.FileSystem, info: pafs.FileInfo, copy: Path) -> None:
    """Copy an object; one that may still change within its second gets another time, by which the next run takes it again."""
    with replacing(copy) as beside:
        with store.open_input_stream(info.path) as content, beside.open("wb") as target:
            shutil.copyfileobj(content, target)
        settled = time.time_ns() - info.mtime_ns > _SETTLED_NS
        os.utime(beside, ns=(info.mtime_ns, info.mtime_ns if settled else 0))


def _forget(here: Path, objects: Mapping[str, pafs.FileInfo]) -> None:
    """Delete copies of objects that are gone."""
    for copy in list(here.rglob("*")) if here.exists() else ():
        if copy.is_file() and copy.relative_to(here).as_posix() not in objects:
            copy.unlink()


@contextmanager
def _told(name: str, source: SourceConfig) -> Iterator[None]:
    """Raise `SourceError`, which names source and address, for what the store says in the block."""
    try:
        with storage_errors(source.path):
            yield
    except StorageError as error:
        msg = f"source {name}: {str(error).removesuffix('; published releases are untouched')}"
        raise SourceError(msg, path=source.path) from error
