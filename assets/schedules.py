"""When the jobs run by themselves: refresh every day, retrain every week. Off until asked for (see `resources.Settings`)."""

import dagster as dg

from sidlake.assets.jobs import refresh, retrain
from sidlake.assets.resources import Settings

__all__ = ["schedules_for"]


def schedules_for(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return the daily and the weekly schedule, in UTC; a tick that finds nothing new publishes nothing."""
    status = dg.DefaultScheduleStatus.RUNNING if settings.schedules == "on" else dg.DefaultScheduleStatus.STOPPED
    return [
        dg.ScheduleDefinition(
            name="daily_refresh",
            job=refresh,
            cron_schedule=settings.refresh_cron,
            execution_timezone="UTC",
            default_status=status,
            description="Bring in what is new, every day.",
        ),
        dg.ScheduleDefinition(
            name="weekly_retrain",
            job=retrain,
            cron_schedule=settings.retrain_cron,
            execution_timezone="UTC",
            default_status=status,
            description="Learn a new generation and train the recommender, every week.",
        ),
    ]
