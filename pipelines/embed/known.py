"""Vectors that the warehouse has: those in force, those that may be taken over, and those that a release leaves behind.

A run builds on the vectors that its base release names. What a run that died has embedded, or an older release knew, lies in the
table's newest version; rows of either that are wanted are copied: no vector is computed twice, and no unwanted one is in force.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

from sidlake.errors import EncoderError
from sidlake.pipelines.run import RunContext
from sidlake.warehouse.contracts import CONTRACTS, narrow
from sidlake.warehouse.embeddings import BY_ITEM, missing_rows

__all__ = ["add_files", "add_vectors", "in_force", "keep_in_force", "same_as_generation", "taken_over", "wanting"]

_TABLE = "item_embeddings"
_OF_CONTENT = ["item_id", "content_hash"]


def in_force(ctx: RunContext) -> pl.LazyFrame | None:
    """Return the rows of `item_embeddings` that the run has in force; None where it has none yet."""
    version = ctx.tables.get(_TABLE)
    return None if version is None else ctx.warehouse.scan(_TABLE, version=version)


def wanting(ctx: RunContext, items: pa.Table, modality: str, encoder_id: str) -> pa.Table:
    """Return the rows of `items` that are still to be embedded, in item order, after taking over what was embedded before."""
    missing = missing_rows(items, in_force(ctx), modality, encoder_id)
    of_encoder = (pl.col("modality") == modality) & (pl.col("encoder_id") == encoder_id)
    for version in _elsewhere(ctx):
        if not len(missing):
            break
        wanted = pl.from_arrow(missing.select(_OF_CONTENT))
        assert isinstance(wanted, pl.DataFrame)
        known = ctx.warehouse.scan(_TABLE, version=version).filter(of_encoder).join(wanted.lazy(), on=_OF_CONTENT, how="semi")
        rows = known.unique(_OF_CONTENT, maintain_order=True).collect()
        if len(rows):
            add_vectors(ctx, narrow(rows.to_arrow(), CONTRACTS[_TABLE]))
            missing = missing_rows(missing, in_force(ctx), modality, encoder_id)
    return missing


def _elsewhere(ctx: RunContext) -> list[int]:
    """Return the versions of the table that may hold vectors which the run has not in force, the base release's first.

    A run that is executed again may have left a vector of the base behind, when the item had another content; of a table of vectors
    made elsewhere, which has changed since, it could not be made again.
    """
    base = None if ctx.base is None else ctx.base.tables.get(_TABLE)
    own, head = ctx.tables.get(_TABLE), ctx.warehouse.version(_TABLE)
    return [version for version in dict.fromkeys((base, head)) if version is not None and version != own]


def taken_over(ctx: RunContext, encoder_id: str) -> int:
    """Return how many rows of `encoder_id` the run has in force, after taking over all that an earlier run has written."""
    of_encoder = pl.col("encoder_id") == encoder_id
    rows, head = in_force(ctx), ctx.warehouse.version(_TABLE)
    known = 0 if rows is None else int(rows.filter(of_encoder).select(pl.len()).collect().item())
    if known or head is None:
        return known
    before = ctx.warehouse.scan(_TABLE, version=head).filter(of_encoder).unique("item_id", maintain_order=True).collect()
    if len(before):
        add_vectors(ctx, narrow(before.to_arrow(), CONTRACTS[_TABLE]))
    return len(before)


def add_vectors(ctx: RunContext, rows: pa.Table) -> None:
    """Add rows to those in force; `ReleaseConflict` where another run writes to the table at the same time."""
    if _TABLE in ctx.tables:
        ctx.append(_TABLE, rows)
    else:
        ctx.write(_TABLE, rows)


def add_files(ctx: RunContext, files: Sequence[Path]) -> None:
    """Add rows that workers have written to Parquet files, in the same way."""
    if _TABLE not in ctx.tables and ctx.warehouse.exists(_TABLE):
        ctx.write(_TABLE, CONTRACTS[_TABLE].empty_table())
    head = ctx.tables.get(_TABLE)
    if head is not None:
        head = ctx.warehouse.restore(_TABLE, head, run_id=ctx.run_id)
    ctx.tables[_TABLE] = ctx.warehouse.append_files(_TABLE, files, head=head, run_id=ctx.run_id)


def keep_in_force(ctx: RunContext) -> int:
    """Leave behind rows of other encoders than those in force, and of contents that no item has; return how many there were.

    What belongs to an item and not to its content stays while its encoder is in force, since an item that has left may come back.
    Where there is nothing to leave behind nothing is written; else the table is written anew: 4 * D bytes per row in memory.
    """
    rows = in_force(ctx)
    if rows is None:
        return 0
    encoders = pl.DataFrame(list(ctx.state.encoders.items()), schema=["modality", "encoder_id"], orient="row").lazy()
    of_encoders = rows.join(encoders, on=["modality", "encoder_id"], how="semi")
    items = ctx.warehouse.scan("items", version=ctx.tables["items"]).select(_OF_CONTENT)
    by_item = pl.col("modality").is_in(BY_ITEM)
    of_items = of_encoders.filter(~by_item).join(items, on=_OF_CONTENT, how="semi")
    kept = pl.concat([of_items, of_encoders.filter(by_item)])
    num, num_kept = (frame.select(pl.len()).collect().item() for frame in (rows, kept))
    if num > num_kept:
        ctx.write(_TABLE, narrow(kept.collect().to_arrow(), CONTRACTS[_TABLE]))
    return int(num - num_kept)


def same_as_generation(ctx: RunContext, modality: str, encoder_id: str) -> None:
    """Raise `EncoderError` where a refresh would embed `modality` by another encoder than the generation was made with."""
    known = ctx.base_state.encoders.get(modality)
    if ctx.job == "refresh" and known != encoder_id:
        msg = f"{modality} encoder {encoder_id} is not that of generation {ctx.generation}, {known}; run retrain instead"
        raise EncoderError(msg, encoder=encoder_id, generation_encoder=known)
