"""Interactions have a partition per day: runs put down the days they bring, and a backfill publishes what an ordinary run does."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest

from sidlake.assets.definitions import defs
from sidlake.warehouse.releases import current, history
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
INTERACTIONS = dg.AssetKey("interactions")
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


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
        shop.filled = instance.get_materialized_partitions(INTERACTIONS)
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


def released(shop):
    return current(Warehouse(shop.folder / "w"))


def test_a_run_without_partitions_puts_down_the_days_it_has_brought(trained):
    assert trained.filled == set(trained.days[:-3])


def test_a_backfill_of_three_days_publishes_what_an_ordinary_refresh_does(trained, tmp_path):
    ordinary, backfilled = with_new_days(trained, tmp_path / "a"), with_new_days(trained, tmp_path / "b")
    with SAMPLE.instance() as instance:
        assert execute(ordinary, "refresh", instance).success
        assert instance.get_materialized_partitions(INTERACTIONS) == set(trained.days[-3:])
    with SAMPLE.instance() as instance:
        days = {START: trained.days[-3], END: trained.days[-1]}
        assert execute(backfilled, "refresh", instance, **days).success
        assert set(trained.days[-3:]) <= instance.get_materialized_partitions(INTERACTIONS)
    assert released(ordinary).release_id == released(backfilled).release_id == "r000002"
    assert released(ordinary).content_hash == released(backfilled).content_hash


def test_a_backfill_of_days_that_are_there_publishes_nothing(trained, tmp_path):
    shop = SimpleNamespace(folder=tmp_path / "copy")
    shutil.copytree(trained.folder, shop.folder)
    with SAMPLE.instance() as instance:
        assert execute(shop, "refresh", instance, **{START: trained.days[0], END: trained.days[2]}).success
    assert len(history(Warehouse(shop.folder / "w"))) == 1


def test_a_backfill_is_one_run_whatever_its_days():
    policy = defs.resolve_asset_graph().get(INTERACTIONS).backfill_policy
    assert policy is not None
    assert policy.max_partitions_per_run is None
