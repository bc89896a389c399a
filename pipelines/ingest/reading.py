"""Source rows into `items`, `interactions` and `rejected_rows`: every row ends in exactly one of kept, merged or rejected.

Either all files are read, or only new ones on top of what is known of the others; both ways give the same rows (`items`, `events`).
Nothing depends on the order of the source's rows: ties go to the greater value, but for a pick that asks for the first row.

Memory: the columns that the recipe names, whole, about 100 bytes per source row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa

from sidlake.errors import ContractError, SourceError
from sidlake.pipelines.ingest.events import INTERACTIONS, check_events, last_events, read_events, same_events
from sidlake.pipelines.ingest.item_evidence import condense, described_ids, settle
from sidlake.pipelines.ingest.items import described_items, no_items, read_items
from sidlake.pipelines.ingest.picture_files import PictureFiles
from sidlake.pipelines.ingest.rejected import check_rejected
from sidlake.pipelines.ingest.rules import SHOWN, places, rejected_table, worst_rules
from sidlake.pipelines.ingest.sources import source_files
from sidlake.pipelines.recipe import Recipe
from sidlake.warehouse.contracts import conform

__all__ = ["Files", "Ingested", "Known", "ingest", "ingest_new", "keep_unchanged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingested:
    """What a source became: three tables that keep their contracts, and what the next run needs to read new files only.

    Attributes:
        rows_read: rows of each source file for each target, by the file's name.
        evidence: what all files say of the items (`item_evidence`).
        heard: the last event of each item in all files, of items that retire too (`last_events`).
        adds: whether the tables hold only what new files add: described items, new events, new rejections.
        settled: rejections of earlier runs that no longer hold: source and row of items that now have a text.
    """

    items: pa.Table
    interactions: pa.Table
    rejected_rows: pa.Table
    rows_read: Mapping[str, Mapping[str, int]]
    evidence: pl.DataFrame
    heard: pl.DataFrame
    adds: bool = False
    settled: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"source": pl.String, "row": pl.Int64}))


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """What earlier runs made of files that are still the same: their evidence, last events, rows read, and rejections by target.

    `events` are the interactions of the base release, lazily.
    """

    evidence: pl.DataFrame
    heard: pl.DataFrame
    rows_read: Mapping[str, Mapping[str, int]]
    rejected: pl.DataFrame
    events: pl.LazyFrame | None


Files = Mapping[str, Mapping[str, Path]]
"""For each source its files by name."""


def ingest(
    recipe: Recipe, *, run_id: str, now: datetime, files: Files | None = None, pictures: PictureFiles | None = None
) -> Ingested:
    """Return the tables that `recipe` makes of its sources; `now` (UTC) is the limit for timestamps and the items' `updated_at`.

    `files` are those of each source, by default the ones that its path names; of databases and Delta tables, a snapshot.
    `pictures` knows the files that the sources name.

    Raises:
        SourceError: a source is missing, damaged or lacks a column.
        ContractError: nothing is left, a column has the wrong type, or more rows were rejected than the recipe allows.
    """
    files = files or {n: source_files(recipe.source_path(n), source.format, n) for n, source in recipe.sources.items()}
    read = read_items(recipe, files[recipe.items.source])
    items, refused_items = described_items(recipe, read.evidence, now, pictures or PictureFiles(Path(recipe.folder)))
    rejected = [read.rejected, refused_items]
    check_rejected("items", recipe.items.source, read.rows, pl.concat(rejected), recipe.items.max_rejected_share)
    if items.is_empty():
        path, rows = recipe.source_place(recipe.items.source), sum(read.rows.values())
        why = worst_rules(pl.concat(rejected))
        msg = f"source {path}: no item left of {rows} rows ({why}); the `items` contract needs at least one item_id with text"
        raise ContractError(msg, path=path, rows=rows)
    rows_read = {"items": read.rows}
    interactions = pl.DataFrame(schema=INTERACTIONS)
    if recipe.interactions:
        interactions, refused, rows_read["interactions"] = read_events(
            recipe, recipe.interactions, files[recipe.interactions.source], items["item_id"], now
        )
        rejected.append(refused)
        check_events(recipe, recipe.interactions, len(interactions), refused, rows_read["interactions"])
    return Ingested(
        items=conform(items.to_arrow(), "items"),
        interactions=conform(interactions.to_arrow(), "interactions"),
        rejected_rows=rejected_table(rejected, run_id),
        rows_read=rows_read,
        evidence=read.evidence,
        heard=last_events(interactions),
    )


def ingest_new(
    recipe: Recipe, new: Files, known: Known, *, run_id: str, now: datetime, pictures: PictureFiles | None = None
) -> Ingested | None:
    """Return what the `new` files add to what is `known`, or None where all files must be read to say it.

    All files are read where items that are described by one row each have a new file, where an event of the new files has the user,
    item and instant of a known one, and where a known rejection was for the time or for an item that has become known since. Raises
    as `ingest`.
    """
    try:
        return _added(recipe, new, known, pictures or PictureFiles(Path(recipe.folder)), run_id=run_id, now=now)
    except SourceError as error:
        if "missing" in error.details:  # a field that JSON lines leave out where it has no value may stand in the other files
            return None
        raise


def _added(recipe: Recipe, new: Files, known: Known, pictures: PictureFiles, *, run_id: str, now: datetime) -> Ingested | None:
    old, ids = known.rejected, described_ids(known.evidence)
    if (new[recipe.items.source] and not recipe.items.aggregated) or (old["rule"] == "future_timestamp").any():
        return None
    items, evidence, settled, refused, item_rows = _new_items(recipe, new, known, now, pictures)
    new_ids = set(items["item_id"]) - set(ids)
    shown = {item_id[:SHOWN] for item_id in new_ids}  # rejections show the beginning of a value
    if shown & set(old.filter(pl.col("rule") == "unknown_item")["value"]):
        return None
    rows_read = {target: dict(counts) for target, counts in known.rows_read.items()}
    rows_read["items"] |= item_rows
    standing = old.filter(pl.col("target") == "items").join(settled, on=["source", "row"], how="anti")
    all_refused = pl.concat([standing, refused])
    check_rejected("items", recipe.items.source, rows_read["items"], all_refused, recipe.items.max_rejected_share)
    interactions, rejected = pl.DataFrame(schema=INTERACTIONS), [refused]
    if recipe.interactions and new[recipe.interactions.source]:
        all_ids = pl.concat([ids, items["item_id"]]).unique()
        interactions, refused_events, rows = read_events(recipe, recipe.interactions, new[recipe.interactions.source], all_ids, now)
        if recipe.interactions.sequences or same_events(known.events, interactions):
            return None
        rows_read["interactions"] |= rows
        rejected.append(refused_events)
        all_refused = pl.concat([old.filter(pl.col("target") == "interactions"), refused_events])
        check_events(recipe, recipe.interactions, 1, all_refused, rows_read["interactions"])
    return Ingested(
        items=conform(items.to_arrow(), "items"),
        interactions=conform(interactions.to_arrow(), "interactions"),
        rejected_rows=rejected_table(rejected, run_id),
        rows_read=rows_read,
        evidence=evidence,
        heard=last_events(interactions, known.heard),
        adds=True,
        settled=settled,
    )


def _new_items(
    recipe: Recipe, new: Files, known: Known, now: datetime, pictures: PictureFiles
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame, Mapping[str, int]]:
    """Return the items that new files speak of, all evidence, where those items stood, refused rows and rows per file."""
    config, nothing = recipe.items, known.rejected.clear()
    if not new[config.source]:
        return no_items(), known.evidence, nothing.select("source", "row"), nothing, {}
    read = read_items(recipe, new[config.source])
    touched = pl.col("item_id").is_in(read.evidence["item_id"].unique().implode())
    before = known.evidence.filter(touched)
    after = condense(pl.concat([before, read.evidence.select(before.columns)]), config)
    items, refused = described_items(recipe, after, now, pictures)
    evidence = pl.concat([known.evidence.filter(~touched), after])
    return items, evidence, places(settle(before, config), config.source), pl.concat([read.rejected, refused]), read.rows


def keep_unchanged(items: pa.Table, previous: pa.Table) -> pa.Table:
    """Return `items` where rows with unchanged content keep their old dates, plus the previous items that the source no longer has.

    An item that leaves the source stays: its SID is published and must stay readable.
    """
    new, old = pl.from_arrow(items), pl.from_arrow(previous)
    assert isinstance(new, pl.DataFrame)
    assert isinstance(old, pl.DataFrame)
    updated = old.select("item_id", "content_hash", pl.col("updated_at").alias("old_updated_at"))
    seen = old.select("item_id", pl.col("first_seen").alias("old_first_seen"))
    same = (
        new.join(updated, on=["item_id", "content_hash"], how="left")
        .join(seen, on="item_id", how="left")
        .with_columns(
            pl.coalesce("old_updated_at", "updated_at").alias("updated_at"),
            pl.min_horizontal("old_first_seen", "first_seen").alias("first_seen"),
        )
    )
    gone = old.join(new, on="item_id", how="anti")
    merged = pl.concat([same.select(items.column_names), gone.select(items.column_names)]).sort("item_id")
    return conform(merged.to_arrow(), "items")
