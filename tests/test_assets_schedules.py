from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from sidlake.assets.definitions import defs
from sidlake.assets.resources import Settings
from sidlake.assets.schedules import schedules_for

DAILY, WEEKLY = schedules_for(Settings())


def test_refresh_is_daily_at_five_and_retrain_weekly_on_sunday_at_three():
    assert (DAILY.job_name, DAILY.cron_schedule, DAILY.execution_timezone) == ("refresh", "0 5 * * *", "UTC")
    assert (WEEKLY.job_name, WEEKLY.cron_schedule, WEEKLY.execution_timezone) == ("retrain", "0 3 * * SUN", "UTC")


@pytest.mark.parametrize(("schedules", "status"), [("off", "STOPPED"), ("on", "RUNNING")])
def test_schedules_run_by_themselves_only_where_asked_for(schedules, status):
    assert {schedule.default_status.value for schedule in schedules_for(Settings(schedules=schedules))} == {status}


@pytest.mark.parametrize("name", ["daily_refresh", "weekly_retrain"])
def test_a_tick_asks_for_one_run(name):
    schedule = defs.resolve_schedule_def(name)
    context = dg.build_schedule_context(scheduled_execution_time=datetime(2026, 1, 4, 3, tzinfo=UTC))
    (request,) = schedule.evaluate_tick(context).run_requests
    assert request.tags["dagster/schedule_name"] == name
