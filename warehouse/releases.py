"""Releases: one row of `releases` is one consistent set of table versions, and the only thing that readers resolve.

Appending the row is the publish. Before it, everything the row names is read again from storage: the laws, the gates' verdicts and
the content hash. The commit is conditioned on the version of `releases` that was read, so of two publishers one wins even where
the file lock does not reach. Rows are never changed: a rollback appends a row that names older versions.
Not done here: writing the tables, names for releases (see `pins`), and removing files that no live release names (see `vacuum`).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pyarrow as pa

from sidlake.errors import GateFailed, LawBroken, NotFoundError, ReleaseConflict, StorageError
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.file_digests import check_files, note_files
from sidlake.warehouse.hashing.verified_files import Verified
from sidlake.warehouse.holds import hold_by, refuse_held
from sidlake.warehouse.identity import user_at_host
from sidlake.warehouse.keep.pins import pins, resolve
from sidlake.warehouse.keep.shared_leases import leased
from sidlake.warehouse.keep.vacuumed import refuse_vacuumed, vacuumed
from sidlake.warehouse.laws import verify
from sidlake.warehouse.ledger import TABLE, founded, record, refuse_overtaken
from sidlake.warehouse.places.location import ObjectStore
from sidlake.warehouse.tables import TABLES, Warehouse

__all__ = [
    "Release",
    "ReleaseDraft",
    "after",
    "content_hash",
    "current",
    "find",
    "get",
    "history",
    "level_widths",
    "publish",
    "readable",
    "rollback",
]

_JSON = ("tables", "inputs", "encoders", "config", "metrics", "steps", "trained_on")
_NOT_IN_RELEASES = {"releases", "pins", "vacuumed", "sid_ledger", "lifted_holds"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One row of `releases`; `tables` gives the version of each table that its readers see."""

    release_id: str
    parent: str | None
    generation: str
    created_at: datetime
    status: str
    tables: dict[str, int]
    inputs: dict[str, Any]
    encoders: dict[str, Any]
    codebook_hash: str
    config: dict[str, Any]
    code_version: str
    metrics: dict[str, Any]
    content_hash: str
    steps: dict[str, Any]
    reason: str
    published_by: str | None = None
    override: str | None = None
    trained_on: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseDraft:
    """What a run asks to be published: all that a release says and storage cannot tell."""

    run_id: str
    generation: str
    tables: dict[str, int]
    inputs: dict[str, Any]
    encoders: dict[str, Any]
    codebook_hash: str
    config: dict[str, Any]
    code_version: str
    metrics: dict[str, Any]
    steps: dict[str, Any]
    reason: str
    published_by: str | None = None
    override: str | None = None
    trained_on: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        unknown = sorted(self.tables.keys() - set(TABLES) | self.tables.keys() & _NOT_IN_RELEASES)
        if unknown or not self.generation:
            msg = f"a release draft names a generation (got {self.generation!r}) and known tables (unknown: {unknown})"
            raise ValueError(msg)
        for name in _JSON:
            json.dumps(getattr(self, name), allow_nan=False)


def history(warehouse: Warehouse) -> list[Release]:
    """Return all releases, oldest first; empty before the first publish."""
    version = warehouse.version("releases")
    return [] if version is None else _history_at(warehouse, version)


def current(warehouse: Warehouse) -> Release | None:
    """Return the latest release, or None before the first publish."""
    known = history(warehouse)
    return known[-1] if known else None


def readable(warehouse: Warehouse) -> list[Release]:
    """Return the releases whose files are kept, oldest first: all but the vacuumed ones."""
    return _readable(warehouse, history(warehouse))


def _readable(warehouse: Warehouse, known: list[Release]) -> list[Release]:
    gone = vacuumed(warehouse)
    return [release for release in known if release.release_id not in gone]


def get(warehouse: Warehouse, release_id: str = "current") -> Release:
    """Return the release of that id or pin, or the latest for ``"current"``, to be read.

    Raises `NotFoundError` with the ids and pins there are, or saying when the release was vacuumed. A reader that takes minutes
    goes through `leases.reading`, so that no vacuum takes the files away under it.
    """
    release = find(warehouse, release_id)
    refuse_vacuumed(warehouse, release.release_id)
    return release


