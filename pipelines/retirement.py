"""Items that leave: which ones, what becomes of their SIDs, and who may have those again. After Monolith's expiry of embeddings.

An item is retired when a source that lists the catalogue no longer has it, or when nothing has been heard of it for the recipe's
number of days. It leaves `items`, `semantic_ids` and, with its events, the feature tables; its SID goes to `retired_sids`. There it
is held for it: an item that comes back gets the SID it had. Another item of the generation may have it only when `quarantine_days`
have passed and no live release that named it is left: no current, recent or pinned one, and none that a checkpoint was trained on.
A new generation spells all SIDs anew, so what an older one held does not bind it.

Not done here: telling which SIDs only a rolled-back release knew; those are free again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.errors import ContractError
from sidlake.pipelines.ingest.item_evidence import BY
from sidlake.pipelines.recipe import Recipe
from sidlake.pipelines.run import RunContext
from sidlake.warehouse.contracts import CONTRACTS, conform
from sidlake.warehouse.embeddings import as_codes
from sidlake.warehouse.keep.retention import Retention, live_releases
from sidlake.warehouse.releases import get

__all__ = ["held", "quiet_items", "retired_rows", "returned_rows", "write_retired"]

_RETIRED = CONTRACTS["retired_sids"]


def quiet_items(recipe: Recipe, evidence: pl.DataFrame, events: pl.LazyFrame | None) -> pl.Series:
    """Return the items of which nothing was heard for `retirement.after_days` before the newest row; none without that setting.

    Of an item whose source has many rows the newest row counts, of others the last event; an item without events is never quiet.
    Raises `ContractError` where the source's rows have no time to go by.
    """
    days = recipe.retirement.after_days
    if days is None:
        return pl.Series("item_id", [], pl.String)
    last = evidence.lazy().group_by("item_id").agg(pl.col(BY).max().alias("last"))
    if not recipe.items.aggregated:
        if events is None:
            return pl.Series("item_id", [], pl.String)
        last = events.group_by("item_id").agg(pl.col("ts").max().alias("last"))
    found = last.collect()
    if not found.schema["last"].is_temporal():
        msg = f"retirement.after_days needs a date or a datetime in items.order_by, found {found.schema['last']}; leave it out"
        raise ContractError(msg)
    return found.filter(pl.col("last") < pl.col("last").max() - timedelta(days=days))["item_id"].sort()


def retired_rows(ctx: RunContext) -> pa.Table:
    """Return `retired_sids` as the base release has it; no rows where nothing was ever retired."""
    base = ctx.base.tables if ctx.base else {}
    return ctx.warehouse.read("retired_sids", version=base["retired_sids"]) if "retired_sids" in base else _RETIRED.empty_table()


def returned_rows(retired: pa.Table, num_levels: int) -> pa.Table:
    """Return rows of `retired_sids` as rows of `semantic_ids`: what items that come back had."""
    codes_NL = as_codes(retired.column("codes")).reshape(len(retired), num_levels)
    levels = {f"code_{level}": pa.array(codes_NL[:, level], pa.int32()) for level in range(num_levels)}
    columns = {name: retired.column(name) for name in retired.column_names if name != "retired_at"} | levels
    return conform(pa.table(columns), "semantic_ids", num_levels=num_levels)


def held(ctx: RunContext, retired: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which SIDs of `retired` no other item may have yet."""
    if not len(retired):
        return np.zeros(0, bool)
    days = ctx.recipe.retirement.quarantine_days
    live = [get(ctx.warehouse, name) for name in live_releases(ctx.warehouse, Retention(days=float(days)), now=ctx.now)]
    since = [release.created_at for release in live if release.generation == ctx.generation]
    oldest = min(since, default=None)
    until = ctx.now - timedelta(days=days)
    return np.array(
        [at > until or (oldest is not None and at > oldest) for at in retired.column("retired_at").to_pylist()], dtype=bool
    )


def write_retired(ctx: RunContext, before: pa.Table, *, left: pa.Table, back: Sequence[str], given: npt.NDArray[np.int32]) -> None:
    """Write `retired_sids`: with the SIDs of items that `left`, without items that are `back` and SIDs `given` to others."""
    mine = pc.equal(before.column("generation"), ctx.generation)
    taken = {tuple(codes) for codes in given.tolist()}
    gone = [tuple(codes) in taken for codes in before.column("codes").to_pylist()]
    is_back = pc.is_in(before.column("item_id"), value_set=pa.array(back, pa.string()))
    over = pc.and_(mine, pc.or_(is_back, pa.array(gone, pa.bool_())))
    kept = before.filter(pc.invert(over))
    rows = [kept]
    if len(left):
        now = left.append_column("retired_at", pa.array([ctx.now] * len(left), pa.timestamp("us", tz="UTC")))
        rows.append(conform(now.select(_RETIRED.names), "retired_sids"))
    if len(left) or len(kept) != len(before):
        ctx.write("retired_sids", pa.concat_tables(rows))
