"""Lineage: from an item, a release or a checkpoint back to what made it, and on to what was made of it.

Item → content → embeddings with their encoders → generation and codebooks → releases where its SID appeared or moved → checkpoints.
Everything is read from the tables, of releases whose files are kept; a release's own record is told of vacuumed ones too.
Not done here: proving that stored vectors are what the encoders would say today (see the laws and the checks).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from sidlake.errors import NotFoundError
from sidlake.warehouse.checkpoint_files import TrainedOn, checkpoints
from sidlake.warehouse.keep.pins import pins
from sidlake.warehouse.keep.vacuumed import vacuumed
from sidlake.warehouse.releases import Release, current, find, history, readable
from sidlake.warehouse.sessions import session
from sidlake.warehouse.sql import literal, over_files
from sidlake.warehouse.tables import Warehouse

__all__ = ["checkpoint_lineage", "item_lineage", "lineage", "release_lineage"]


def lineage(warehouse: Warehouse, what: str) -> dict[str, Any]:
    """Return the chain of `what`: a checkpoint (its folder or the folder's name), a release, pin or ``current``, or an item_id.

    The first that fits decides; key ``kind`` says which. Raises `NotFoundError` where none does.
    """
    trained = {one.name: one for one in checkpoints(warehouse)}
    if Path(what).name in trained:
        return checkpoint_lineage(warehouse, trained[Path(what).name])
    try:
        release = find(warehouse, what)
    except NotFoundError:
        if current(warehouse) is None:
            raise
        return item_lineage(warehouse, what)
    return release_lineage(warehouse, release)


def release_lineage(warehouse: Warehouse, release: Release) -> dict[str, Any]:
    """Return what a release was made of, by whom and why, its ancestors, and the checkpoints and pins that know it."""
    known = {one.release_id: one for one in history(warehouse)}
    parents, parent = [], release.parent
    while parent is not None:
        parents.append(parent)
        parent = known[parent].parent
    return {
        "kind": "release",
        **_made_of(release),
        "parents": parents,
        "readable": release.release_id not in vacuumed(warehouse),
        "pins": [one.name for one in pins(warehouse) if one.release_id == release.release_id],
        "checkpoints": [one.name for one in checkpoints(warehouse) if one.release_id == release.release_id],
    }


def checkpoint_lineage(warehouse: Warehouse, checkpoint: TrainedOn) -> dict[str, Any]:
    """Return the release that a model was trained on with its lineage, and whether the model fits the current release."""
    latest = current(warehouse)
    fits = latest is not None and (latest.generation, latest.codebook_hash) == (checkpoint.generation, checkpoint.codebook_hash)
    told = f"{latest.release_id} of generation {latest.generation}" if latest else "none"
    return {
        "kind": "checkpoint",
        "checkpoint": checkpoint.name,
        "release": checkpoint.release_id,
        "generation": checkpoint.generation,
        "codebook_hash": checkpoint.codebook_hash,
        "current": told,
        "fits_current": fits,
        "remedy": None
        if fits
        else f"loads with releases of generation {checkpoint.generation} only; for {told}: sidlake run retrain",
        "trained_on": release_lineage(warehouse, find(warehouse, checkpoint.release_id)),
    }


def item_lineage(warehouse: Warehouse, item_id: str) -> dict[str, Any]:
    """Return an item's chain as of the last kept release that has it; `NotFoundError` where none does."""
    releases = readable(warehouse)
    events = _events(warehouse, item_id, releases)
    if not events:
        first, last = (releases[0].release_id, releases[-1].release_id) if releases else ("none", "none")
        msg = f"no item, release, pin or checkpoint {item_id!r}; the releases {first} to {last} are kept: sidlake releases"
        raise NotFoundError(msg, item_id=item_id)
    last_in = events[-1].get("last_in", releases[-1].release_id)  # an event of retirement says which release had the item last
    release = next(one for one in releases if one.release_id == last_in)
    generations = [one["generation"] for one in events if one["event"] != "retired"]
    return {
        "kind": "item",
        "item_id": item_id,
        "release": release.release_id,
        "sid": next(one["sid"] for one in reversed(events) if one["event"] != "retired"),
        **_content(warehouse, release, item_id),
        "embeddings": _embeddings(warehouse, release, item_id),
        "generation": release.generation,
        "codebook_hash": release.codebook_hash,
        "codebooks_trained_on": release.trained_on,
        "history": events,
        "checkpoints": [one.name for one in checkpoints(warehouse) if one.generation in generations],
    }


def _made_of(release: Release) -> dict[str, Any]:
    return {
        "release": release.release_id,
        "status": release.status,
        "created_at": release.created_at.isoformat(timespec="seconds"),
        "published_by": release.published_by,
        "reason": release.reason,
        "override": release.override,
        "content_hash": release.content_hash,
        "inputs": release.inputs,
        "recipe": release.config.get("name"),
        "seeds": dict(_seeds(release.config)),
        "code_version": release.code_version,
        "encoders": release.encoders,
        "generation": release.generation,
        "codebook_hash": release.codebook_hash,
        "codebooks_trained_on": release.trained_on,
        "metrics": release.metrics,
    }


def _seeds(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, int]]:
    """Return every key called seed in the recipe, by its dotted name."""
    found = []
    for key, value in config.items():
        if key == "seed":
            found.append((prefix + key, value))
        elif isinstance(value, Mapping):
            found += _seeds(value, f"{prefix}{key}.")
    return found


