"""The step that checks quality: every metric of `quality.measure`, judged by the recipe's gates, into `sid_quality`.

Beside those metrics it measures what takes the warehouse to know: whether sessions ask for events that the generation learned from
(`leaks`), whether new items were embedded as the published ones were (`foreigners`), what the release changes at once (`jumps`),
and whether the text model tells texts apart (`confused_texts`). Relative gates compare with the release that the run started from.
A gate that refuses does not stop this step: the verdict is stored, and the release step acts on it.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from sidlake.encoders.fusion.fusion import Fusion
from sidlake.errors import LawBroken
from sidlake.pipelines.fit_inputs.former_generation import former_codes
from sidlake.pipelines.fit_inputs.split import KeyedSessions, keyed_sessions, ordered_events, training_events
from sidlake.pipelines.fuse import load_fusion, modality_vectors
from sidlake.pipelines.generation import fused_vectors, load_generation
from sidlake.pipelines.measuring.confused_texts import text_metrics
from sidlake.pipelines.measuring.foreigners import foreign_items
from sidlake.pipelines.measuring.jumps import jump_metrics
from sidlake.pipelines.measuring.leaks import learned_events
from sidlake.pipelines.measuring.staleness import staleness_metrics
from sidlake.pipelines.run import RunContext, StepReport
from sidlake.quality.gates import Earlier, Metric, gates_in_force, judge, to_table, worst
from sidlake.quality.leaks import leaked
from sidlake.quality.measure import Former, crowding, measure
from sidlake.quality.metrics.sessions import Sessions
from sidlake.quality.offenders import Offenders, with_examples
from sidlake.tokenizers.generations.relabelled import own_codes
from sidlake.warehouse.contracts import conform
from sidlake.warehouse.embeddings import as_codes
from sidlake.warehouse.releases import level_widths

__all__ = ["check_quality"]

_COLUMNS = ["item_id", "codes", "raw_codes", "move_cost", "residual_norm"]


def check_quality(ctx: RunContext) -> StepReport:
    """Write metrics and verdicts to `sid_quality`; a verdict ``refuse`` is for the release step to act on."""
    metrics, offenders = _measure(ctx)
    verdicts = with_examples(judge(metrics, gates_in_force(ctx.recipe.gates), earlier=_earlier(ctx)), offenders)
    rows = conform(to_table(verdicts), "sid_quality")
    ctx.write("sid_quality", rows)
    ctx.state.metrics = {v.metric: v.value for v in verdicts if v.level is None and v.value is not None and isfinite(v.value)}
    return StepReport(step="check", rows={"sid_quality": len(rows)}, details={"verdict": worst(one.verdict for one in verdicts)})


def _earlier(ctx: RunContext) -> Earlier:
    """Return the current release's values by metric and level; empty before the first release."""
    if ctx.base is None or "sid_quality" not in ctx.base.tables:
        return {}
    columns = ["metric", "level", "value"]
    rows = ctx.warehouse.read("sid_quality", version=ctx.base.tables["sid_quality"], columns=columns).to_pylist()
    return {(row["metric"], row["level"]): row["value"] for row in rows}


def _measure(ctx: RunContext) -> tuple[list[Metric], Offenders]:
    model, fusion = load_generation(ctx), load_fusion(ctx)
    items, x_ND = fused_vectors(ctx)
    item_ids = items.column("item_id")
    sids = ctx.read("semantic_ids", _COLUMNS).sort_by("item_id")
    if not sids.column("item_id").equals(item_ids):
        msg = f"semantic_ids has {len(sids):,} rows and items {len(items):,}, or of other items: run the step assign again"
        raise LawBroken(msg, rule="every item has one SID")
    raw_NL, codes_NL = as_codes(sids.column("raw_codes")), as_codes(sids.column("codes"))
    events = ordered_events(ctx.read("interactions", ["user_id", "item_id", "ts"])) if ctx.recipe.interactions else None
    keyed = _sessions(ctx, events, item_ids) if events is not None else None
    sessions = keyed.sessions if keyed else None
    former = _former(ctx, items, own_codes(model, codes_NL))
    metrics = measure(
        raw_NL,
        codes_NL,
        widths=model.widths,
        vectors_ND=x_ND,
        decode=lambda codes_NL: model.decode(codes_NL, depth=codes_NL.shape[1]),
        sessions=sessions,
        to_input_space=lambda fused_ND: _input_space(fusion, fused_ND),
        categories_N=_categories(ctx, item_ids),
        popularity_N=_popularity(ctx, events, item_ids),
        former=former,
        modalities=modality_vectors(ctx, items),
    )
    foreign_N, share = foreign_items(ctx, items)
    found = leaked(keyed.asked, learned_events(ctx, events)) if keyed and events is not None else pl.DataFrame()
    metrics += staleness_metrics(ctx, model, items, x_ND, sids)
    metrics += [*jump_metrics(ctx, items), *text_metrics(ctx)]
    metrics += [*crowding(raw_NL, model.widths), Metric(metric="foreign_item_share", value=share)]
    metrics.append(Metric(metric="leaked_session_share", value=_leaked_share(sessions, found)))
    if keyed and len(items) > ctx.recipe.quality.exact_items:
        metrics.append(Metric(metric="ehr_sampled_share", value=keyed.share))
    offenders = Offenders(
        items=_described(ctx, sids),
        codes_NL=codes_NL,
        raw_codes_NL=raw_NL,
        former_NL=former.codes_NL if former else None,
        leaked=found,
        foreign_N=foreign_N,
    )
    return metrics, offenders


