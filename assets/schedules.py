"""When the jobs run by themselves: refresh every day, retrain every week. Off until asked for (see `resources.Settings`).

After a rollback a tick asks for nothing and says why, until the hold is lifted: a failed run every night would tell no more.
"""

import dagster as dg

from sidlake.assets.jobs import refresh, retrain
from sidlake.assets.resources import Settings, SidlakeResource

__all__ = ["schedules_for"]


def schedules_for(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return the daily and the weekly schedule, in UTC; a tick that finds nothing new publishes nothing."""
    status = dg.DefaultScheduleStatus.RUNNING if settings.schedules == "on" else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        job=refresh,
        cron_schedule=settings.refresh_cron,
        execution_timezone="UTC",
        default_status=status,
        description="Bring in what is new, every day.",
    )
    def daily_refresh(sidlake: SidlakeResource) -> dg.RunRequest | dg.SkipReason:
        return _unless_held(sidlake)

    @dg.schedule(
        job=retrain,
        cron_schedule=settings.retrain_cron,
        execution_timezone="UTC",
        default_status=status,
        description="Learn a new generation and train the recommender, every week.",
    )
    def weekly_retrain(sidlake: SidlakeResource) -> dg.RunRequest | dg.SkipReason:
        return _unless_held(sidlake)

    return [daily_refresh, weekly_retrain]


def _unless_held(sidlake: SidlakeResource) -> dg.RunRequest | dg.SkipReason:
    held = sidlake.held()
    return dg.SkipReason(held) if held else dg.RunRequest()
