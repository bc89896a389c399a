"""A recipe tried on its sources without a warehouse: what an ingest would keep and refuse, and what the steps after it would cost.

The readers are the ingest's own; only its limits are held against the result afterwards, so that a run that would fail is described
whole. Snapshots of databases lie in a temporary folder meanwhile. Time and memory: those of the ingest's reading.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.encoders.model_folder import BUNDLED_MODEL, resolve_folder
from sidlake.errors import ContractError, SourceError
from sidlake.pipelines.ingest.events import check_events
from sidlake.pipelines.ingest.reading import Ingested, ingest
from sidlake.pipelines.ingest.rejected import check_rejected
from sidlake.pipelines.ingest.schema import check_columns
from sidlake.pipelines.ingest.stores.snapshots import listed_sources
from sidlake.pipelines.recipe import Recipe

__all__ = ["DryRun", "dry_run"]

_EXAMPLES = 3
_FIRST_ITEMS = 3
_FLOAT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """What a recipe makes of its sources.

    Attributes:
        failures: why an ingest would fail; none where it would not.
        columns: the types of each source's columns, ``text`` where a file states none.
        rows: what was read, kept and refused, for ``items`` and ``interactions``.
        rejected: per target and rule the number of rows, and up to three of the values.
        items: identifier, text as the encoder will read it, category, price and whether there is a picture, of the first items.
        cost: ``texts`` to embed (different ones), ``text_vector_bytes`` (None where the model is not on this machine),
            ``fused_vector_bytes`` at most, ``pictures`` and ``events``.
    """

    failures: tuple[str, ...]
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rejected: tuple[Mapping[str, object], ...] = ()
    items: tuple[Mapping[str, object], ...] = ()
    cost: Mapping[str, int | None] = field(default_factory=dict)


def dry_run(recipe: Recipe, *, now: datetime | None = None) -> DryRun:
    """Return what an ingest by `recipe` at `now` (UTC) would do; errors of sources and contracts are its failures.

    Raises:
        RecipeError: the recipe's words do not fit each other or the sources.
    """
    columns: Mapping[str, Mapping[str, str]] = {}
    with TemporaryDirectory() as folder:
        try:
            files = {name: found.files for name, found in listed_sources(recipe, Path(folder)).items()}
            columns = check_columns(recipe, files, {})
            result = ingest(_without_limits(recipe), run_id="validate", now=now or datetime.now(UTC), files=files)
        except (SourceError, ContractError) as error:
            return DryRun(failures=(error.message,), columns=columns)
    return DryRun(
        failures=_failures(recipe, result),
        columns=columns,
        rows=_rows(result),
        rejected=_rejected(result),
        items=_first_items(result.items),
        cost=_cost(recipe, result),
    )


def _without_limits(recipe: Recipe) -> Recipe:
    events = replace(recipe.interactions, max_rejected_share=1.0) if recipe.interactions else None
    return replace(recipe, items=replace(recipe.items, max_rejected_share=1.0), interactions=events)


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _failures(recipe: Recipe, result: Ingested) -> tuple[str, ...]:
    refused, found = _frame(result.rejected_rows), []
    of_items = refused.filter(pl.col("target") == "items")
    of_events = refused.filter(pl.col("target") == "interactions")
    try:
        check_rejected("items", recipe.items.source, result.rows_read["items"], of_items, recipe.items.max_rejected_share)
    except ContractError as error:
        found.append(error.message)
    try:
        if recipe.interactions:
            check_events(recipe, recipe.interactions, len(result.interactions), of_events, result.rows_read["interactions"])
    except ContractError as error:
        found.append(error.message)
    return tuple(found)


def _rows(result: Ingested) -> dict[str, dict[str, int]]:
    refused = _frame(result.rejected_rows)
    made = {"items": len(result.items), "interactions": len(result.interactions)}
    return {
        target: {"read": sum(counts.values()), "refused": refused.filter(pl.col("target") == target).height, "made": made[target]}
        for target, counts in result.rows_read.items()
    }


def _rejected(result: Ingested) -> tuple[Mapping[str, object], ...]:
    values = pl.col("value").drop_nulls().unique(maintain_order=True).head(_EXAMPLES).alias("examples")
    found = _frame(result.rejected_rows).group_by("target", "rule").agg(pl.len().alias("rows"), values)
    return tuple(found.sort("target", "rows", "rule", descending=[True, True, False]).to_dicts())


def _first_items(items: pa.Table) -> tuple[Mapping[str, object], ...]:
    rows = items.slice(0, _FIRST_ITEMS).to_pylist()
    shown = ("item_id", "text", "category", "price", "first_seen")
    return tuple({name: row[name] for name in shown} | {"picture": bool(row["image"] or row["image_uri"])} for row in rows)


def _cost(recipe: Recipe, result: Ingested) -> dict[str, int | None]:
    items = _frame(result.items.select(["text"]))
    texts = items["text"].n_unique() if "text" in recipe.encoders.fusion else 0
    dim = _text_dim(recipe.encoders.text.model)
    pictures = pc.sum(pc.or_(pc.is_valid(result.items["image"]), pc.is_valid(result.items["image_uri"]))).as_py() or 0
    fused = sum(share.dim for share in recipe.encoders.fusion.values())
    return {
        "texts": texts,
        "text_vector_bytes": None if dim is None else texts * dim * _FLOAT,
        "fused_vector_bytes": len(items) * fused * _FLOAT,
        "pictures": pictures if recipe.encoders.image else 0,
        "events": len(result.interactions),
    }


def _text_dim(model: str) -> int | None:
    """Return the width of a model that is on this machine: nothing is downloaded for a dry run."""
    if model != BUNDLED_MODEL and not Path(model).expanduser().is_dir():
        return None
    config = json.loads((resolve_folder(model) / "config.json").read_text(encoding="utf-8"))
    return int(config["hidden_size"]) if "hidden_size" in config else None
