"""The release asset: the one commit that lets readers see the run's tables."""

from typing import Any

import dagster as dg

from sidlake.assets.evidence import as_metadata, column_schema, preview, report_metadata
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.releases import get

__all__ = ["release"]

_SHOWN = ["release_id", "parent", "generation", "created_at", "status", "content_hash", "reason", "published_by", "override"]


@dg.asset(
    deps=[
        "items", "interactions", "rejected_rows", "fused_embeddings", "codebooks", "semantic_ids", "user_sequences", "sid_trie",
        "sid_quality",
    ],
    group_name="release",
    owners=OWNERS,
    kinds={"duckdb", "deltalake"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)  # fmt: skip
def release(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """One row that names a consistent set of table versions, appended after all laws and gates were verified again from storage.

    The checks of the assets before it stop a run early; they are not what guards publication, since a run may leave them out.
    """
    ctx, report, seconds = sidlake.run_step(context, STEPS["release"])
    ctx.warehouse.discard_staging(ctx.run_id)  # nothing is left to continue; a failed run keeps its state for re-execution
    current = get(ctx.warehouse)
    rows = ctx.warehouse.scan("releases").select(_SHOWN).sort("release_id", descending=True)
    metadata = report_metadata(report, seconds, "releases") | {
        "dagster/row_count": dg.MetadataValue.int(ctx.warehouse.num_rows("releases")),
        "dagster/column_schema": column_schema(ctx.warehouse.schema("releases")),
        "preview": preview(rows.head(10).collect()),
        "catalogue": dg.MetadataValue.path(ctx.warehouse.root / "catalog.duckdb"),
    }
    tables = as_metadata({"release": current.release_id, "generation": current.generation, "tables": current.tables})
    return dg.MaterializeResult(metadata=metadata | tables, data_version=dg.DataVersion(current.release_id))
