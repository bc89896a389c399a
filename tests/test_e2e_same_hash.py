"""Law 4 where other tests do not look: the same inputs, recipe and seed give the same release on another day, elsewhere."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))


def _retrain(folder, day):
    """Write the sample shop below `folder` and run it there as if on `day`; return the release."""
    recipe = SAMPLE.write_shop(folder / "source", more=SAMPLE.INTERACTIONS + SAMPLE.BEHAVIOUR)
    warehouse = Warehouse.create_or_open(folder / "lake")
    ctx = RunContext.open(warehouse, load_recipe(recipe), run_id="run", job="retrain")
    ctx.now = day
    run_job(ctx)
    return warehouse, get(warehouse)


def test_another_day_and_another_directory_give_the_same_content_hash(tmp_path):
    here, first = _retrain(tmp_path / "here", datetime(2027, 1, 1, tzinfo=UTC))
    there, second = _retrain(tmp_path / "over there", datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC))
    assert second.content_hash == first.content_hash
    assert second.trained_on == first.trained_on
    assert second.trained_on["items"] == second.trained_on["sample"] == 60
    days = [set(lake.read("semantic_ids", columns=["assigned_at"])["assigned_at"].to_pylist()) for lake in (here, there)]
    assert days[0].isdisjoint(days[1])  # the runs did differ in what they say of time
