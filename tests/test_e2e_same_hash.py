"""Law 4 where other tests do not look: the same inputs, recipe and seed give the same release on another day, elsewhere."""

from __future__ import annotations

import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

from source_files_sample import write

from sidlake.memory import parse_size
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))


def _retrain(folder, day, **limits):
    """Write the sample shop below `folder` and run it there as if on `day`; return the release."""
    recipe = SAMPLE.write_shop(folder / "source", more=SAMPLE.INTERACTIONS + SAMPLE.BEHAVIOUR)
    warehouse = Warehouse.create_or_open(folder / "lake")
    ctx = RunContext.open(warehouse, load_recipe(recipe), run_id="run", job="retrain", **limits)
    ctx.state.now = day
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


def test_a_limit_of_memory_changes_neither_a_release_nor_what_a_next_run_has_to_do(tmp_path):
    lake, first = _retrain(tmp_path / "much", datetime(2027, 1, 1, tzinfo=UTC), memory=8 * 2**30)
    _, second = _retrain(tmp_path / "little", datetime(2027, 1, 1, tzinfo=UTC), memory=parse_size("768MiB"))
    assert (second.content_hash, second.config, second.steps) == (first.content_hash, first.config, first.steps)
    recipe = tmp_path / "much" / "source" / "recipe.toml"
    recipe.write_text('memory = "3GiB"\n' + recipe.read_text(encoding="utf-8"), encoding="utf-8")
    ctx = RunContext.open(lake, load_recipe(recipe), run_id="again", job="retrain")
    assert lake.memory == 3 * 2**30
    again = {report.step: report.skipped for report in run_job(ctx)}
    assert all(skipped for step, skipped in again.items() if step not in ("train", "report"))


SHOP = """
name = "formats"
[sources.items]
path = "items.{form}"
types = {{ kinds = {{ separator = "|" }} }}
[sources.events]
path = "events.{form}"
[items]
source = "items"
item_id = "id"
title = {{ column = "name", pick = "latest" }}
category = {{ column = "kinds", pick = "most_common" }}
price = {{ column = "price", pick = "median" }}
first_seen = {{ column = "at", pick = "min" }}
order_by = "at"
[interactions]
source = "events"
user_id = "user"
item_id = "item"
ts = "at"
weight = "n"
max_rejected_share = 0.5
[split]
holdout_days = 2
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 16
[tokenizer]
widths = [4, 4, 8]
"""


def test_the_same_rows_as_csv_json_lines_and_parquet_give_the_same_content_hash(tmp_path):
    names = [
        f"{colour} {thing}"
        for colour in ("red", "blue", "green", "white", "pink")
        for thing in ("cup", "lamp", "bag", "pen", "vase")
    ]
    start = datetime(2024, 3, 1, 9)
    items = [
        {
            "id": f"{number:04}",
            "name": name,
            "kinds": "home|" + name.split()[1],
            "price": number % 7 + 0.5,
            "at": start + timedelta(days=day),
        }
        for day in (0, 1)
        for number, name in enumerate(names)
    ]
    events = [
        {"user": f"{number % 9:03}", "item": f"{number * 7 % 28:04}", "n": number % 3, "at": start + timedelta(hours=number)}
        for number in range(240)
    ]
    hashes = set()
    for form in ("csv", "jsonl", "parquet"):
        folder = tmp_path / form
        write(folder / f"items.{form}", items)
        write(folder / f"events.{form}", events)
        (folder / "recipe.toml").write_text(SHOP.format(form=form))
        warehouse = Warehouse.create_or_open(folder / "lake")
        run_job(RunContext.open(warehouse, load_recipe(folder / "recipe.toml"), run_id="run", job="retrain"))
        hashes.add(get(warehouse).content_hash)
    assert len(hashes) == 1
    assert warehouse.read("items").num_rows == 25
