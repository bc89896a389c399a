"""Days after a retrain: what is new is added, what changes keeps its SID, what leaves is quarantined, what returns is the same."""

import random
import shutil
from datetime import datetime, timedelta
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pytest

from sidlake.errors import HoldError, LawBroken
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext, new_run_id
from sidlake.pipelines.steps import run_job
from sidlake.warehouse.holds import lift
from sidlake.warehouse.laws import verify
from sidlake.warehouse.releases import current, history, rollback
from sidlake.warehouse.tables import TABLES, Warehouse

COLOURS = ["red", "blue", "green", "white", "pink", "black"]
KINDS = ["mug", "lamp", "candle", "bag", "clock", "card", "plate", "frame", "box", "bell"]
TITLES = [f"{colour} {kind}" for colour in COLOURS for kind in KINDS]
FIRST = datetime(2026, 1, 1, 9)
RECIPE = """
name = "days"
[sources.sales]
path = "days"
[items]
source = "sales"
item_id = "item"
order_by = "at"
title = { column = "title", pick = "latest" }
price = { column = "price", pick = "median" }
[interactions]
source = "sales"
user_id = "user"
item_id = "item"
ts = "at"
[split]
holdout_days = 2
[encoders.text]
precision = "float32"
[encoders.fusion.text]
dim = 16
[tokenizer]
widths = [4, 4, 8]
"""


def sale(item, title, user="u0", minute=0):
    return {"item": item, "title": title, "user": user, "minute": minute, "price": 1.0 + minute}


def write_day(folder, day, sales):
    at = FIRST + timedelta(days=day)
    rows = [{**one, "at": at + timedelta(minutes=one["minute"])} for one in sales]
    (folder / "days").mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows).drop("minute").write_parquet(folder / "days" / f"{day:03d}.parquet")


def some_order(sold, users):
    return enumerate(zip(sold, users, strict=True))


def run(shop, job="refresh"):
    """Run the steps of a job and return their reports by step."""
    ctx = opened(shop, job)
    return {report.step: report for report in run_job(ctx, without=["report"])}


def opened(shop, job, **settings):
    return RunContext.open(shop.warehouse, load_recipe(shop.folder / "recipe.toml"), run_id=new_run_id(), job=job, **settings)


def sids(shop):
    """Return the SID of each item of the current release, from storage."""
    version = current(shop.warehouse).tables["semantic_ids"]
    return dict(shop.warehouse.scan("semantic_ids", version=version).select("item_id", "sid").collect().iter_rows())


def quality(shop):
    rows = shop.warehouse.read("sid_quality", version=current(shop.warehouse).tables["sid_quality"]).to_pylist()
    return {(row["metric"], row["level"]): row["value"] for row in rows}


def set_retirement(shop, text):
    path = shop.folder / "recipe.toml"
    path.write_text(path.read_text() + "\n[retirement]\n" + text)


