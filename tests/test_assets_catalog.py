"""Runs say which days of interactions they bring."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest

from sidlake.assets.definitions import defs

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A shop whose events lie in a file per day, after a retrain on all but the last three days; where those files wait."""
    folder = tmp_path_factory.mktemp("shop")
    recipe = SAMPLE.write_shop(folder, more=SAMPLE.INTERACTIONS.replace("events.parquet", "events"))
    events = pl.read_parquet(folder / "events.parquet").with_columns(pl.col("ts").dt.strftime("%Y-%m-%d").alias("day"))
    (folder / "events.parquet").unlink()
    days = events["day"].unique().sort().to_list()
    for day in days:
        place = folder / ("events" if day < days[-3] else "later") / f"{day}.parquet"
        place.parent.mkdir(exist_ok=True)
        events.filter(pl.col("day") == day).drop("day").write_parquet(place)
    shop = SimpleNamespace(folder=folder, recipe=recipe, days=days)
    with SAMPLE.instance() as instance:
        assert execute(shop, "retrain", instance).success
    return shop


def execute(shop, job, instance, **tags):
    resource = SAMPLE.resource(shop.folder / "w", shop.folder / "recipe.toml")
    config = {"resources": {"sidlake": {"config": {"warehouse": resource.warehouse, "recipe": resource.recipe}}}}
    return defs.resolve_job_def(job).execute_in_process(run_config=config, instance=instance, tags=tags)


def with_new_days(trained, folder):
    """Return a copy of the trained shop that has the files of the last three days."""
    shutil.copytree(trained.folder, folder)
    for file in (folder / "later").iterdir():
        shutil.copy(file, folder / "events")
    return SimpleNamespace(folder=folder, days=trained.days)


def test_a_run_says_which_days_it_has_brought_and_how_many_rows_of_each(trained, tmp_path):
    shop = with_new_days(trained, tmp_path / "a")
    with SAMPLE.instance() as instance:
        assert execute(shop, "refresh", instance).success
        event = instance.get_latest_materialization_event(dg.AssetKey("interactions"))
    found = event.asset_materialization.metadata
    assert found["days_brought"].value == 3
    assert sorted(found["rows_by_day"].value) == trained.days[-3:]
    assert sum(found["rows_by_day"].value.values()) == found["rows_written"].value


def test_a_refresh_is_a_run_without_partitions():
    assert defs.resolve_job_def("refresh").partitions_def is None