def after(release: Release | None) -> datetime:
    """Return now (UTC), or the moment after `release` where the clock was set back behind it: what is later must look later."""
    now = datetime.now(UTC)
    return max(now, release.created_at + timedelta(microseconds=1)) if release else now


def find(warehouse: Warehouse, release_id: str = "current") -> Release:
    """Return what is known of the release of that id or pin, though its files may have been vacuumed; else as `get`."""
    known = history(warehouse)
    if release_id == "current" and known:
        return known[-1]
    wanted = resolve(warehouse, release_id) or release_id
    for release in known:
        if release.release_id == wanted:
            return release
    names = [release.release_id for release in known]
    pinned = [one.name for one in pins(warehouse)]
    shown = f"there are {', '.join([*names[-10:], *pinned])}" if names else "nothing has been published yet; run the pipeline first"
    msg = f"no release {release_id!r} in {warehouse.url}: {shown}"
    raise NotFoundError(msg, release_id=release_id, known=names)


def publish(
    warehouse: Warehouse,
    candidate: ReleaseDraft,
    *,
    expected_parent: str | None,
    despite_hold: str | None = None,
    reread: bool = False,
) -> Release:
    """Return the new release after verifying all that it names from storage; one atomic commit makes it visible.

    Files that an earlier publication verified and that are the same files since (`hashing.verified_files`) are read again only
    with `reread`.

    Raises `ReleaseConflict` when the latest release is not `expected_parent` (None for the first), or another run gave SIDs
    meanwhile; `HoldError` when it is a rollback and `despite_hold` gives no reason; `LawBroken` or `StorageError` when what lies in
    storage does not hold; `GateFailed` when `sid_quality` has a verdict ``refuse`` and the candidate no override. Nothing is
    published then. The release keeps the override only where it was needed, and the reason why it was published despite a hold.
    """
    run_id, tables, generation = candidate.run_id, candidate.tables, candidate.generation
    with warehouse.writing(run_id):
        version = warehouse.version("releases")
        known = [] if version is None else _history_at(warehouse, version)
        parent = known[-1] if known else None
        _expect(parent, expected_parent)
        reason = _reason(warehouse, candidate, parent, despite_hold)
        previous = next((release for release in reversed(known) if release.generation == generation), None)
        head = founded(warehouse, _readable(warehouse, known), run_id=run_id)
        refuse_overtaken(warehouse, tables, generation, head=head, release_id=_name_after(parent))
        verified = Verified(warehouse, trusting=not reread)
        verify(warehouse, tables, generation=generation, previous=previous, ledger=head, verified=verified)
        refused = _check_gates(warehouse, tables, candidate.override)
        digest = content_hash(warehouse, tables, generation, verified=verified)
        draft = {field.name: getattr(candidate, field.name) for field in fields(candidate) if field.name != "run_id"}
        draft |= {"override": candidate.override if refused else None, "reason": reason}
        release = _next(parent, status="published", digest=digest, draft=draft)
        head = record(warehouse, tables, generation, head=head, release_id=release.release_id, run_id=run_id)
        note_files(warehouse, _with_ledger(tables, head), run_id=run_id)
        verified.save()
        _append(warehouse, release, version, run_id)
    return release


def rollback(warehouse: Warehouse, release_id: str, reason: str, *, published_by: str | None = None) -> Release:
    """Return a new release that names the versions of `release_id`, which are re-read and must still have its content hash.

    From then on runs publish nothing until the hold is lifted (see `holds`). Raises `NotFoundError` for an id or pin that is
    unknown or whose release was vacuumed, `StorageError` or `LawBroken` when its files are no longer what was published, or when a
    release of an earlier version gave its SIDs to other items.
    """
    run_id, place = f"rollback-{uuid.uuid4().hex}", warehouse.location
    name = find(warehouse, release_id).release_id
    # the writer lock keeps a vacuum of this machine away, the lease one of another machine
    lease = leased(place, name) if isinstance(place, ObjectStore) else nullcontext()
    with warehouse.writing(run_id), lease:
        version = warehouse.version("releases")
        target = get(warehouse, name)
        head = founded(warehouse, readable(warehouse), run_id=run_id)
        check_files(warehouse, _with_ledger(target.tables, head))
        verify(warehouse, target.tables, generation=target.generation, ledger=head)
        digest = content_hash(warehouse, target.tables, target.generation, like=target.content_hash)
        if digest != target.content_hash:
            msg = f"the files of {target.release_id} have content hash {digest}, published was {target.content_hash}; restore them"
            raise StorageError(msg, release_id=target.release_id)
        kept = {field.name: getattr(target, field.name, None) for field in fields(ReleaseDraft) if field.name != "run_id"}
        changed = {"reason": reason, "published_by": published_by or user_at_host()}
        release = _next(current(warehouse), status="rollback", digest=digest, draft=kept | changed)
        _append(warehouse, release, version, run_id)
    return release