def no_cache(shop):
    shutil.rmtree(shop.warehouse.root / "cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Twelve days of 60 items, after one retrain."""
    folder, draw = tmp_path_factory.mktemp("daily"), random.Random(3)
    for day in range(12):
        sold = TITLES if day == 0 else draw.sample(TITLES[:50], 20)
        users = [f"u{draw.randrange(9)}" for _ in sold]
        write_day(folder, day, [sale(f"I{TITLES.index(t):02d}", t, user, at) for at, (t, user) in some_order(sold, users)])
    (folder / "recipe.toml").write_text(RECIPE)
    shop = SimpleNamespace(folder=folder, warehouse=Warehouse.create_or_open(folder / "w"))
    run(shop, "retrain")
    return shop


@pytest.fixture
def copies(trained, tmp_path):
    """What makes copies of the trained shop, to be changed."""

    def copy(name="copy"):
        shutil.copytree(trained.folder, tmp_path / name)
        return SimpleNamespace(folder=tmp_path / name, warehouse=Warehouse(tmp_path / name / "w"))

    return copy


DAYS = {
    12: [sale("I00", "red mug"), sale("N1", "golden mug", "u1", 1)],
    13: [sale("I01", "a red reading lamp", "u2"), sale("N2", "silver lamp", "u1", 1)],
    14: [sale("N1", "golden mug", "u3"), sale("N3", "golden mug", "u1", 1)],
}


@pytest.mark.parametrize("days", [[12], [12, 13, 14]])
def test_reading_new_files_only_publishes_what_reading_all_files_publishes(copies, days):
    fast, slow = copies("fast"), copies("slow")
    for shop in (fast, slow):
        for day in days:
            write_day(shop.folder, day, DAYS[day])
    no_cache(slow)
    quick, whole = run(fast), run(slow)
    assert quick["ingest"].details["only_new_files"] is True
    assert "only_new_files" not in whole["ingest"].details
    assert quick["sequences"].details["users"] < 9
    assert current(fast.warehouse).content_hash == current(slow.warehouse).content_hash


def test_sequences_that_are_kept_are_those_that_would_be_made(copies):
    fast, slow = copies("fast"), copies("slow")
    for shop in (fast, slow):
        write_day(shop.folder, 12, DAYS[12])
    no_cache(slow)
    run(fast), run(slow)
    tables = [shop.warehouse.scan("user_sequences").collect().sort("user_id", "split") for shop in (fast, slow)]
    assert tables[0].equals(tables[1])


def test_a_day_without_new_items_embeds_and_assigns_nothing(copies):
    shop = copies()
    before, version = sids(shop), current(shop.warehouse).tables["semantic_ids"]
    write_day(shop.folder, 12, [sale("I00", "red mug"), sale("I03", "red bag", "u4", 1)])
    reports = run(shop)
    assert reports["embed_text"].details.get("embedded", 0) == 0
    assert reports["assign"].details.get("assigned", 0) == 0
    assert current(shop.warehouse).tables["semantic_ids"] == version
    assert sids(shop) == before


def test_no_new_file_publishes_nothing(copies):
    shop = copies()
    assert run(shop)["release"].skipped
    assert len(history(shop.warehouse)) == 1


def test_an_item_that_changes_keeps_its_sid_and_counts_as_stale(copies):
    shop = copies()
    assert quality(shop)[("staleness_share", None)] == 0
    before = sids(shop)
    write_day(shop.folder, 12, [sale(f"I{row:02d}", f"a book on the history of Venice, part {row}", "u1", row) for row in range(2)])
    reports = run(shop)
    assert reports["embed_text"].details["embedded"] == 2
    assert sids(shop) == before
    assert 1 / 60 <= quality(shop)[("staleness_share", None)] <= 2 / 60
    assert quality(shop)[("staleness_growth", None)] > 0


def test_a_quiet_item_is_retired_its_sid_is_held_and_it_comes_back_with_it(copies):
    shop = copies()
    set_retirement(shop, "after_days = 11")
    before = sids(shop)
    write_day(
        shop.folder, 12, [sale("I00", "red mug"), *(sale(f"N{n}", f"{COLOURS[n]} box, large", "u1", n + 1) for n in range(6))]
    )
    assert run(shop)["assign"].details["retired"] > 5
    after, release = sids(shop), current(shop.warehouse)
    left = before.keys() - after.keys()
    retired = dict(shop.warehouse.scan("retired_sids").select("item_id", "sid").collect().iter_rows())
    assert {"I55", "I59"} <= left  # sold on the first day alone
    assert retired == {item: before[item] for item in left}
    assert not set(after.values()) & set(retired.values())
    events = shop.warehouse.scan("interactions", version=release.tables["interactions"]).select("item_id").unique().collect()
    assert not set(events["item_id"]) & left
    write_day(shop.folder, 13, [sale("I55", "black bag again", "u2")])
    assert run(shop)["assign"].details["returned"] == 1
    assert sids(shop)["I55"] == before["I55"]
    assert "I55" not in shop.warehouse.scan("retired_sids").select("item_id").collect()["item_id"].to_list()
    events = shop.warehouse.scan("interactions").filter(pl.col("item_id") == "I55").collect()
    assert events["day"].sort().to_list() == ["2026-01-01", "2026-01-14"]


def test_a_release_in_which_an_item_has_a_quarantined_sid_is_refused(copies):
    shop = copies()
    set_retirement(shop, "after_days = 11")
    write_day(shop.folder, 12, [sale("I00", "red mug")])
    run(shop)
    release = current(shop.warehouse)
    rows = shop.warehouse.read("retired_sids", version=release.tables["retired_sids"])
    one = shop.warehouse.read("semantic_ids", version=release.tables["semantic_ids"]).slice(0, 1)
    stolen = rows.slice(0, 1).set_column(rows.column_names.index("codes"), rows.schema.field("codes"), one.column("codes"))
    version = shop.warehouse.overwrite("retired_sids", pa.concat_tables([rows.slice(1), stolen]), run_id="bad")
    with pytest.raises(LawBroken, match="no SID is another item's quarantined SID"):
        verify(shop.warehouse, release.tables | {"retired_sids": version}, generation=release.generation)


def test_a_published_sid_that_vanishes_is_refused(copies):
    shop = copies()
    release = current(shop.warehouse)
    tables = dict(release.tables)
    for table in ("items", "semantic_ids"):
        rows = shop.warehouse.read(table, version=tables[table])
        tables[table] = shop.warehouse.overwrite(
            table, rows.filter(pa.compute.not_equal(rows.column("item_id"), "I55")), run_id="bad"
        )
    kept = {name: tables[name] for name in ("items", "semantic_ids", "codebooks")}
    with pytest.raises(LawBroken, match="still its item's or held for it"):
        verify(shop.warehouse, kept, generation=release.generation, previous=release)


def test_after_a_rollback_no_other_item_gets_a_sid_that_was_published(copies):
    shop = copies()
    write_day(shop.folder, 12, [sale("I00", "red mug"), sale("N1", "golden mug", "u1", 1)])
    run(shop)
    published = sids(shop)
    lift(shop.warehouse, rollback(shop.warehouse, "r000001", "N1 was a mistake"), reason="the file was mended")
    write_day(shop.folder, 12, [sale("I00", "red mug"), sale("N2", "golden mug", "u1", 1)])
    run(shop)
    assert sids(shop)["N2"] not in published.values()
    write_day(shop.folder, 13, [sale("N1", "golden mug", "u1", 1)])
    run(shop)
    assert sids(shop)["N1"] == published["N1"]


def test_what_a_release_brought_has_the_same_sids_when_it_is_published_again_after_a_rollback(copies):
    shop = copies()
    write_day(shop.folder, 12, [sale(f"N{n}", f"{COLOURS[n]} box, large", "u1", n) for n in range(6)])
    run(shop)
    second = current(shop.warehouse)
    lift(shop.warehouse, rollback(shop.warehouse, "r000001", "too early"), reason="now")
    run(shop)
    assert current(shop.warehouse).content_hash == second.content_hash


def test_after_a_rollback_no_run_begins_unless_it_is_told_why_and_the_reason_is_kept(copies):
    shop = copies()
    write_day(shop.folder, 12, [sale("N1", "golden mug", "u1", 1)])
    run(shop)
    rollback(shop.warehouse, "r000001", "N1 was a mistake")
    versions = {table: shop.warehouse.version(table) for table in TABLES}
    for job in ("refresh", "retrain"):
        with pytest.raises(HoldError, match=r"held by rollback r000003 .*: N1 was a mistake"):
            run_job(opened(shop, job))
    assert {table: shop.warehouse.version(table) for table in TABLES} == versions
    run_job(opened(shop, "refresh", despite_hold="it was none"))
    assert current(shop.warehouse).reason == "refresh days (despite the hold of r000003: it was none)"


def test_sids_that_two_items_share_end_in_the_name_of_the_law(copies):
    shop = copies()
    path = shop.folder / "recipe.toml"
    path.write_text(path.read_text() + 'uniqueness = "none"\n')
    with pytest.raises(LawBroken, match=r"share the SID .*; nothing was published: give every item its own SID"):
        run(shop, "retrain")
