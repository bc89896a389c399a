"""How a source's columns may change: by the recipe's word, with the types named."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from sidlake.errors import ContractError, RecipeError
from sidlake.pipelines.ingest.schema import check_columns, columns_read
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, run_step
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.tables import Warehouse

SAMPLE = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("assets_sample.py"))))
REFUSE = 'path = "items.parquet"\nnew_columns = "refuse"'
KNOWN = {"items": {"columns": {"item_id": "String", "title": "String", "price": "Float64"}}}


@pytest.fixture
def shop(tmp_path):
    """A recipe whose items have an item_id, a title and a price."""
    return SAMPLE.write_shop(tmp_path)


def _check(recipe_path, items, *, strict=False, inputs=KNOWN):
    items.write_parquet(recipe_path.parent / "items.parquet")
    text = recipe_path.read_text()
    recipe_path.write_text(text.replace('path = "items.parquet"', REFUSE) if strict and REFUSE not in text else text)
    recipe = load_recipe(recipe_path)
    return check_columns(recipe, {"items": {"": recipe.source_path("items")}}, inputs)["items"]


def _items(**more):
    return pl.DataFrame({"item_id": ["a"], "title": ["mug"], "price": [1.5]} | more)


def test_a_new_column_is_ignored_and_known_from_then_on(shop):
    assert _check(shop, _items(colour=["red"])) == KNOWN["items"]["columns"] | {"colour": "String"}


def test_a_new_column_is_refused_where_the_source_says_so(shop):
    with pytest.raises(ContractError, match=r"'colour' .* is new \(String\), and new_columns is 'refuse'"):
        _check(shop, _items(colour=["red"]), strict=True)
    assert _check(shop, _items(), strict=True) == KNOWN["items"]["columns"]
    assert "colour" in _check(shop, _items(colour=["red"]), strict=True, inputs={})  # a first release knows no columns yet


def test_a_changed_type_of_a_column_that_is_read_is_refused_with_both_types(shop):
    with pytest.raises(ContractError, match=r"'price' .* holds Int64, earlier releases were made of Float64") as failure:
        _check(shop, _items(price=[2]))
    assert (failure.value.details["before"], failure.value.details["after"]) == ("Float64", "Int64")


def test_a_column_that_nobody_reads_may_become_anything_unless_new_columns_are_refused(shop):
    inputs = {"items": {"columns": KNOWN["items"]["columns"] | {"colour": "String"}}}
    assert _check(shop, _items(colour=[3]), inputs=inputs)["colour"] == "Int64"
    with pytest.raises(ContractError, match=r"'colour' .* holds Int64, earlier releases were made of String"):
        _check(shop, _items(colour=[3]), strict=True, inputs=inputs)


def test_files_that_state_no_types_cannot_change_them(shop):
    folder, recipe = shop.parent, shop.read_text().replace("items.parquet", "items.csv").replace('.csv"', '.csv"\nformat = "csv"')
    shop.write_text(recipe)
    known = {"items": {"columns": {"item_id": "String", "title": "String", "price": "number"}}}
    for price in (2, 2.5, "two"):
        _items(price=[price]).write_csv(folder / "items.csv")
        assert check_columns(load_recipe(shop), {"items": {"": folder / "items.csv"}}, known) == {
            "items": dict.fromkeys(known["items"]["columns"], "text"),
            "events": {},
        }
    _items(colour=["red"]).write_csv(folder / "items.csv")
    shop.write_text(recipe.replace('.csv"', '.csv"\nnew_columns = "refuse"'))
    with pytest.raises(ContractError, match=r"'colour' .* is new"):
        check_columns(load_recipe(shop), {"items": {"": folder / "items.csv"}}, known)


def test_every_column_that_the_recipe_names_is_read(shop):
    recipe = load_recipe(shop)
    assert columns_read(recipe, "items") == {"item_id", "title", "price"}
    assert columns_read(recipe, "events") == {"user", "item_id", "ts"}


def test_an_ingested_source_leaves_its_columns_in_the_releases_inputs(shop, tmp_path):
    ctx = RunContext.open(Warehouse.create_or_open(tmp_path / "lake"), load_recipe(shop), run_id="run", job="retrain")
    run_step(ctx, STEPS["ingest"])
    assert ctx.state.inputs["items"]["columns"] == KNOWN["items"]["columns"]
    assert ctx.state.inputs["events"]["columns"]["ts"].startswith("Datetime")


def test_another_word_for_new_columns_is_refused(shop):
    shop.write_text(shop.read_text().replace('path = "items.parquet"', 'path = "items.parquet"\nnew_columns = "add"'))
    with pytest.raises(RecipeError, match="new_columns"):
        load_recipe(shop)
