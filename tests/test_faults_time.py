"""Time: clocks that are set back, machines in other zones, summer time, 29 February; days are UTC days everywhere."""

import time
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
import warehouse_sample as sample

from sidlake.pipelines.ingest.reading import ingest
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import new_run_id
from sidlake.warehouse import releases
from sidlake.warehouse.catalog import query
from sidlake.warehouse.releases import current, history, publish, rollback
from sidlake.warehouse.tables import Warehouse

RECIPE = """
name = "t"
[sources.items]
path = "items.parquet"
[sources.events]
path = "events.parquet"
[items]
source = "items"
item_id = "id"
title = { column = "name" }
[interactions]
source = "events"
user_id = "user"
item_id = "item"
ts = "at"
"""


def ingested(folder, instants, now=datetime(2028, 3, 2, tzinfo=UTC)):
    """Return the interactions made of one event at each instant."""
    pl.DataFrame({"id": ["a"], "name": ["cup"]}).write_parquet(folder / "items.parquet")
    events = {"user": [f"u{row}" for row in range(len(instants))], "item": ["a"] * len(instants), "at": instants}
    pl.DataFrame(events).write_parquet(folder / "events.parquet")
    (folder / "recipe.toml").write_text(RECIPE)
    return ingest(load_recipe(folder / "recipe.toml"), run_id="run", now=now).interactions


@pytest.fixture
def in_zone(monkeypatch):
    """Return a function that puts this process in a time zone."""

    def put(zone):
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield put
    monkeypatch.undo()
    time.tzset()


class SetBack(datetime):
    """A clock that was set back by a year."""

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) - timedelta(days=365)


def test_a_clock_that_was_set_back_does_not_change_which_release_is_current(tmp_path, monkeypatch):
    warehouse = Warehouse.create_or_open(tmp_path)
    publish(warehouse, sample.draft(sample.write(warehouse)), expected_parent=None)
    monkeypatch.setattr(releases, "datetime", SetBack)
    publish(warehouse, sample.draft(sample.write(warehouse, title="new")), expected_parent="r000001")
    assert rollback(warehouse, "r000001", "back").release_id == "r000003"
    assert current(warehouse).release_id == "r000003"
    times = [release.created_at for release in history(warehouse)]
    assert times == sorted(times)
    shown = query(warehouse, "SELECT release_id FROM releases ORDER BY created_at, release_id")["release_id"].to_pylist()
    assert shown == ["r000001", "r000002", "r000003"]


def test_naive_times_around_midnight_fall_on_the_same_days_in_every_zone(tmp_path, in_zone):
    instants = [datetime(2026, 3, 28, 23, 59, 59), datetime(2026, 3, 29), datetime(2026, 3, 29, 2, 30)]
    found = []
    for zone in ("UTC", "Pacific/Kiritimati", "America/Los_Angeles", "Europe/London"):
        in_zone(zone)
        found.append(ingested(tmp_path, instants))
    assert found[0]["day"].to_pylist() == ["2026-03-28", "2026-03-29", "2026-03-29"]
    assert all(other.equals(found[0]) for other in found)


def test_times_with_a_zone_become_utc_days_through_both_changes_of_summer_time(tmp_path):
    london = ZoneInfo("Europe/London")
    spring = [datetime(2026, 3, 29, 0, 59, tzinfo=london), datetime(2026, 3, 29, 2, 1, tzinfo=london)]
    autumn = [datetime(2026, 10, 25, 1, 30, tzinfo=london, fold=fold) for fold in (0, 1)]
    midnight = [datetime(2026, 7, 1, 0, 30, tzinfo=london)]  # still June in UTC
    rows = ingested(tmp_path, [*spring, *autumn, *midnight]).to_pylist()
    assert [row["ts"] for row in rows] == [instant.astimezone(UTC) for instant in (*spring, *autumn, *midnight)]
    assert rows[1]["ts"] - rows[0]["ts"] == timedelta(minutes=2)
    assert rows[3]["ts"] - rows[2]["ts"] == timedelta(hours=1)
    assert rows[4]["day"] == "2026-06-30"


def test_a_warehouse_written_in_one_zone_is_read_the_same_in_another(tmp_path, in_zone):
    in_zone("Pacific/Kiritimati")
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    tables = sample.write(warehouse)
    release = publish(warehouse, sample.draft(tables), expected_parent=None)
    rows = query(warehouse, "SELECT day, count(*) AS n FROM interactions GROUP BY day ORDER BY day").to_pylist()
    in_zone("America/Los_Angeles")
    assert query(warehouse, "SELECT day, count(*) AS n FROM interactions GROUP BY day ORDER BY day").to_pylist() == rows
    assert releases.content_hash(warehouse, tables, "g1") == release.content_hash


def test_the_29th_of_february_is_a_day_like_any_other(tmp_path):
    instants = [datetime(2028, 2, 28, 23, 59, 59), datetime(2028, 2, 29), datetime(2028, 2, 29, 23, 59, 59), datetime(2028, 3, 1)]
    rows = ingested(tmp_path, instants)
    assert rows["day"].to_pylist() == ["2028-02-28", "2028-02-29", "2028-02-29", "2028-03-01"]
    warehouse = Warehouse.create_or_open(tmp_path / "lake")
    version = warehouse.overwrite("interactions", rows, run_id=new_run_id(datetime(2028, 2, 29, 12, tzinfo=UTC)))
    stored = warehouse.scan("interactions", version=version).filter(pl.col("day") == str(date(2028, 2, 29))).collect()
    assert stored["user_id"].sort().to_list() == ["u1", "u2"]


def test_events_after_the_clock_of_a_run_on_leap_day_wait_for_the_next_run(tmp_path):
    instants = [datetime(2028, 2, 29, hour) for hour in range(20)]
    assert len(ingested(tmp_path, instants, now=datetime(2028, 2, 29, 18, tzinfo=UTC))) == 19
