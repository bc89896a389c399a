"""The steps that make the feature tables a trainer reads: `user_sequences` and `sid_trie`.

Both are part of a release, because both spell codes: a reader that resolves a release cannot get sequences of one generation
with the trie of another. A refresh that only adds events makes anew the sequences of the users who have new ones: the others'
events, and the SIDs of their items, are those of the base release. Memory: about 100 bytes per event and 60 bytes per item.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa

from sidlake.errors import LawBroken
from sidlake.pipelines.fit_inputs.split import ordered_events, user_sequences
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.tokenizers.trie import build_trie
from sidlake.warehouse.contracts import conform
from sidlake.warehouse.embeddings import as_codes

__all__ = ["build_sequences", "build_sid_trie"]


def build_sequences(ctx: RunContext) -> StepReport:
    """Write each user's training history and held-out targets, spelled in codes."""
    touched = _users_with_new_events(ctx)
    rows_of = ctx.warehouse.scan("interactions", version=ctx.tables["interactions"]).select("user_id", "item_id", "ts")
    if touched is not None:
        rows_of = rows_of.filter(pl.col("user_id").is_in(touched.implode()))
    events = ordered_events(rows_of.collect().to_arrow())
    rows = conform(user_sequences(events, ctx.recipe.split, ctx.read("semantic_ids", ["item_id", "codes"])), "user_sequences")
    if touched is not None:
        kept = ctx.read("user_sequences")
        others = pa.compute.invert(pa.compute.is_in(kept.column("user_id"), value_set=touched.to_arrow().cast(pa.string())))
        kept = kept.filter(others)
        ctx.write("user_sequences", pa.concat_tables([kept, rows]))
        return StepReport(step="sequences", rows={"user_sequences": len(rows)}, details={"kept": len(kept), "users": len(touched)})
    ctx.write("user_sequences", rows)
    return StepReport(step="sequences", rows={"user_sequences": len(rows)})


def _users_with_new_events(ctx: RunContext) -> pl.Series | None:
    """Return the users of events that the base release does not have; None where more than such events is new.

    Files are compared, which never change once written: what is in none of the base's files is new.
    """
    base = ctx.base
    if base is None or base.generation != ctx.generation or not {"interactions", "user_sequences"} <= base.tables.keys():
        return None
    if not ctx.made_alike():
        return None
    before = set(ctx.warehouse.files("interactions", version=base.tables["interactions"]))
    files = ctx.warehouse.files("interactions", version=ctx.tables["interactions"])
    if not before <= set(files):
        return None
    new = [file for file in files if file not in before]
    empty = pl.Series("user_id", [], pl.String)
    return (
        pl.scan_parquet(new, glob=False, hive_partitioning=False).select("user_id").unique().collect()["user_id"] if new else empty
    )


def build_sid_trie(ctx: RunContext) -> StepReport:
    """Write the prefix trie of all published SIDs, by which decoding is constrained.

    Raises:
        LawBroken: two items share a SID, as those of a recipe with ``uniqueness = "none"`` may.
    """
    sids = ctx.read("semantic_ids", ["item_id", "codes"])
    try:
        trie = build_trie(as_codes(sids.column("codes")), sids.column("item_id").to_pylist())
    except ValueError as error:
        msg = f"{error}; nothing was published: give every item its own SID (tokenizer.uniqueness), or run the assign step again"
        raise LawBroken(msg, rule="every SID belongs to one item") from error
    rows = conform(trie.to_table(), "sid_trie")
    ctx.write("sid_trie", rows)
    return StepReport(step="trie", rows={"sid_trie": len(rows)})
