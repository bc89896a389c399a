"""The report asset: a page that explains the release that a run has published."""

from pathlib import Path
from typing import Any

import dagster as dg

from sidlake.assets.evidence import as_metadata
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import SidlakeResource
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.releases import get

__all__ = ["quality_report"]


@dg.asset(
    deps=["release"],
    group_name="quality",
    owners=OWNERS,
    kinds={"matplotlib", "html"},
    code_version=CODE_VERSION,
    retry_policy=IO_RETRIES,
)
def quality_report(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
    """One HTML page on the release: its verdict, every metric with limit and history, charts, and the SIDs to browse.

    The release is public before this runs, so a page that cannot be written fails this asset alone.
    """
    ctx, report, seconds = sidlake.run_step(context, STEPS["report"])
    details = dict(report.details)
    path = Path(str(details.pop("path")))
    metadata = as_metadata({"skipped": report.skipped, "seconds": round(seconds, 3), "file_bytes": path.stat().st_size} | details)
    return dg.MaterializeResult(
        metadata=metadata | {"path": dg.MetadataValue.path(path)}, data_version=dg.DataVersion(get(ctx.warehouse).release_id)
    )
