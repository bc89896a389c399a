"""What a release changes at once is measured and warned of, and a recipe may allow or refuse it."""

import shutil
from types import SimpleNamespace

import polars as pl
import pytest

from sidlake.errors import GateFailed
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.quality.gates import GUARDS
from sidlake.quality.metrics.confused_texts import confused_share
from sidlake.warehouse.releases import current
from sidlake.warehouse.tables import Warehouse

COLOURS, KINDS = ("red", "blue", "green", "white", "black"), ("mug", "lamp", "candle", "bag", "clock", "card", "plate", "box")
ITEMS = pl.DataFrame({"item": [f"I{row:02d}" for row in range(40)], "title": [f"{c} {k}" for c in COLOURS for k in KINDS]})
RECIPE = """
name = "jumping"
[sources.catalogue]
path = "catalogue.parquet"
[[sources.catalogue.rules]]
name = "test_row"
column = "title"
matches = "^TEST"
[items]
source = "catalogue"
item_id = "item"
title = { column = "title" }
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 8
[tokenizer]
widths = [4, 4, 4]
[retirement]
missing = true
"""
CHINESE = [chr(0x4E00 + 7 * row) * 3 for row in range(40)]


def run(folder, items, job="refresh", *, gates=""):
    """Publish what a job makes of these items; return metric → (value, verdict) of the whole SID."""
    items.write_parquet(folder / "catalogue.parquet")
    (folder / "recipe.toml").write_text(RECIPE + gates)
    warehouse = Warehouse.create_or_open(folder / "w")
    ctx = RunContext.open(warehouse, load_recipe(folder / "recipe.toml"), run_id=new_run_id(), job=job)
    run_job(ctx, without=["report"])
    rows = warehouse.read("sid_quality", version=current(warehouse).tables["sid_quality"]).to_pylist()
    return {row["metric"]: (row["value"], row["verdict"]) for row in rows if not row["level"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jumping")
    return SimpleNamespace(folder=folder, first=run(folder, ITEMS, "retrain"))


@pytest.fixture
def shop(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


def gate(metric, maximum, severity="warn"):
    return f'[[gates]]\nmetric = "{metric}"\nmaximum = {maximum}\nseverity = "{severity}"\n'


def test_before_the_first_release_nothing_can_jump(trained):
    compared = [name for guard in GUARDS if (name := guard.metric) not in ("confused_text_share", "code_churn_relabelled")]
    assert {trained.first[name] for name in compared} == {(None, "info")}
    assert trained.first["confused_text_share"] == (0.0, "pass")


def test_items_that_go_at_once_are_warned_of(shop):
    assert run(shop, ITEMS[:30])["gone_item_share"] == (0.25, "warn")
    assert run(shop, ITEMS[:29])["gone_item_share"] == (pytest.approx(1 / 30), "pass")


@pytest.mark.parametrize("maximum", [0.3, 0.25])
def test_a_recipe_that_says_how_many_may_go_is_not_warned(shop, maximum):
    assert run(shop, ITEMS[:30], gates=gate("gone_item_share", maximum))["gone_item_share"] == (0.25, "pass")


def test_a_recipe_may_refuse_a_jump(shop):
    with pytest.raises(GateFailed, match=r"gone_item_share is 0\.25, the limit is 0\.2"):
        run(shop, ITEMS[:30], gates=gate("gone_item_share", 0.2, "refuse"))


def test_items_that_change_at_once_are_warned_of(shop):
    renamed = ITEMS.with_columns(
        pl.when(pl.int_range(pl.len()) < 24).then("title" + pl.lit(" x")).otherwise("title").alias("title")
    )
    assert run(shop, renamed)["changed_item_share"] == (0.6, "warn")


def test_a_share_of_refused_rows_that_grows_is_warned_of(shop):
    refused = pl.DataFrame({"item": ["T1", "T2", "T3", "T4"], "title": ["TEST"] * 4})
    found = run(shop, pl.concat([ITEMS, refused]))
    assert found["rejected_share"] == (pytest.approx(4 / 44), "info")
    assert found["rejected_share_rise"] == (pytest.approx(4 / 44), "warn")


def test_texts_that_the_model_cannot_read_are_warned_of(shop):
    found = run(shop, ITEMS.with_columns(pl.Series("title", CHINESE)), "retrain")
    value, verdict = found["confused_text_share"]
    assert value > 0.8
    assert verdict == "warn"
    assert found["code_churn_relabelled"][1] in ("pass", "warn")


def test_equal_texts_are_not_confused():
    assert confused_share(pl.DataFrame({"text": ["a", "a"], "vector": [1, 1]})) == 0.0
