"""The step that measures a run's semantic IDs and judges them by the recipe's gates, for the release step to re-read.

Memory: four float32 matrices of the items' fused vectors and reconstructions, 16 * D bytes per item.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sidlake.encoders.fusion import Fusion
from sidlake.pipelines.context import RunContext, StepReport
from sidlake.pipelines.embeddings import load_fusion
from sidlake.pipelines.generations import fused_vectors, load_generation
from sidlake.pipelines.split import hit_rate_sessions, ordered_events
from sidlake.pipelines.vectors import as_codes
from sidlake.quality.gates import Metric, Verdict, judge, to_table
from sidlake.quality.measure import measure
from sidlake.quality.sessions import Sessions
from sidlake.warehouse.contracts import conform

__all__ = ["check_quality"]


def check_quality(ctx: RunContext) -> StepReport:
    """Write metrics and verdicts to `sid_quality`; a verdict ``refuse`` is for the release step to act on."""
    inputs = ["semantic_ids", "interactions"] if ctx.recipe.interactions else ["semantic_ids"]
    config = [ctx.recipe.gates, ctx.recipe.split, ctx.facts["codebook_hash"]]
    if ctx.unchanged("check", inputs=inputs, outputs=["sid_quality"], config=config):
        return StepReport(step="check", skipped=True)
    verdicts = judge(_measure(ctx), ctx.recipe.gates)
    rows = conform(to_table(verdicts), "sid_quality")
    ctx.write("sid_quality", rows)
    ctx.note(metrics={v.metric: v.value for v in verdicts if v.level is None and v.value is not None})
    return StepReport(step="check", rows={"sid_quality": len(rows)}, details={"verdict": worst(verdicts)})


def worst(verdicts: list[Verdict]) -> str:
    """Return the verdict on the whole: refuse if any refuses, else warn if any warns, else pass."""
    found = {verdict.verdict for verdict in verdicts}
    return next((verdict for verdict in ("refuse", "warn") if verdict in found), "pass")


def _measure(ctx: RunContext) -> list[Metric]:
    model, fusion = load_generation(ctx), load_fusion(ctx)
    items, x_ND = fused_vectors(ctx)
    sids = ctx.read("semantic_ids", ["item_id", "codes", "raw_codes"]).sort_by("item_id")
    assert sids.column("item_id").to_pylist() == items.column("item_id").to_pylist(), "items and semantic_ids differ"
    return measure(
        as_codes(sids.column("raw_codes")),
        as_codes(sids.column("codes")),
        widths=model.widths,
        vectors_ND=x_ND,
        decode=lambda codes_NL: model.decode(codes_NL, depth=codes_NL.shape[1]),
        sessions=_sessions(ctx, items),
        to_input_space=lambda fused_ND: _input_space(fusion, fused_ND),
    )


def _sessions(ctx: RunContext, items: pa.Table) -> Sessions | None:
    if ctx.recipe.interactions is None:
        return None
    events = ordered_events(ctx.read("interactions", ["user_id", "item_id", "ts"]))
    return hit_rate_sessions(events, ctx.recipe.split, items.column("item_id"))


def _input_space(fusion: Fusion, fused_ND: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return fused vectors mapped back to the encoders' spaces, side by side."""
    return np.concatenate(list(fusion.inverse(fused_ND.astype(np.float32)).values()), axis=1)
