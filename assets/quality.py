"""The quality asset: what was measured and judged, each metric as a number that the UI draws over time."""

from typing import Any

import dagster as dg

from sidlake.assets.evidence import MetadataMap, as_metadata, result_of
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.steps import STEPS

__all__ = ["sid_quality"]


@dg.asset(
    deps=["interactions", "fused_embeddings", "semantic_ids"],
    group_name="quality",
    owners=OWNERS,
    kinds={"numpy", "deltalake"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def sid_quality(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Collisions, utilisation, fidelity and embedding hit rate of the SIDs, and the verdict of each of the recipe's gates."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["check"])
    return result_of("sid_quality", ctx, report, seconds, table="sid_quality", more=_measured(ctx))


def _measured(ctx: RunContext) -> MetadataMap:
    rows = [row for row in ctx.read("sid_quality").to_pylist() if row["value"] is not None]
    names = {True: "{metric}", False: "{metric} level {level}"}
    return as_metadata({names[row["level"] is None].format(**row): float(row["value"]) for row in rows})
