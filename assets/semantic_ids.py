"""The assets that make semantic IDs: a generation's codebooks, and one unique SID per item."""

from typing import Any

import dagster as dg
import numpy as np
import numpy.typing as npt

from sidlake.assets.evidence import MetadataMap, result_of
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.plots import code_usage
from sidlake.assets.resources import SidlakeResource
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.steps import STEPS

__all__ = ["codebooks", "semantic_ids"]


@dg.asset(
    deps=["fused_embeddings"],
    group_name="semantic_ids",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    code_version=CODE_VERSION,
    pool="gpu",
    retry_policy=IO_RETRIES,
)
def codebooks(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Codebooks of a generation, by residual k-means; fitted anew by retrain when items or vectors have changed."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["fit"])
    counts = [counts_K for _, counts_K in _fitted(ctx)]
    picture: MetadataMap = {"code_usage": code_usage(f"raw codes at fit time, generation {ctx.generation}", counts)}
    return result_of("codebooks", ctx, report, seconds, table="codebooks", more=picture)


@dg.asset(
    deps=["items", "fused_embeddings", "codebooks"],
    group_name="semantic_ids",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def semantic_ids(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """One item, one SID; published SIDs stay where they are, new items take free codes near their vector."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["assign"])
    columns = [f"code_{level}" for level, _ in _fitted(ctx)]
    codes = ctx.read("semantic_ids", columns)
    counts = [
        np.bincount(codes.column(name).to_numpy(), minlength=len(counts_K))
        for name, (_, counts_K) in zip(columns, _fitted(ctx), strict=True)
    ]
    picture: MetadataMap = {"code_usage": code_usage(f"published codes, generation {ctx.generation}", counts)}
    return result_of("semantic_ids", ctx, report, seconds, table="semantic_ids", more=picture)


def _fitted(ctx: RunContext) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """Return (level, items per code at fit time) for each level of the generation in force."""
    rows = ctx.read("codebooks", ["level", "code", "count"]).sort_by([("level", "ascending"), ("code", "ascending")])
    levels, counts = rows.column("level").to_numpy(), rows.column("count").to_numpy()
    return [(level, counts[levels == level]) for level in range(levels.max() + 1)]
