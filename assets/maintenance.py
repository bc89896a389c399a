"""The weekly upkeep as a job: the current release in few files, without what it does not need, and the rest freed."""

import dagster as dg

from sidlake.assets.evidence import as_metadata
from sidlake.assets.failures import IO_RETRIES, failing_fast
from sidlake.assets.resources import WAREHOUSE_TAG, SidlakeResource
from sidlake.assets.settings import Settings
from sidlake.pipelines.maintain import maintain
from sidlake.pipelines.run import RunContext

__all__ = ["maintenance_for"]


def maintenance_for(settings: Settings) -> dg.JobDefinition:
    """Return the job of a catalogue."""

    @dg.op(name=settings.named("maintain"), required_resource_keys={settings.resource}, retry_policy=IO_RETRIES)
    def upkeep(context: dg.OpExecutionContext) -> None:
        """Compact, publish the same content, vacuum; what was done is the op's metadata."""
        sidlake: SidlakeResource = getattr(context.resources, settings.resource)
        with failing_fast():
            run = RunContext.open(
                sidlake.open_warehouse(),
                sidlake.load_recipe(),
                run_id=context.run_id,
                job="refresh",
                reason="maintenance",
                memory=sidlake.memory_limit(),
            )
            done = maintain(run)
        freed = sum(done.freed.bytes.values())
        shown = {"compacted": done.compacted, "release": done.release.details["release"], "bytes_freed": freed}
        context.add_output_metadata(as_metadata(shown))

    @dg.job(
        name=settings.named("maintenance"),
        tags={WAREHOUSE_TAG: settings.tag},
        description="Write tables of many small files anew, as a release of the same content, and free what no live release needs.",
        executor_def=dg.in_process_executor,
    )
    def maintenance() -> None:
        upkeep()

    return maintenance
