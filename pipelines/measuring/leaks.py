"""Whether sessions ask for what the generation has learned: the leak that no table of results shows.

Behaviour vectors, contrastive fusions and some tokenizers learn from events. They learn in `retrain` and are frozen until the next,
while every refresh makes its sessions anew, of the events and the split that it finds. Sessions that reach back behind that point
(an older file delivered again, a longer hold-out) ask for events that the vectors were made of, and every hit rate is too high.

What a generation learned from is kept beside its codebooks, written by the run that makes the generation; for generations that
have no such file, it is read from their first release, which names the version of `interactions` and the split. Not seen: what
a text model or a precomputed table was trained on elsewhere.

Memory: about 60 bytes per event.
"""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.encoders.fusion.config import PAIR_KINDS
from sidlake.pipelines.fit_inputs.split import ordered_events, training_events
from sidlake.pipelines.recipe import SplitConfig
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.settings.parsing import parse_dataclass
from sidlake.quality.leaks import EVENT_KEYS
from sidlake.tokenizers.registry import tokenizer_class
from sidlake.warehouse.releases import history
from sidlake.whole_files import replacing

__all__ = ["learned_events"]

_NAME = "learned_events.parquet"


def learned_events(ctx: RunContext, events: pl.DataFrame) -> pl.DataFrame | None:
    """Return user_id, ts and item_id of the events that the generation in force learned from; None where it learns from none.

    `events` are those of this run, as `ordered_events` returns them: what a generation of this run learned from.
    """
    recipe = ctx.recipe
    from_events = {"pairs_P2", "collaborative_NC"} & set(tokenizer_class(recipe.tokenizer.kind).fit_needs)
    if not (recipe.encoders.behaviour or recipe.encoders.fuse.kind in PAIR_KINDS or from_events):
        return None
    if ctx.base is None or ctx.base.generation != ctx.generation:  # this run has made the generation
        learned = training_events(events, recipe.split).select(EVENT_KEYS)
        _keep(ctx, learned)
        return learned
    path = ctx.artifact(_NAME)
    if path.exists():
        found = pl.from_arrow(pq.read_table(path))
        assert isinstance(found, pl.DataFrame)
        return found
    first = next(one for one in history(ctx.warehouse) if one.generation == ctx.generation)
    split = parse_dataclass(SplitConfig, first.config.get("split", {}), path="split")
    then: pa.Table = ctx.warehouse.read("interactions", version=first.tables["interactions"], columns=EVENT_KEYS)
    return training_events(ordered_events(then), split).select(EVENT_KEYS)


def _keep(ctx: RunContext, learned: pl.DataFrame) -> None:
    path = ctx.warehouse.artifacts_dir / ctx.generation / _NAME
    with replacing(path) as beside:
        pq.write_table(learned.to_arrow(), beside, compression="zstd")
    ctx.warehouse.keep(path, ctx.codebook_hash)
