"""`sidlake init`: the recipe that it proposes for a stranger's files gets past the ingest, or says what is left to decide."""

import json
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta

import duckdb
import polars as pl
import pytest

from sidlake.cli import app as cli
from sidlake.errors import RecipeError
from sidlake.pipelines.ingest.step import ingest_sources
from sidlake.pipelines.recipe import load_recipe
from sidlake.pipelines.run import RunContext
from sidlake.warehouse.tables import Warehouse

TITLES = ["red cup", "blue lamp", "green bag", "white pen", "pink vase", "black box", "gold bell", "café clock"]


@pytest.fixture
def init(tmp_path, monkeypatch, capsys):
    """The command in an empty folder: returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["sidlake", "init", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        shown = capsys.readouterr()
        return left.value.code, shown.out, shown.err

    return run


def ingested(folder):
    """Return the recipe, items and events of an ingest by the proposed recipe."""
    recipe = load_recipe(folder / "recipe.toml")
    ctx = RunContext.open(Warehouse.create_or_open(folder / "lake"), recipe, run_id="run", job="retrain")
    ingest_sources(ctx)
    return recipe, ctx.read("items"), ctx.read("interactions") if recipe.interactions else None


def write_items(path, *, encoding="utf-8", sign=","):
    lines = [f"{at:03d}{sign}{title}" for at, title in enumerate(TITLES)]
    path.write_text("\n".join([f"sku{sign}name", *lines]), encoding=encoding)


def write_events(path, days, form, *, item="sku"):
    lines = [
        f"u{at % 3},{at % len(TITLES):03d},{(datetime(2024, 3, day) + timedelta(hours=9)).strftime(form)}"
        for at, day in enumerate(days)
    ]
    path.write_text("\n".join([f"user,{item},at", *lines]), encoding="utf-8")


def test_dates_written_as_text_get_their_format_and_zeros_stay(init, tmp_path):
    write_items(tmp_path / "items.csv")
    write_events(tmp_path / "events.csv", range(1, 31), "%m/%d/%Y %H:%M", item="item")
    assert init()[0] == 0
    recipe, items, events = ingested(tmp_path)
    assert recipe.sources["events"].types["at"].format == "%m/%d/%Y %H:%M"
    assert items.column("item_id").to_pylist() == [f"{at:03d}" for at in range(len(TITLES))]
    assert [at.month for at in events.column("ts").to_pylist()] == [3] * 30


TABLES = (
    'create table "Products, all" (sku text, name text)',
    "create table purchases (customer text, sku text, bought_at timestamp)",
    "create table empty (sku text, name text)",
)


def fill(execute):
    for statement in TABLES:
        execute(statement)
    for at, title in enumerate(TITLES):
        execute(f"insert into \"Products, all\" values ('{at:03d}', '{title}')")
    for at in range(30):
        execute(f"insert into purchases values ('u{at % 3}', '{at % len(TITLES):03d}', '2024-03-{at + 1:02d} 09:00:00')")


@pytest.mark.parametrize("store", ["duckdb", "sqlite"])
def test_tables_of_a_database_are_told_apart_as_files_are(init, tmp_path, store):
    path = tmp_path / f"shop.{store}"
    with duckdb.connect(str(path)) if store == "duckdb" else closing(sqlite3.connect(path)) as connection:
        fill(connection.execute)
        connection.commit()
    code, said, error = init(path.name)
    assert code == 0, error
    assert f"items from shop.{store} table Products, all, events from shop.{store} table purchases" in said
    recipe, items, events = ingested(tmp_path)
    assert recipe.sources["purchases"].query == 'select * from "purchases"'
    assert items.column("item_id").to_pylist() == [f"{at:03d}" for at in range(len(TITLES))]
    assert len(events) == 30


def test_a_delta_table_is_looked_at_as_a_file_is(init, tmp_path):
    pl.DataFrame({"sku": [f"{at:03d}" for at in range(len(TITLES))], "name": TITLES}).write_delta(str(tmp_path / "products"))
    code, _, error = init("products")
    assert code == 0, error
    _, items, _ = ingested(tmp_path)
    assert items.column("title").to_pylist() == TITLES


@pytest.mark.parametrize("content", [b"SQLite format 3\x00" + b"x" * 200, b"........DUCK" + b"x" * 200])
def test_a_damaged_database_is_named(init, tmp_path, content):
    (tmp_path / "shop.db").write_bytes(content)
    code, _, error = init("shop.db")
    assert code == 1
    assert "shop.db cannot be read" in error


def test_a_file_of_a_code_page_with_semicolons_is_read_with_its_accents(init, tmp_path):
    write_items(tmp_path / "items.csv", encoding="cp1252", sign=";")
    assert init("items.csv")[0] == 0
    recipe, items, _ = ingested(tmp_path)
    assert (recipe.sources["items"].encoding, recipe.sources["items"].delimiter) == ("cp1252", ";")
    assert items.column("title").to_pylist() == TITLES


def test_sales_lines_with_titles_give_items_and_events_from_one_source(init, tmp_path):
    rows = [
        {"InvoiceNo": f"{at:05d}", "StockCode": f"s{at % 8}", "Description": TITLES[at % 8], "Quantity": at % 5, "UnitPrice": 1.5,
         "InvoiceDate": datetime(2024, 1, 1) + timedelta(days=at), "CustomerID": None if at % 3 == 0 else 7 + at % 4}
        for at in range(120)
    ]  # fmt: skip
    pl.DataFrame(rows).write_parquet(tmp_path / "sales.parquet")
    assert init("sales.parquet")[0] == 0
    recipe, items, events = ingested(tmp_path)
    assert (recipe.items.source, recipe.interactions.source) == ("sales", "sales")
    assert (recipe.items.title.pick, recipe.items.price.pick, recipe.split.kind) == ("latest", "median", "time")
    assert (len(items), len(events)) == (8, sum(at % 3 != 0 and at % 5 != 0 for at in range(120)))


def test_day_and_month_that_may_be_exchanged_are_left_to_the_user(init, tmp_path):
    write_items(tmp_path / "items.csv")
    write_events(tmp_path / "events.csv", range(1, 12), "%m/%d/%Y")
    code, out, _ = init("--json")
    assert code == 0
    assert json.loads(out)["undecided"] == ["at: %m/%d/%Y or %d/%m/%Y? Each reads all its dates"]
    with pytest.raises(RecipeError, match="format 'CHOOSE' has no directive"):
        load_recipe(tmp_path / "recipe.toml")
    text = (tmp_path / "recipe.toml").read_text(encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(text.replace("CHOOSE", "%m/%d/%Y"), encoding="utf-8")
    assert len(ingested(tmp_path)[2]) == 11


def test_of_two_identifiers_the_one_that_the_events_name_is_taken(init, tmp_path):
    rows = [{"id": at + 1, "sku": f"{at:03d}", "name": title} for at, title in enumerate(TITLES)]
    pl.DataFrame(rows).write_csv(tmp_path / "items.csv")
    write_events(tmp_path / "events.csv", range(1, 31), "%Y-%m-%dT%H:%M:%S", item="product")
    assert init()[0] == 0
    recipe, _, events = ingested(tmp_path)
    assert (recipe.items.item_id, len(events)) == ("sku", 30)


def test_two_identifiers_that_nothing_tells_apart_are_both_named(init, tmp_path):
    rows = [{"sku": f"{at:03d}", "ean": f"9{at:012d}", "name": title} for at, title in enumerate(TITLES)]
    pl.DataFrame(rows).write_csv(tmp_path / "items.csv")
    assert "'sku' or 'ean'?" in init()[1]
    assert "# 'sku' or 'ean'?" in (tmp_path / "recipe.toml").read_text(encoding="utf-8")
    assert len(ingested(tmp_path)[1]) == len(TITLES)


def test_a_recipe_that_is_there_is_overwritten_by_force_alone(init, tmp_path):
    write_items(tmp_path / "items.csv")
    (tmp_path / "recipe.toml").write_text("mine", encoding="utf-8")
    code, _, err = init()
    assert (code, "is not overwritten" in err, (tmp_path / "recipe.toml").read_text(encoding="utf-8")) == (2, True, "mine")
    assert init("--force")[0] == 0
    assert len(ingested(tmp_path)[1]) == len(TITLES)


def test_files_without_names_are_refused_with_the_columns_that_they_have(init, tmp_path):
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    code, _, err = init()
    assert (code, "numbers.csv has ['a', 'b']" in err) == (2, True)


def test_an_empty_folder_says_which_files_are_looked_for(init):
    code, _, err = init()
    assert (code, ".parquet" in err) == (1, True)


def test_users_that_a_data_frame_made_decimals_are_whole_numbers_again(init, tmp_path):
    write_items(tmp_path / "items.csv")
    rows = [{"user": float(at % 3), "sku": f"{at % 8:03d}", "at": datetime(2024, 3, 1 + at)} for at in range(20)]
    pl.DataFrame(rows).write_parquet(tmp_path / "events.parquet")
    assert init()[0] == 0
    assert set(ingested(tmp_path)[2].column("user_id").to_pylist()) == {"0", "1", "2"}


@pytest.mark.parametrize("name", ['na"me', "näme", "a.b", "a\\b", "x'y"])
def test_columns_of_any_name_are_written_as_toml(init, tmp_path, name):
    rows = [{"sku": f"s{at}", "title": title, f"{name} price": f"{at},50"} for at, title in enumerate(TITLES)]
    pl.DataFrame(rows).write_csv(tmp_path / "items.csv", separator="|")
    assert init()[0] == 0
    assert ingested(tmp_path)[1].column("price").to_pylist() == [at + 0.5 for at in range(len(TITLES))]
