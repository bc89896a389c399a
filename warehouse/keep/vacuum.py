"""Vacuum: frees the files that no live release needs, and says which before it does.

A file stays if a live release (`retention`) names its version, if it is of a table's newest version, or if the state of an
unfinished run names it. The rest goes in an order that a `kill -9` may cut anywhere: first the releases that lose a file are
recorded as vacuumed in one commit, while their leases are held (`leases`), then the catalogue is written without them, then files
are deleted.
A vacuum that died leaves releases recorded or files on disk that the next one removes; no reader finds half a release. Files that
no version names were left by killed writers, or are being written by one on another machine: they go once they are older than the
grace period, as do staging folders. The log of a table is never shortened (see `tables`): numbers of versions stay what they are.
In an object store other machines share no lock with this one. There no file younger than the grace period goes, whoever named it,
and after the record it is looked for a second time what is live and what is being read: a reader looks at the record after its
lease is written, so he is refused or seen, and what he is seen to read stays until the next vacuum.
Not done here: compaction, deleting checkpoints, and the copies of artifacts beside an object store.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow.fs as pafs

from sidlake.warehouse.catalog import write_catalog
from sidlake.warehouse.checkpoint_files import checkpoints
from sidlake.warehouse.identity import user_at_host
from sidlake.warehouse.keep.leases import discard, readers, withdrawn
from sidlake.warehouse.keep.retention import Retention, live_releases
from sidlake.warehouse.keep.vacuumed import Vacuumed, record_vacuumed, vacuumed
from sidlake.warehouse.places.location import ObjectStore
from sidlake.warehouse.places.storage import storage_errors
from sidlake.warehouse.releases import Release, history, readable
from sidlake.warehouse.tables import TABLES, Warehouse

__all__ = ["GRACE", "Vacuum", "vacuum"]

GRACE = timedelta(days=1)
"""How long files that no version names, staging folders, and in an object store all files, may still be somebody's work."""

