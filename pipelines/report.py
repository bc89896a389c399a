"""The last step of a run: the release that it published, explained on a page.

The release is public by then, so what goes wrong here says so by name and takes nothing back.
"""

from __future__ import annotations

from sidlake.pipelines.run import RunContext, StepReport
from sidlake.reports.files import report_path, write_report
from sidlake.reports.report import verdict_of
from sidlake.warehouse.releases import get

__all__ = ["write_quality_report"]


def write_quality_report(ctx: RunContext) -> StepReport:
    """Write the report of the current release, unless it has one: a run that published nothing has nothing new to explain."""
    release = get(ctx.warehouse)
    path = report_path(ctx.warehouse, release.release_id)
    if path.exists():
        return StepReport(step="report", skipped=True, details={"path": str(path), "verdict": verdict_of(ctx.warehouse, release)})
    about = write_report(ctx.warehouse, release.release_id, root=ctx.recipe.folder)
    return StepReport(step="report", details={"path": about["path"], "verdict": about["verdict"]})
