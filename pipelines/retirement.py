"""Items that leave: which ones, what becomes of their SIDs, and who may have those again. After Monolith's expiry of embeddings.

An item is retired when a source that lists the catalogue no longer has it, or when nothing has been heard of it for the recipe's
number of days. It leaves `items`, `semantic_ids` and, with its events, the feature tables; its SID goes to `retired_sids`, where
people see what has left. Whose it is for as long as the generation is in use stands in the ledger (`warehouse.ledger`), with the
SIDs of releases that were rolled back: an item that comes back, from wherever, gets the SID it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.errors import ContractError
from sidlake.pipelines.fit_inputs.newest import newest_time
from sidlake.pipelines.ingest.item_evidence import BY
from sidlake.pipelines.recipe import Recipe
from sidlake.pipelines.run import RunContext
from sidlake.warehouse.contracts import CONTRACTS, conform
from sidlake.warehouse.embeddings import as_codes
from sidlake.warehouse.ledger import founded, rows_of, taken
from sidlake.warehouse.releases import readable

__all__ = ["quiet_items", "retired_rows", "returned_rows", "taken_sids", "write_retired"]

_RETIRED = CONTRACTS["retired_sids"]


def quiet_items(recipe: Recipe, evidence: pl.DataFrame, heard: pl.DataFrame) -> pl.Series:
    """Return the items of which nothing was heard for `retirement.after_days` before the newest row that is no stray (`newest`).

    Of an item whose source has many rows the newest row counts, of others its last event, which `heard` tells of all files, retired
    items included; an item without events is never quiet.
    Raises `ContractError` where the source's rows have no time to go by.
    """
    days = recipe.retirement.after_days
    if days is None:
        return pl.Series("item_id", [], pl.String)
    found = evidence.group_by("item_id").agg(pl.col(BY).max().alias("last")) if recipe.items.aggregated else heard
    if not found.schema["last"].is_temporal():
        msg = f"retirement.after_days needs a date or a datetime in items.order_by, found {found.schema['last']}; leave it out"
        raise ContractError(msg)
    known = found["last"].drop_nulls().cast(pl.Datetime("us", "UTC"))
    if known.is_empty():
        return pl.Series("item_id", [], pl.String)
    span = timedelta(days=days)
    return found.filter(pl.col("last") < newest_time(known, span) - span)["item_id"].sort()


def retired_rows(ctx: RunContext) -> pa.Table:
    """Return `retired_sids` as the base release has it; no rows where nothing was ever retired."""
    base = ctx.base.tables if ctx.base else {}
    return ctx.warehouse.read("retired_sids", version=base["retired_sids"]) if "retired_sids" in base else _RETIRED.empty_table()


def taken_sids(ctx: RunContext) -> pa.Table:
    """Return item_id and codes of every SID that a release of the generation ever named; a ledger that is not there is founded."""
    founded(ctx.warehouse, readable(ctx.warehouse), run_id=ctx.run_id)
    return taken(ctx.warehouse, ctx.generation)


def returned_rows(ctx: RunContext, item_ids: pa.ChunkedArray, num_levels: int) -> pa.Table:
    """Return the rows of `semantic_ids` that items of the ledger had: what they get when they come back."""
    rows = rows_of(ctx.warehouse, ctx.generation, item_ids)
    codes_NL = as_codes(rows.column("codes")).reshape(len(rows), num_levels)
    levels = {f"code_{level}": pa.array(codes_NL[:, level], pa.int32()) for level in range(num_levels)}
    columns = {name: rows.column(name) for name in rows.column_names if name not in ("release_id", "run_id")} | levels
    return conform(pa.table(columns), "semantic_ids", num_levels=num_levels)


def write_retired(ctx: RunContext, before: pa.Table, *, left: pa.Table, back: Sequence[str]) -> None:
    """Write `retired_sids`: with the SIDs of items that `left`, without items that are `back`."""
    mine = pc.equal(before.column("generation"), ctx.generation)
    is_back = pc.is_in(before.column("item_id"), value_set=pa.array(back, pa.string()))
    kept = before.filter(pc.invert(pc.and_(mine, is_back)))
    rows = [kept]
    if len(left):
        now = left.append_column("retired_at", pa.array([ctx.now] * len(left), pa.timestamp("us", tz="UTC")))
        rows.append(conform(now.select(_RETIRED.names), "retired_sids"))
    if len(left) or len(kept) != len(before):
        ctx.write("retired_sids", pa.concat_tables(rows))