_LOG = "_delta_log"
_ENTRY = re.compile(r"\d{20}\.json")
_GENERATION = re.compile(r"g\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Vacuum:
    """What a vacuum did, or with `dry_run` would do.

    Attributes:
        kept: the live releases and why each is.
        unreadable: the releases that lose a file; they are recorded as vacuumed.
        files: number of files freed, per table, and of ``runs`` (staging of dead runs), ``states`` (of runs that are over),
            ``artifacts`` (of generations that no live release or checkpoint knows) and ``checkpoints`` (unfinished ones).
        bytes: their size, likewise.
    """

    dry_run: bool
    kept: dict[str, str]
    unreadable: list[str]
    files: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """A file that may go: where it is counted, its path for Arrow's file system, its size."""

    group: str
    path: str
    size: int


def vacuum(
    warehouse: Warehouse,
    retention: Retention | None = None,
    *,
    dry_run: bool = False,
    grace: timedelta = GRACE,
    now: datetime | None = None,
) -> Vacuum:
    """Return what was freed, or would be with `dry_run`; doing it twice, or after a kill, frees what is left.

    Raises `WarehouseBusy` while a run writes, `ArtifactError` where a checkpoint does not say what it was trained on, and
    `StorageError` where a file cannot be deleted; what was recorded until then stays unreadable, the rest goes next time.
    """
    retention, now, run_id = retention or Retention(), now or datetime.now(UTC), f"vacuum-{uuid.uuid4().hex}"
    with warehouse.writing(run_id):
        live = live_releases(warehouse, retention, now=now)
        dead = [release for release in readable(warehouse) if release.release_id not in live]
        with withdrawn(warehouse, [release.release_id for release in dead]) as read:
            kept = read | live
            files = _unneeded(warehouse, kept, now - grace)
            going = {file.path for file in files}
            lost = [one.release_id for one in dead if one.release_id not in kept and _loses_any(warehouse, one, going)]
            plan = _plan(dry_run, kept, lost, files)
            if dry_run:
                return plan
            record_vacuumed(warehouse, _rows(lost, retention, now), run_id=run_id)
        if live:
            write_catalog(warehouse)  # even where an earlier vacuum recorded the releases and died
        if isinstance(warehouse.location, ObjectStore):
            read = readers(warehouse)  # before what is live: a rollback publishes, then drops its lease
            kept = read | live_releases(warehouse, retention, now=now) | kept
            still = {file.path for file in _unneeded(warehouse, kept, now - grace)}
            plan = _plan(dry_run, kept, lost, files := [file for file in files if file.path in still])
        _delete(warehouse, files)
        discard(warehouse, vacuumed(warehouse))
    return plan


def _unneeded(warehouse: Warehouse, kept: dict[str, str], cutoff: datetime) -> list[_Found]:
    """Return every file that may go, with `kept` live and what was written since `cutoff` perhaps somebody's work."""
    releases = [release for release in history(warehouse) if release.release_id in kept]
    states, over = _states(warehouse, cutoff)
    generations = {release.generation for release in releases} | {one.generation for one in checkpoints(warehouse)}
    generations |= {str(state.get("generation")) for state in states}
    encoders = [*(release.encoders for release in releases), *(state.get("encoders", {}) for state in states)]
    artifacts = generations | {_fusion_file(known) for known in encoders}
    named = [*(release.tables for release in releases), *(state["tables"] for state in states)]

    def unfinished(checkpoint: str) -> bool:
        return checkpoint.startswith(".") or not warehouse.location.is_kept(warehouse.checkpoints_dir / checkpoint)

    return [
        *(file for table in TABLES for file in _of_table(warehouse, table, named, cutoff)),
        *over,
        *_staging(warehouse, cutoff),
        *_folders(warehouse, "artifacts", cutoff, lambda name: bool(_GENERATION.fullmatch(name)) and name not in artifacts),
        *_folders(warehouse, "artifacts/fusion", cutoff, lambda name: name.endswith(".safetensors") and name not in artifacts),
        *_folders(warehouse, "checkpoints", cutoff, unfinished),
    ]


def _fusion_file(encoders: Mapping[str, str]) -> str:
    return f"{str(encoders.get('fused')).replace(':', '-')}.safetensors"


def _of_table(warehouse: Warehouse, table: str, named: Sequence[Mapping[str, int]], cutoff: datetime) -> list[_Found]:
    """Return the files of `table` that are neither in its newest version nor in one of `named`."""
    place = warehouse.location
    folder = place.arrow_path(warehouse.table_url(table))
    log = f"{folder}/{_LOG}/"
    present = _files(warehouse, folder)
    entries = {
        int(info.base_name[:20]): info.path for info in present if info.path.startswith(log) and _ENTRY.fullmatch(info.base_name)
    }
    if not entries:
        return []
    versions = {tables[table] for tables in named if table in tables} | {max(entries)}
    needed = {place.arrow_path(path) for version in versions for path in warehouse.files(table, version=version)}
    # in a store another machine may be about to publish what a version names: there all files wait
    committed = set[str]() if isinstance(place, ObjectStore) else _committed(warehouse, entries.values())
    return [
        _Found(table, info.path, info.size)
        for info in present
        if not info.path.startswith(log)
        and info.path not in needed
        and (info.path.removeprefix(f"{folder}/") in committed or info.mtime < cutoff)
    ]


def _committed(warehouse: Warehouse, entries: Iterable[str]) -> set[str]:
    """Return the files that any version of a table ever named, from the entries of its log."""
    system, names = _system(warehouse), set[str]()
    for entry in entries:
        with system.open_input_stream(entry) as stream:
            actions = [json.loads(line) for line in stream.read().splitlines() if line]
        names |= {unquote(action["add"]["path"]) for action in actions if "add" in action}
    return names


def _states(warehouse: Warehouse, cutoff: datetime) -> tuple[list[dict[str, Any]], list[_Found]]:
    """Return the states of runs that were at work since `cutoff`, on any machine, and the files of those of earlier ones."""
    folder = warehouse.location.arrow_path(f"{warehouse.url}/runs")
    files = [info for info in _files(warehouse, folder) if info.path == f"{folder}/{info.base_name}" and info.extension == "json"]
    contents = [warehouse.get(f"runs/{info.base_name}") for info in files if info.mtime >= cutoff]
    over = [_Found("states", info.path, info.size) for info in files if info.mtime < cutoff]
    return [dict(json.loads(content)) for content in contents if content is not None], over


def _staging(warehouse: Warehouse, cutoff: datetime) -> list[_Found]:
    """Return the files of this machine's staging folders that nothing was written to since `cutoff`."""
    folder, stale = warehouse.root / "runs", []
    for run in (path for path in sorted(folder.iterdir()) if path.is_dir()) if folder.is_dir() else ():
        files = [path for path in run.rglob("*") if path.is_file()]
        newest = max((path.stat().st_mtime for path in (run, *files)), default=0.0)
        if newest < cutoff.timestamp():
            stale += [_Found("runs", str(path), path.stat().st_size) for path in files]
    return stale


def _folders(warehouse: Warehouse, group: str, cutoff: datetime, unneeded: Callable[[str], bool]) -> list[_Found]:
    """Return the files of those folders below `group` whose name is `unneeded` and that nothing was written to since `cutoff`."""
    folder = warehouse.location.arrow_path(f"{warehouse.url}/{group}")
    of: dict[str, list[pafs.FileInfo]] = {}
    for info in _files(warehouse, folder):
        of.setdefault(info.path.removeprefix(f"{folder}/").split("/")[0], []).append(info)
    old = [infos for name, infos in of.items() if unneeded(name) and max(info.mtime for info in infos) < cutoff]
    return [_Found(group.split("/")[0], info.path, info.size) for infos in old for info in infos]


def _loses_any(warehouse: Warehouse, release: Release, going: Set[str]) -> bool:
    """Return whether `release` loses a file of its tables, codebooks or fusion: who rolls back to it needs all."""
    own = (f"artifacts/{release.generation}/", f"artifacts/fusion/{_fusion_file(release.encoders)}")
    places = tuple(warehouse.location.arrow_path(f"{warehouse.url}/{place}") for place in own)
    return any(path.startswith(places) for path in going) or any(
        warehouse.location.arrow_path(path) in going
        for table, version in release.tables.items()
        for path in warehouse.files(table, version=version)
    )


def _plan(dry_run: bool, kept: dict[str, str], lost: list[str], files: Sequence[_Found]) -> Vacuum:
    counts, sizes = Counter[str](), Counter[str]()
    for file in files:
        counts[file.group] += 1
        sizes[file.group] += file.size
    return Vacuum(dry_run=dry_run, kept=dict(sorted(kept.items())), unreadable=lost, files=dict(counts), bytes=dict(sizes))


def _rows(lost: Iterable[str], retention: Retention, now: datetime) -> list[Vacuumed]:
    who, why = user_at_host(), retention.spelled()
    return [Vacuumed(release_id=name, vacuumed_at=now, vacuumed_by=who, reason=why) for name in lost]


def _delete(warehouse: Warehouse, files: Sequence[_Found]) -> None:
    """Delete `files`, those already gone included, and the folders of dead runs and old generations that are empty then."""
    system = _system(warehouse)
    for file in files:
        here = file.group == "runs"
        with storage_errors(file.path), suppress(FileNotFoundError):
            Path(file.path).unlink() if here else system.delete_file(file.path)
    for group in ("runs", "artifacts", "checkpoints"):
        touched = {Path(file.path) for file in files if file.group == group}
        _remove_empty(warehouse.root / group, touched)


def _remove_empty(top: Path, files: Iterable[Path]) -> None:
    """Remove the folders between `files` and `top` that are empty now, deepest first; on an object store there are none."""
    folders = {parent for file in files for parent in file.parents if top in parent.parents}
    for folder in sorted(folders, key=lambda path: -len(path.parts)):
        with suppress(OSError):
            folder.rmdir()


def _files(warehouse: Warehouse, folder: str) -> list[pafs.FileInfo]:
    selector = pafs.FileSelector(folder, recursive=True, allow_not_found=True)
    with storage_errors(folder):
        return [info for info in _system(warehouse).get_file_info(selector) if info.type == pafs.FileType.File]


def _system(warehouse: Warehouse) -> pafs.FileSystem:
    return warehouse.location.filesystem or pafs.LocalFileSystem()