def _sessions(ctx: RunContext, events: pl.DataFrame, item_ids: pa.ChunkedArray) -> KeyedSessions:
    """Return the sessions to score: proportionally fewer of a catalogue beyond `quality.exact_items`."""
    split = ctx.recipe.split
    return keyed_sessions(events, split, item_ids, most=ctx.recipe.quality.num_sessions(len(item_ids), split.max_sessions))


def _categories(ctx: RunContext, item_ids: pa.ChunkedArray) -> npt.NDArray[np.int64] | None:
    """Return a number per item: its category at the first depth of the paths that tells items apart, −1 without one."""
    rows = _rows_of(ctx.read("items", ["item_id", "category"]), item_ids)["category"]
    longest = max((len(path) for path in rows.unique() if path is not None), default=0)
    for depth in range(longest):
        names = rows.list.get(depth, null_on_oob=True)
        if names.drop_nulls().n_unique() > 1:
            return names.rank("dense").fill_null(0).cast(pl.Int64).to_numpy() - 1
    return None


def _popularity(ctx: RunContext, events: pl.DataFrame | None, item_ids: pa.ChunkedArray) -> npt.NDArray[np.int64] | None:
    """Return how many of the events that may be learned from name each item."""
    if events is None:
        return None
    counts = training_events(events, ctx.recipe.split).group_by("item_id").len()
    return _rows_of(counts.to_arrow(), item_ids)["len"].fill_null(0).cast(pl.Int64).to_numpy()


def _former(ctx: RunContext, items: pa.Table, unaligned_NL: npt.NDArray[np.integer[Any]]) -> Former | None:
    """Return the codes that the items had in the generation before; None within a generation, where none may change."""
    base, codes_NL = ctx.base, former_codes(ctx, items)
    if base is None or base.generation == ctx.generation or codes_NL is None:
        return None
    widths = level_widths(ctx.warehouse, base)
    return Former(codes_NL=codes_NL, widths=widths, unaligned_NL=unaligned_NL) if len(widths) == unaligned_NL.shape[1] else None


def _leaked_share(sessions: Sessions | None, found: pl.DataFrame) -> float | None:
    return None if sessions is None or not sessions.num_sessions else len(found) / sessions.num_sessions


def _described(ctx: RunContext, sids: pa.Table) -> pl.DataFrame:
    titles = _rows_of(ctx.read("items", ["item_id", "title"]), sids.column("item_id"))
    return titles.with_columns(
        pl.col("title").fill_null(""),
        pl.Series("move_cost", sids.column("move_cost").to_numpy()),
        pl.Series("residual_norm", sids.column("residual_norm").to_numpy()),
    )


def _rows_of(table: pa.Table, item_ids: pa.ChunkedArray) -> pl.DataFrame:
    """Return the rows of `table` in the order of `item_ids`, nulls where it has none."""
    wanted, rows = pl.DataFrame({"item_id": pl.from_arrow(item_ids)}), pl.from_arrow(table)
    assert isinstance(rows, pl.DataFrame)
    return wanted.join(rows, on="item_id", how="left", maintain_order="left")


def _input_space(fusion: Fusion, fused_ND: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return fused vectors mapped back to the encoders' spaces, side by side."""
    return np.concatenate(list(fusion.inverse(fused_ND.astype(np.float32)).values()), axis=1)