def _with_ledger(tables: Mapping[str, int], head: int | None) -> dict[str, int]:
    return {**tables} if head is None else {**tables, TABLE: head}


def _reason(warehouse: Warehouse, candidate: ReleaseDraft, parent: Release | None, despite_hold: str | None) -> str:
    """Return why the candidate is published, and why despite a hold; raise `HoldError` where there is one and no such reason."""
    why = (despite_hold or "").strip()
    if not why:
        refuse_held(warehouse, parent)
    hold = hold_by(warehouse, parent)
    return f"{candidate.reason} (despite the hold of {hold.release_id}: {why})" if hold else candidate.reason


def _history_at(warehouse: Warehouse, version: int) -> list[Release]:
    return list(warehouse.made_of("releases", version, "history", lambda: _read_history(warehouse, version)))


def _read_history(warehouse: Warehouse, version: int) -> list[Release]:
    rows = warehouse.read("releases", version=version).to_pylist()
    releases = [Release(**{**row, **{name: json.loads(row[name]) for name in _JSON if row.get(name)}}) for row in rows]
    return sorted(releases, key=lambda release: _number(release.release_id))


def _number(release_id: str) -> int:
    return int(release_id.removeprefix("r"))


def _name_after(parent: Release | None) -> str:
    return f"r{_number(parent.release_id) + 1 if parent else 1:06d}"


def _expect(parent: Release | None, expected: str | None) -> None:
    found = parent.release_id if parent else None
    if found != expected:
        msg = f"this run started from release {expected}, the latest is now {found}; run again to build on {found}"
        raise ReleaseConflict(msg, expected=expected, found=found)


def _check_gates(warehouse: Warehouse, tables: Mapping[str, int], override: str | None) -> bool:
    """Return whether a gate refuses, which is raised without an override; raise unless `sid_quality` has rows."""
    if "sid_quality" not in tables:
        msg = "a release needs a version of sid_quality; missing sid_quality: run the quality step"
        raise LawBroken(msg, rule="complete", missing=["sid_quality"])
    rows = warehouse.read("sid_quality", version=tables["sid_quality"]).to_pylist()
    if not rows:
        msg = "sid_quality has no rows, so no gate has judged this release; run the quality step"
        raise GateFailed(msg, failing=[])
    failing = [row for row in rows if row["verdict"] == "refuse"]
    if failing and not (override or "").strip():
        shown = "; ".join(f"{row['metric']} is {row['value']}, the limit is {row['threshold']}" for row in failing)
        msg = f"quality gate refused publication: {shown}. Nothing was published; change the recipe or its thresholds"
        raise GateFailed(msg, failing=failing)
    return bool(failing)


def _next(parent: Release | None, *, status: str, digest: str, draft: Mapping[str, Any]) -> Release:
    return Release(
        release_id=_name_after(parent),
        parent=parent.release_id if parent else None,
        created_at=after(parent),
        status=status,
        content_hash=digest,
        **draft,
    )


def _append(warehouse: Warehouse, release: Release, version: int | None, run_id: str) -> None:
    row = {field.name: getattr(release, field.name) for field in fields(release)}
    row |= {name: json.dumps(row[name], sort_keys=True, allow_nan=False) for name in _JSON if row[name] is not None}
    warehouse.append_at("releases", pa.Table.from_pylist([row], CONTRACTS["releases"]), head=version, run_id=run_id)


def level_widths(warehouse: Warehouse, release: Release) -> tuple[int, ...]:
    """Return the number of codes of each level of the release's generation, from the first level on."""
    rows = warehouse.scan("codebooks", version=release.tables["codebooks"]).filter(pl.col("generation") == release.generation)
    return tuple(rows.group_by("level").len().sort("level").collect()["len"].to_list())
