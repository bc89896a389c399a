"""A share of refused rows is judged per file as over all, and what a failed run refused can be read."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sidlake.cli.app import app
from sidlake.errors import ContractError, NotFoundError
from sidlake.pipelines.ingest.rejected import rejected_of
from sidlake.pipelines.ingest.step import ingest_sources
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext
from sidlake.warehouse.tables import Warehouse

RECIPE = """
name = "days"
[sources.items]
path = "items.csv"
[sources.days]
path = "days"
format = "csv"
[items]
source = "items"
item_id = "item"
title = "name"
[interactions]
source = "days"
user_id = "user"
item_id = "item"
ts = "at"
max_rejected_share = 0.1
"""


def write_day(folder, day, good, bad):
    """Write a day's file of so many events on a known item and on one that nobody knows."""
    rows = [
        f"u{number},{'a' if number < good else 'nobody'},2026-01-{day:02d}T00:{number % 60:02d}:00" for number in range(good + bad)
    ]
    (folder / "days").mkdir(exist_ok=True)
    (folder / "days" / f"{day:02d}.csv").write_text("\n".join(["user,item,at", *rows]) + "\n")


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "items.csv").write_text("item,name\na,lamp\nb,chair\n")
    write_day(tmp_path, 1, 2_000, 0)
    return tmp_path


def ingested(folder, run_id="run"):
    warehouse = Warehouse.create_or_open(folder / "lake")
    return ingest_sources(RunContext.open(warehouse, load_recipe(folder / "recipe.toml"), run_id=run_id, job="retrain"))


def test_a_day_of_which_every_row_is_refused_is_refused_among_many_good_ones(shop):
    write_day(shop, 2, 0, 40)
    with pytest.raises(ContractError, match=r"interactions of days/02.csv: 100.0% of 40 source rows rejected, allowed 10.0%"):
        ingested(shop)


def test_days_of_a_few_rows_are_judged_with_all_others(shop):
    write_day(shop, 2, 1, 2)
    assert ingested(shop).details["rejected_unknown_item"] == 2


def test_what_a_failed_run_refused_can_be_read_with_its_values(shop):
    write_day(shop, 2, 10, 30)
    with pytest.raises(ContractError, match=r"such as 'nobody'.*: sidlake rejected run-7") as error:
        ingested(shop, "run-7")
    assert "rejected" not in error.value.details
    shown = CliRunner().invoke(app, ["rejected", "run-7", "--warehouse", str(shop / "lake"), "--json"])
    rows = json.loads(shown.stdout)
    assert len(rows) == 30
    assert {(row["source"], row["rule"], row["value"]) for row in rows} == {("days/02.csv", "unknown_item", "nobody")}


def test_a_run_that_refused_nothing_is_said_to_be_unknown(shop):
    ingested(shop)
    with pytest.raises(NotFoundError, match="no rejected rows of a run 'other'"):
        rejected_of(Warehouse(shop / "lake"), "other")
