"""Items that leave and come back keep their SIDs and their events, whether new files are read or all of them."""

import shutil
from datetime import datetime, timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.holds import lift
from sidlake.warehouse.releases import current, rollback
from sidlake.warehouse.tables import Warehouse

FIRST = datetime(2026, 1, 1, 9)
TITLES = [f"{colour} {kind}" for colour in ("red", "blue", "green") for kind in ("mug", "lamp", "candle", "bag")]
RECIPE = """
name = "returning"
[sources.catalogue]
path = "catalogue.parquet"
[sources.events]
path = "events"
[items]
source = "catalogue"
item_id = "item"
title = { column = "title" }
[interactions]
source = "events"
user_id = "user"
item_id = "item"
ts = "at"
[split]
holdout_days = 2
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 8
[tokenizer]
widths = [2, 4, 4]
[retirement]
after_days = 4
"""


def write_day(shop, day, items):
    """Write the events of a day: user u<n> and the n-th of `items`."""
    at = FIRST + timedelta(days=day)
    rows = [{"user": f"u{n % 3}", "item": item, "at": at + timedelta(minutes=n)} for n, item in enumerate(items)]
    (shop.folder / "events").mkdir(exist_ok=True)
    pl.DataFrame(rows).write_parquet(shop.folder / "events" / f"{day:03d}.parquet")


def run(shop, job="refresh"):
    """Run a job without its page and return the report of its ingest step."""
    ctx = RunContext.open(shop.warehouse, load_recipe(shop.folder / "recipe.toml"), run_id=new_run_id(), job=job)
    return run_job(ctx, without=["train", "report"])[0]


def days_of(shop, item):
    """Return the days on which the current release has an event of `item`."""
    events = shop.warehouse.scan("interactions", version=current(shop.warehouse).tables["interactions"])
    return events.filter(pl.col("item_id") == item).collect()["ts"].dt.day().sort().to_list()


def sid_of(shop, item):
    sids = shop.warehouse.scan("semantic_ids", version=current(shop.warehouse).tables["semantic_ids"])
    return sids.filter(pl.col("item_id") == item).collect()["sid"].to_list()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Twelve items, all sold on the first two days, after one retrain."""
    shop = SimpleNamespace(folder=tmp_path_factory.mktemp("returning"))
    names = [f"I{row:02d}" for row in range(len(TITLES))]
    pl.DataFrame({"item": names, "title": TITLES}).write_parquet(shop.folder / "catalogue.parquet")
    for day in range(2):
        write_day(shop, day, names)
    (shop.folder / "recipe.toml").write_text(RECIPE)
    shop.warehouse = Warehouse.create_or_open(shop.folder / "w")
    run(shop, "retrain")
    return shop


@pytest.fixture
def shops(trained, tmp_path):
    """The trained shop twice: one that remembers what it has read, one that forgets it before every run."""

    def copied(name):
        shutil.copytree(trained.folder, tmp_path / name)
        return SimpleNamespace(folder=tmp_path / name, warehouse=Warehouse(tmp_path / name / "w"))

    return copied("remembers"), copied("forgets")


def both(shops, act):
    """Let both shops do `act`, the second without what it has read before; their releases must be the same."""
    first = act(shops[0])
    shutil.rmtree(shops[1].warehouse.root / "cache", ignore_errors=True)
    act(shops[1])
    hashes = [current(shop.warehouse).content_hash for shop in shops]
    assert hashes[0] == hashes[1]
    return first


MOST = [f"I{row:02d}" for row in range(10)]


def test_an_item_that_is_sold_again_after_it_was_retired_has_all_its_events(shops):
    for shop in shops:
        write_day(shop, 7, MOST)
    both(shops, run)
    assert sid_of(shops[0], "I10") == []
    for shop in shops:
        write_day(shop, 8, ["I10", "I01"])
    both(shops, run)
    assert days_of(shops[0], "I10") == [1, 2, 9]


def test_a_day_on_which_nothing_returns_is_still_read_alone(shops):
    for day in (7, 8):
        for shop in shops:
            write_day(shop, day, MOST)
        report = both(shops, run)
    assert report.details["only_new_files"] is True


def test_a_late_event_of_a_retired_item_changes_nothing_and_is_there_when_it_returns(shops):
    for day, items in ((7, MOST), (2, ["I10"]), (8, ["I10"])):
        for shop in shops:
            write_day(shop, day, items)
        both(shops, run)
        assert days_of(shops[0], "I10") == ([] if day != 8 else [1, 2, 3, 9])


def test_a_longer_patience_brings_retired_items_back_with_their_events(shops):
    for shop in shops:
        write_day(shop, 7, MOST)
    sids = sid_of(shops[0], "I10")
    both(shops, run)
    for shop in shops:
        path = shop.folder / "recipe.toml"
        path.write_text(path.read_text().replace("after_days = 4", "after_days = 40"))
        write_day(shop, 8, MOST)
    both(shops, run)
    assert (sid_of(shops[0], "I10"), days_of(shops[0], "I10")) == (sids, [1, 2])


def test_a_rolled_back_retirement_is_made_again_with_the_same_content(shops):
    for shop in shops:
        write_day(shop, 7, MOST)
    both(shops, run)
    retired = current(shops[0].warehouse).content_hash

    def back(shop):
        lift(shop.warehouse, rollback(shop.warehouse, "r000001", "too early"), reason="now")
        return run(shop)

    both(shops, back)
    assert current(shops[0].warehouse).content_hash == retired
    for shop in shops:
        write_day(shop, 8, ["I10", "I11"])
    both(shops, run)
    assert days_of(shops[0], "I11") == [1, 2, 9]


@pytest.mark.parametrize("name", ["files.json", "evidence.parquet", "heard.parquet"])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:20]), lambda path: path.unlink()])
def test_what_is_remembered_of_files_and_damaged_is_read_again(shops, name, damage):
    for path in (shops[0].warehouse.root / "cache" / "ingest").glob(f"*/{name}"):
        damage(path)
    for shop in shops:
        write_day(shop, 2, MOST)
    assert "only_new_files" not in both(shops, run).details
    write_day(shops[0], 3, MOST)
    assert run(shops[0]).details["only_new_files"] is True


def test_a_release_does_not_wait_for_a_catalogue_that_cannot_be_written(shops):
    shop, database = shops[0], shops[0].warehouse.root / "catalog.duckdb"
    database.unlink()
    database.mkdir()  # permissions do not stop root, a folder of this name does
    write_day(shop, 2, MOST)
    run(shop)
    assert current(shop.warehouse).release_id == "r000002"
    database.rmdir()
    run(shop)
    assert database.is_file()