def _events(warehouse: Warehouse, item_id: str, releases: list[Release]) -> list[dict[str, Any]]:
    """Return in which of `releases` the item appeared, moved, retired or returned; each file is searched once."""
    files_of = {one.release_id: warehouse.files("semantic_ids", version=one.tables["semantic_ids"]) for one in releases}
    files = sorted({path for paths in files_of.values() for path in paths})
    if not files:
        return []
    schema = warehouse.schema("semantic_ids", version=releases[-1].tables["semantic_ids"])
    relation = over_files("semantic_ids", files, schema, with_path=True)
    with session(warehouse) as connection:
        rows = connection.execute(f"SELECT path, generation, sid FROM ({relation}) WHERE item_id = {literal(item_id)}").fetchall()
    sids = {(path, generation): sid for path, generation, sid in rows}
    events: list[dict[str, Any]] = []
    before: tuple[str, str] | None = None
    for place, release in enumerate(releases):
        found = [sids[path, release.generation] for path in files_of[release.release_id] if (path, release.generation) in sids]
        now = (release.generation, found[0]) if found else None
        if now != before:
            event = "retired" if now is None else "moved" if before else "returned" if events else "appeared"
            about = {"release": release.release_id, "created_at": release.created_at.isoformat(timespec="seconds"), "event": event}
            gone = {"last_in": releases[place - 1].release_id} if now is None else {}
            events.append(about | {"generation": release.generation, "sid": now[1] if now else None} | gone)
        before = now
    return events


def _content(warehouse: Warehouse, release: Release, item_id: str) -> dict[str, Any]:
    columns = ["title", "content_hash", "first_seen", "updated_at"]
    frame = warehouse.scan("items", version=release.tables["items"])
    return dict(_only(frame, item_id, columns)[0])


def _embeddings(warehouse: Warehouse, release: Release, item_id: str) -> list[dict[str, Any]]:
    """Return the item's vectors that the release's encoders made; of older contents and encoders the table may hold more."""
    if "item_embeddings" not in release.tables:
        return []
    frame = warehouse.scan("item_embeddings", version=release.tables["item_embeddings"])
    rows = _only(frame, item_id, ["modality", "encoder_id", "content_hash"])
    wanted = {str(encoder) for encoder in release.encoders.values()}
    return sorted((row for row in rows if row["encoder_id"] in wanted), key=lambda row: (row["modality"], row["content_hash"]))


def _only(frame: pl.LazyFrame, item_id: str, columns: list[str]) -> list[dict[str, Any]]:
    return list(frame.filter(pl.col("item_id") == item_id).select(columns).collect().to_dicts())
