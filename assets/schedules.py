"""When the jobs run by themselves: refresh every day, retrain and upkeep every week. Off until asked for (see `settings.Settings`).

After a rollback a tick asks for nothing and says why, until the hold is lifted: a failed run every night would tell no more.
"""

from typing import TYPE_CHECKING

import dagster as dg

from sidlake.assets.jobs import Jobs
from sidlake.assets.resources import SidlakeResource
from sidlake.assets.settings import Settings

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

__all__ = ["schedules_for"]


def schedules_for(settings: Settings, jobs: Jobs, maintenance: dg.JobDefinition) -> list[dg.ScheduleDefinition]:
    """Return the daily and the two weekly schedules, in UTC; a tick that finds nothing new publishes nothing."""
    return [
        _schedule(settings, jobs.refresh, "daily_refresh", settings.refresh_cron, "Bring in what is new, every day."),
        _schedule(
            settings, jobs.retrain, "weekly_retrain", settings.retrain_cron, "Learn a new generation and train the recommender."
        ),
        _schedule(settings, maintenance, "weekly_maintenance", settings.maintain_cron, "Write small files anew, free the rest."),
    ]


def _schedule(
    settings: Settings, job: "UnresolvedAssetJobDefinition | dg.JobDefinition", name: str, cron: str, about: str
) -> dg.ScheduleDefinition:
    @dg.schedule(
        name=settings.named(name),
        job=job,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if settings.starts() else dg.DefaultScheduleStatus.STOPPED,
        description=about,
        required_resource_keys={settings.resource},
    )
    def unless_held(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        sidlake: SidlakeResource = getattr(context.resources, settings.resource)
        held = sidlake.held()
        return dg.SkipReason(held) if held else dg.RunRequest()

    return unless_held
