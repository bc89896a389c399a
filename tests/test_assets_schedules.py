from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest
import warehouse_sample as sample

from sidlake.assets.definitions import defs
from sidlake.assets.jobs import jobs_for
from sidlake.assets.maintenance import maintenance_for
from sidlake.assets.resources import SidlakeResource
from sidlake.assets.schedules import schedules_for
from sidlake.assets.settings import Settings
from sidlake.warehouse.holds import lift
from sidlake.warehouse.releases import publish, rollback
from sidlake.warehouse.tables import Warehouse

DAILY, WEEKLY, UPKEEP = schedules_for(Settings(), jobs_for(Settings()), maintenance_for(Settings()))


def test_refresh_is_daily_at_five_and_retrain_weekly_on_sunday_at_three():
    assert (DAILY.job_name, DAILY.cron_schedule, DAILY.execution_timezone) == ("refresh", "0 5 * * *", "UTC")
    assert (WEEKLY.job_name, WEEKLY.cron_schedule, WEEKLY.execution_timezone) == ("retrain", "0 3 * * SUN", "UTC")
    assert (UPKEEP.job_name, UPKEEP.cron_schedule, UPKEEP.execution_timezone) == ("maintenance", "0 7 * * SUN", "UTC")


@pytest.mark.parametrize(("schedules", "status"), [("off", "STOPPED"), ("on", "RUNNING")])
def test_schedules_run_by_themselves_only_where_asked_for(schedules, status):
    assert {
        schedule.default_status.value
        for schedule in schedules_for(Settings(schedules=schedules), jobs_for(Settings()), maintenance_for(Settings()))
    } == {status}


@pytest.mark.parametrize("name", ["daily_refresh", "weekly_retrain", "weekly_maintenance"])
def test_a_tick_asks_for_one_run(name, tmp_path):
    schedule = defs.resolve_schedule_def(name)
    (request,) = tick(schedule, tmp_path).run_requests
    assert request.tags["dagster/schedule_name"] == name


@pytest.mark.parametrize("name", ["daily_refresh", "weekly_retrain", "weekly_maintenance"])
def test_after_a_rollback_a_tick_asks_for_nothing_and_says_why_until_the_hold_is_lifted(name, tmp_path):
    schedule, warehouse = defs.resolve_schedule_def(name), Warehouse.create_or_open(tmp_path / "w")
    publish(warehouse, sample.draft(sample.write(warehouse)), expected_parent=None)
    back = rollback(warehouse, "r000001", "the prices were wrong")
    found = tick(schedule, tmp_path)
    assert found.run_requests == []
    assert "held by rollback r000002" in found.skip_message
    assert "the prices were wrong; lift it with: sidlake resume" in found.skip_message
    lift(warehouse, back, reason="mended")
    assert len(tick(schedule, tmp_path).run_requests) == 1


def tick(schedule, folder):
    """Evaluate one tick with the warehouse below `folder`."""
    resource = SidlakeResource(warehouse=str(folder / "w"), recipe="none.toml")
    at = datetime(2026, 1, 4, 3, tzinfo=UTC)
    with dg.build_schedule_context(scheduled_execution_time=at, resources={"sidlake": resource}) as context:
        return schedule.evaluate_tick(context)
