"""The steps that make the feature tables a trainer reads: `user_sequences` and `sid_trie`.

Both are part of a release, because both spell codes: a reader that resolves a release cannot get sequences of one generation
with the trie of another. Memory: about 100 bytes per event and 60 bytes per item.
"""

from __future__ import annotations

from sidlake.pipelines.context import RunContext, StepReport
from sidlake.pipelines.split import ordered_events, user_sequences
from sidlake.pipelines.vectors import as_codes
from sidlake.tokenizers.trie import build_trie
from sidlake.warehouse.contracts import conform

__all__ = ["build_sequences", "build_sid_trie"]


def build_sequences(ctx: RunContext) -> StepReport:
    """Write each user's training history and held-out targets, spelled in codes; skipped for a catalogue without interactions."""
    inputs, outputs = ["interactions", "semantic_ids"], ["user_sequences"]
    if ctx.recipe.interactions is None or ctx.unchanged("sequences", inputs=inputs, outputs=outputs, config=ctx.recipe.split):
        return StepReport(step="sequences", skipped=True)
    events = ordered_events(ctx.read("interactions", ["user_id", "item_id", "ts"]))
    rows = conform(user_sequences(events, ctx.recipe.split, ctx.read("semantic_ids", ["item_id", "codes"])), "user_sequences")
    ctx.write("user_sequences", rows)
    return StepReport(step="sequences", rows={"user_sequences": len(rows)})


def build_sid_trie(ctx: RunContext) -> StepReport:
    """Write the prefix trie of all published SIDs, by which decoding is constrained."""
    if ctx.unchanged("trie", inputs=["semantic_ids"], outputs=["sid_trie"], config=None):
        return StepReport(step="trie", skipped=True)
    sids = ctx.read("semantic_ids", ["item_id", "codes"])
    rows = conform(build_trie(as_codes(sids.column("codes")), sids.column("item_id").to_pylist()).to_table(), "sid_trie")
    ctx.write("sid_trie", rows)
    return StepReport(step="trie", rows={"sid_trie": len(rows)})
