from __future__ import annotations

import os
import runpy
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from sidlake.assets.jobs import jobs_for
from sidlake.assets.resources import REASON_TAG
from sidlake.assets.sensors import drift_sensor_for, source_sensor_for
from sidlake.assets.settings import Settings
from sidlake.quality.drift import DriftConfig, signals
from sidlake.warehouse.holds import lift
from sidlake.warehouse.releases import publish, rollback

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
RELEASED = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("warehouse_sample.py"))))
SENSOR = source_sensor_for(Settings(), jobs_for(Settings()))


@pytest.fixture
def shop(tmp_path):
    """Sources, a recipe and a warehouse that holds a release."""
    recipe = SAMPLE.write_shop(tmp_path)
    resource = SAMPLE.resource(tmp_path / "w", recipe)
    warehouse = resource.open_warehouse()
    publish(warehouse, RELEASED.draft(RELEASED.write(warehouse)), expected_parent=None)
    return SimpleNamespace(folder=tmp_path, resource=resource)


def tick(shop, cursor=None, instance=None):
    with (
        dg.DagsterInstance.ephemeral() as other,
        dg.build_sensor_context(
            cursor=cursor, resources={"sidlake": shop.resource}, instance=instance or other, sensor_name=SENSOR.name
        ) as context,
    ):
        return SENSOR.evaluate_tick(context)


def test_the_first_look_asks_for_a_refresh_so_that_nothing_is_missed(shop):
    result = tick(shop)
    assert len(result.run_requests) == 1
    assert SENSOR.job_name == "refresh"


def test_files_that_did_not_change_ask_for_nothing(shop):
    result = tick(shop, cursor=tick(shop).cursor)
    assert result.skip_message


def test_after_a_rollback_a_changed_file_asks_for_nothing_until_the_hold_is_lifted(shop):
    warehouse = shop.resource.open_warehouse()
    back = rollback(warehouse, "r000001", "the prices were wrong")
    found = tick(shop)
    assert found.skip_message
    assert "held by rollback r000002" in found.skip_message
    lift(warehouse, back, reason="mended")
    assert len(tick(shop).run_requests) == 1


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_changed_file_asks_once_under_its_own_key(shop, change):
    before = tick(shop)
    file = shop.folder / "events.parquet"
    if change == "size":
        file.write_bytes(file.read_bytes() + b"x")
    else:
        os.utime(file, ns=(0, 12_345))
    after = tick(shop, cursor=before.cursor)
    assert after.run_requests[0].run_key != before.run_requests[0].run_key
    assert tick(shop, cursor=after.cursor).skip_message


def test_files_that_are_again_as_they_were_ask_again(shop):
    file = shop.folder / "events.parquet"
    first = file.stat()
    seen = [tick(shop)]
    for time in (first.st_mtime_ns + 10**9, first.st_mtime_ns):
        os.utime(file, ns=(time, time))
        seen.append(tick(shop, cursor=seen[-1].cursor))
    assert len({result.run_requests[0].run_key for result in seen}) == 3


def test_the_same_state_has_the_same_key_so_that_a_lost_cursor_starts_no_second_run(shop):
    assert tick(shop).run_requests[0].run_key == tick(shop).run_requests[0].run_key


def run_for(instance, result, status):
    """Store a run as the daemon starts it for a request of the sensor."""
    tags = {"dagster/run_key": result.run_requests[0].run_key, "dagster/sensor_name": SENSOR.name}
    instance.add_run(dg.DagsterRun(job_name="refresh", status=status, tags=tags))


