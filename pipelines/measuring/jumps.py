"""What a release changes of the one before, as shares: items gone or changed, events lost, more rows refused, fewer vectors.

One row can do much: an event two years late makes every item quiet, a renamed column empties a modality. Each step does as it was
told then, and nothing is wrong with any row; that so much changes at once is what a person has to hear of (`quality.gates.GUARDS`).
Nothing is compared before the first release. All is counted in tables that releases name, so it is the same however the sources
were read. Not done here: codes that change in a retrain (`quality.metrics.churn`).
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from sidlake.pipelines.run import RunContext
from sidlake.quality.gates import Metric
from sidlake.quality.metrics.jumps import jumps
from sidlake.warehouse.embeddings import BY_ITEM, present_modalities

__all__ = ["jump_metrics"]

_CONTENT = ["item_id", "content_hash"]


def jump_metrics(ctx: RunContext, items: pa.Table) -> list[Metric]:
    """Return what the run's `items` (item_id, content_hash) and tables change of the release that it started from."""
    base = ctx.base.tables if ctx.base else {}
    now: dict[str, int] = {name: ctx.tables[name] for name in ("interactions", "rejected_rows") if name in ctx.tables}
    before = ctx.warehouse.read("items", version=base["items"], columns=_CONTENT) if base else None
    gone, changed = (None, None) if before is None else jumps(before, items)
    rejected = _rejected(ctx, now, len(items))
    rise = rejected - _rejected(ctx, base, len(before)) if before is not None else None
    return [
        Metric(metric="gone_item_share", value=gone),
        Metric(metric="changed_item_share", value=changed),
        Metric(metric="lost_event_share", value=_lost(_rows(ctx, base, "interactions"), _rows(ctx, now, "interactions"))),
        Metric(metric="rejected_share", value=rejected),
        Metric(metric="rejected_share_rise", value=rise),
        Metric(metric="without_vector_share_rise", value=None if before is None else _without_vector_rise(ctx, before, items)),
    ]


def _rows(ctx: RunContext, tables: Mapping[str, int], name: str) -> int | None:
    return ctx.warehouse.num_rows(name, tables[name]) if name in tables else None


def _lost(before: int | None, now: int | None) -> float | None:
    """Return by which share the number of events fell; None where there were none before."""
    return None if not before else max(0, before - (now or 0)) / before


def _rejected(ctx: RunContext, tables: Mapping[str, int], num_items: int) -> float:
    """Return refused rows as a share of these, the items and the events."""
    refused, events = (_rows(ctx, tables, name) or 0 for name in ("rejected_rows", "interactions"))
    return refused / max(refused + events + num_items, 1)


def _without_vector_rise(ctx: RunContext, before: pa.Table, now: pa.Table) -> float | None:
    """Return by how much the share of items without a vector grew, of the modality where it grew most; None without a modality.

    Behaviour is left out: no new item has any before a retrain.
    """
    assert ctx.base is not None
    named = [name for name in ctx.recipe.encoders.fusion if name not in BY_ITEM]
    found = [
        _without(ctx, before, ctx.base.tables["item_embeddings"], ctx.base.encoders, named),
        _without(ctx, now, ctx.tables["item_embeddings"], ctx.state.encoders, named),
    ]
    rises = [found[1][name] - found[0][name] for name in named if name in found[0] and name in found[1]]
    return max(rises, default=None)


def _without(ctx: RunContext, items: pa.Table, version: int, encoders: Mapping[str, str], named: list[str]) -> dict[str, float]:
    """Return the share of items without a vector, by modality."""
    of = {name: encoders[name] for name in named if name in encoders}
    if not of or not len(items):
        return {}
    present = present_modalities(items, ctx.warehouse.scan("item_embeddings", version=version), of)
    names = pc.list_flatten(present)
    return {name: 1 - (pc.sum(pc.equal(names, name)).as_py() or 0) / len(items) for name in of}
