"""The catalogue's assets: items and rejected rows from one reading of the sources, and interactions, with a partition per day.

The jobs read whatever files are new, so their runs name no partition; the days that a run has brought are put down as materialized
partitions of `interactions`. A run that does name days (a backfill in the UI or by its API, one run for all of them) goes the same
way and publishes the same release: files say by their digests what there is to read, not the run.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from sidlake.assets.evidence import result_of
from sidlake.assets.failures import IO_RETRIES
from sidlake.assets.ownership import CODE_VERSION, OWNERS
from sidlake.assets.resources import Settings, SidlakeResource
from sidlake.pipelines.ingest.step import days_brought
from sidlake.pipelines.run import RunContext, Step, StepReport, run_step
from sidlake.pipelines.steps import STEPS

__all__ = ["catalog", "interactions_for"]

_ABOUT = {
    "items": "The catalogue: one row per item, with the text that is embedded and a hash of its content.",
    "rejected_rows": "Input rows that broke a rule of the recipe, with the rule's name and the value.",
}


@dg.multi_asset(
    specs=[
        dg.AssetSpec(
            table,
            group_name="catalog",
            description=about,
            owners=OWNERS,
            kinds={"polars", "deltalake"},
            code_version=CODE_VERSION,
        )
        for table, about in _ABOUT.items()
    ],
    retry_policy=IO_RETRIES,
)
def catalog(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> Iterator[dg.MaterializeResult[Any]]:
    """Ingest the recipe's sources; skipped while files and recipe are the same."""
    ctx, report, seconds = sidlake.run_step(context, STEPS["ingest"])
    for table in _ABOUT:
        yield result_of(table, ctx, report, seconds, table=table)


def _events(ctx: RunContext) -> StepReport:
    """Return what this run has ingested of `interactions`; a run that has not ingested yet does it now."""
    if "ingest" not in ctx.state.done:
        run_step(ctx, STEPS["ingest"])
    days = days_brought(ctx)
    return StepReport(step="interactions", skipped=not days, rows={"interactions": sum(days.values())}, details={"days": len(days)})


_EVENTS = Step(name="interactions", run=_events, skips=False)


def interactions_for(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset `interactions` with a partition per day from the setting's first day on."""

    @dg.asset(
        deps=["items"],
        group_name="catalog",
        owners=OWNERS,
        kinds={"polars", "deltalake"},
        code_version=CODE_VERSION,
        retry_policy=IO_RETRIES,
        partitions_def=dg.DailyPartitionsDefinition(start_date=settings.first_day),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def interactions(context: dg.AssetExecutionContext, sidlake: SidlakeResource) -> dg.MaterializeResult[Any]:
        """Who did what with which item and when, partitioned by day; empty for a catalogue without events."""
        ctx, report, seconds = sidlake.run_step(context, _EVENTS)
        asked = context.partition_keys if context.has_partition_key or context.has_partition_key_range else []
        for day, rows in days_brought(ctx).items():
            if day not in asked:
                counted = {"dagster/row_count": dg.MetadataValue.int(rows)}
                context.log_event(dg.AssetMaterialization("interactions", partition=day, metadata=counted))
        return result_of("interactions", ctx, report, seconds, table="interactions")

    return interactions
