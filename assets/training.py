"""The downstream consumer as an asset: a recommender trained on the current release, with its scores beside two baselines."""

from typing import Any

import dagster as dg
import polars as pl

from sidlake.assets.evidence import MetadataMap, as_metadata, column_schema, preview, report_metadata
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.generative.judging.judge import HEADLINES
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.releases import get

__all__ = ["recommender"]


@dg.asset(
    deps=["release", "semantic_ids", "user_sequences", "sid_trie"],
    group_name="training",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    code_version=CODE_VERSION,
    pool="gpu",
    retry_policy=IO_RETRIES,
)
def recommender(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """Model in the style of TIGER, trained on the release's tables: its checkpoint, scores and recommendations name the release."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["train"])
    metadata = report_metadata(report, seconds, "model_metrics") | _recommendations(ctx) | _scores(ctx)
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(str(report.details.get("checkpoint", "none"))))


def _recommendations(ctx: RunContext) -> MetadataMap:
    """Return count, contract and preview of what is recommended on the current release; a count of 0 without a trainer."""
    if not ctx.warehouse.exists("recommendations"):
        return as_metadata({"dagster/row_count": 0, "absent": True})
    rows = ctx.warehouse.scan("recommendations").filter(pl.col("release_id") == get(ctx.warehouse).release_id)
    return {
        "dagster/row_count": dg.MetadataValue.int(rows.select(pl.len()).collect().item()),
        "dagster/column_schema": column_schema(ctx.warehouse.schema("recommendations")),
        "preview": preview(rows.sort("user_id", "rank").head(10).collect()),
    }


def _scores(ctx: RunContext) -> MetadataMap:
    """Return the scores of the models and baselines on the current release, one number each."""
    if not ctx.warehouse.exists("model_metrics"):
        return {}
    of_release = pl.col("release_id") == get(ctx.warehouse).release_id
    rows = ctx.warehouse.scan("model_metrics").filter(of_release & pl.col("metric").is_in(HEADLINES)).collect()
    return as_metadata({f"{row['model']} {row['metric']} ({row['split']})": row["value"] for row in rows.to_dicts()})
