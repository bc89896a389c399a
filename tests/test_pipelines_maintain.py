"""Upkeep: fewer files, the same content, nothing to do again afterwards, and the rest freed."""

import runpy
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest

from sidlake.assets.maintenance import maintenance_for
from sidlake.assets.settings import Settings
from sidlake.errors import HoldError, StaleStepError, StorageError
from sidlake.pipelines.maintain import maintain
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.keep.retention import Retention
from sidlake.warehouse.releases import current, history, rollback
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
DAYS = 9


@pytest.fixture
def shop(tmp_path):
    """A shop with a file of one event per day, released day by day."""
    recipe = SAMPLE.write_shop(tmp_path, more=SAMPLE.INTERACTIONS.replace("events.parquet", "events"))
    first = pl.read_parquet(tmp_path / "events.parquet")
    (tmp_path / "events").mkdir()
    first.write_parquet(tmp_path / "events" / "000.parquet")
    found = SimpleNamespace(folder=tmp_path, recipe=recipe, lake=Warehouse.create_or_open(tmp_path / "w"))
    run(found, "retrain")
    for day in range(1, DAYS):
        late = first.tail(1).with_columns(pl.col("ts") + timedelta(minutes=day))
        late.write_parquet(tmp_path / "events" / f"{day:03d}.parquet")
        run(found, "refresh")
    return found


def opened(shop, job="refresh"):
    return RunContext.open(shop.lake, load_recipe(shop.recipe), run_id=new_run_id(), job=job)


def run(shop, job):
    return run_job(opened(shop, job), without=["report"])


def num_files(shop, table):
    return len(shop.lake.files(table, version=current(shop.lake).tables[table]))


def test_tables_of_many_files_are_written_anew_with_the_same_content(shop):
    before, many = current(shop.lake), num_files(shop, "interactions")
    done = maintain(opened(shop))
    after = current(shop.lake)
    assert done.compacted["interactions"] == (many, num_files(shop, "interactions"))
    assert num_files(shop, "interactions") < many
    assert (after.parent, after.content_hash, after.generation) == (before.release_id, before.content_hash, before.generation)
    assert after.reason == "refresh small"


def test_after_upkeep_a_refresh_and_a_retrain_find_nothing_to_do(shop):
    maintain(opened(shop))
    known = len(history(shop.lake))
    for job in ("refresh", "retrain"):
        assert all(report.skipped for report in run(shop, job) if report.step != "ingest")
    assert len(history(shop.lake)) == known


@pytest.mark.parametrize("table", ["semantic_ids", "item_embeddings"])  # vectors are in no law and no hash
def test_upkeep_finds_a_bit_that_turned_in_a_file_of_any_table(shop, table):
    path = Path(shop.lake.files(table, version=current(shop.lake).tables[table])[-1])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match=f"not as they were published: .*{path.name}"):
        maintain(opened(shop))


def test_a_second_upkeep_writes_nothing_and_what_older_releases_had_is_freed(shop):
    maintain(opened(shop))
    done = maintain(opened(shop), retention=Retention(keep=1, days=None))
    assert done.compacted == {}
    assert done.release.skipped
    assert len(done.freed.unreadable) == DAYS
    assert all(report.skipped for report in run(shop, "refresh"))


def test_upkeep_does_not_publish_what_was_rolled_back(shop):
    rollback(shop.lake, "r000002", "a mistake")
    with pytest.raises(HoldError):
        maintain(opened(shop))


def test_upkeep_under_a_recipe_that_a_refresh_has_yet_to_follow_names_what_is_stale(shop):
    shop.recipe.write_text(shop.recipe.read_text() + '\n[[gates]]\nmetric = "unique_share"\nminimum = 0.5\n')
    with pytest.raises(StaleStepError, match="stale: check"):
        maintain(opened(shop))


def test_the_job_does_the_same_in_dagster(shop):
    job = maintenance_for(Settings())
    resource = SAMPLE.resource(shop.folder / "w", shop.recipe)
    assert job.execute_in_process(resources={"sidlake": resource}, instance=dg.DagsterInstance.ephemeral()).success
    assert current(shop.lake).release_id == f"r{DAYS + 1:06d}"