def test_a_refresh_that_failed_is_asked_for_again_after_a_pause_that_doubles(shop, monkeypatch):
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(shop, instance=instance)
        run_for(instance, first, dg.DagsterRunStatus.FAILURE)
        assert "failed 1 times" in tick(shop, cursor=first.cursor, instance=instance).skip_message
        monkeypatch.setattr("sidlake.assets.sensors._FIRST_PAUSE", timedelta(0))
        again = tick(shop, cursor=first.cursor, instance=instance)
        assert again.run_requests[0].run_key != first.run_requests[0].run_key
        run_for(instance, again, dg.DagsterRunStatus.FAILURE)
        monkeypatch.setattr("sidlake.assets.sensors._FIRST_PAUSE", timedelta(hours=1))
        assert "failed 2 times" in tick(shop, cursor=again.cursor, instance=instance).skip_message


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELED])
def test_a_refresh_that_goes_well_or_goes_on_or_that_somebody_ended_is_not_asked_for_again(shop, monkeypatch, status):
    monkeypatch.setattr("sidlake.assets.sensors._FIRST_PAUSE", timedelta(0))
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(shop, instance=instance)
        run_for(instance, first, status)
        assert tick(shop, cursor=first.cursor, instance=instance).skip_message == "no source file has changed"


def test_a_missing_file_is_named_and_asks_for_nothing(shop):
    (shop.folder / "items.parquet").unlink()
    assert "no file for a source: source items" in tick(shop).skip_message


def test_before_the_first_release_the_sensor_waits_for_retrain(tmp_path):
    resource = SAMPLE.resource(tmp_path / "w", SAMPLE.write_shop(tmp_path))
    assert "retrain" in tick(SimpleNamespace(resource=resource)).skip_message


@pytest.mark.parametrize(("schedules", "status"), [("off", "STOPPED"), ("on", "RUNNING")])
def test_the_sensor_runs_by_itself_only_where_asked_for(schedules, status):
    assert source_sensor_for(Settings(schedules=schedules), jobs_for(Settings())).default_status.value == status


# ---------------------------------------------------------------------------------------------------------------------- drift

DRIFT = drift_sensor_for(Settings(), jobs_for(Settings()))


def drift_tick(shop, cursor=None):
    with dg.build_sensor_context(cursor=cursor, resources={"sidlake": shop.resource}) as context:
        return DRIFT.evaluate_tick(context)


def limit(shop, text):
    path = Path(shop.resource.recipe)
    path.write_text(path.read_text() + "\n[drift]\n" + text)


def test_a_generation_that_keeps_its_limits_asks_for_nothing(shop):
    assert "keeps the limits" in drift_tick(shop).skip_message


def test_a_code_space_that_fills_asks_for_a_retrain_once_and_says_why(shop):
    limit(shop, "max_capacity_share = 0.0")
    result = drift_tick(shop)
    (request,) = result.run_requests
    assert DRIFT.job_name == "retrain"
    assert "the share of the code space in use is" in request.tags[REASON_TAG]
    assert "asked for already" in drift_tick(shop, cursor=result.cursor).skip_message


def test_before_the_first_release_drift_waits_for_retrain(tmp_path):
    resource = SAMPLE.resource(tmp_path / "w", SAMPLE.write_shop(tmp_path))
    assert "retrain" in drift_tick(SimpleNamespace(resource=resource)).skip_message


def test_each_signal_is_told_with_its_value_and_its_limit():
    first = {"mean_move_cost": 0.1, "ehr_reconstructed": 0.2, "staleness_share": 0.0}
    last = {"mean_move_cost": 0.4, "ehr_reconstructed": 0.1, "staleness_share": 0.3}
    limits = DriftConfig(max_staleness_share=0.2, max_move_cost_rise=0.2, max_hit_rate_loss=0.4, max_capacity_share=0.5)
    told = signals(first, last, capacity_share=0.6, config=limits)
    assert told == [
        "staleness_share is 0.3, the limit is 0.2",
        "the rise of mean_move_cost is 0.3, the limit is 0.2",
        "the share of ehr_reconstructed that was lost is 0.5, the limit is 0.4",
        "the share of the code space in use is 0.6, the limit is 0.5",
    ]
    assert signals(first, first, capacity_share=0.5, config=limits) == []
