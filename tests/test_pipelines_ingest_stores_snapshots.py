"""Tables and queries as sources: the same release as of a file of the same rows, whatever holds them."""

import sqlite3
from datetime import datetime

import duckdb
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from source_files_sample import NOW, column, recipe_in

from sidlake.errors import RecipeError, SourceError
from sidlake.pipelines.ingest.reading import ingest
from sidlake.pipelines.ingest.stores.snapshots import listed_sources
from sidlake.pipelines.run import RunContext, run_step
from sidlake.pipelines.steps import STEPS
from sidlake.warehouse.places.location import locate
from sidlake.warehouse.tables import Warehouse

ROWS = pl.DataFrame(
    {
        "id": ["007", "8", "9"],
        "name": ["red cup", "blue lamp", "green bag"],
        "price": [1.5, 2.0, None],
        "at": [datetime(2024, 3, day) for day in (1, 2, 3)],
    }
)
MORE = 'price = "price"\nfirst_seen = "at"'
QUERY = 'query = "select * from items order by id"'


def made(folder, items, **settings):
    recipe = recipe_in(folder, items, more=MORE, **settings)
    files = {name: found.files for name, found in listed_sources(recipe, folder / "staging").items()}
    return ingest(recipe, run_id="run", now=NOW, files=files)


def in_duckdb(folder):
    with duckdb.connect(str(folder / "shop.db")) as connection:
        connection.register("rows", ROWS.to_arrow())
        connection.sql("create table items as select * from rows")
    return "shop.db"


def in_sqlite(folder):
    with sqlite3.connect(folder / "shop.db") as connection:
        connection.execute("create table items (id text, name text, price real, at text)")
        connection.executemany("insert into items values (?, ?, ?, ?)", [(*row[:3], str(row[3])) for row in ROWS.iter_rows()])
    return "shop.db"


def in_delta(folder):
    write_deltalake(str(folder / "items"), ROWS.to_arrow())
    return "items"


def in_partitioned_delta(folder):
    write_deltalake(str(folder / "items"), ROWS.with_columns(pl.col("at").dt.date().alias("day")).to_arrow(), partition_by=["day"])
    return "items"


@pytest.mark.parametrize("store", [in_duckdb, in_sqlite, in_delta, in_partitioned_delta])
def test_a_table_gives_the_items_that_a_file_of_its_rows_gives(tmp_path, store):
    ROWS.write_parquet(tmp_path / "items.parquet")
    wanted = made(tmp_path, "items.parquet").items
    assert made(tmp_path, store(tmp_path), source=QUERY if store in (in_duckdb, in_sqlite) else "").items.equals(wanted)


def test_rows_that_a_delta_table_has_removed_are_not_read_and_an_older_version_has_them(tmp_path):
    in_delta(tmp_path)
    DeltaTable(str(tmp_path / "items")).delete("id = '8'")
    assert column(made(tmp_path, "items"), "item_id") == ["007", "9"]
    assert column(made(tmp_path, "items", source="version = 0"), "item_id") == ["007", "8", "9"]


def test_a_snapshot_of_unchanged_rows_is_the_same_file(tmp_path):
    recipe = recipe_in(tmp_path, in_sqlite(tmp_path), source=QUERY)
    first, second = (listed_sources(recipe, tmp_path / name)["items"].files[""].read_bytes() for name in ("a", "b"))
    assert first == second


def test_a_query_joins_and_types_of_sqlite_may_differ_row_by_row(tmp_path):
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("create table items (id, name, price)")
        connection.executemany(
            "insert into items values (?, ?, ?)", [(7, "x", "1,5"), ("007", "y", 2), (None, "z", None), (9.5, b"w", 3.0)]
        )
    result = made_plain(tmp_path, 'query = "select id, name from items where id is not null"\ntypes = { id = "text" }')
    assert dict(zip(column(result, "item_id"), column(result, "title"), strict=True)) == {"7": "x", "007": "y", "9.5": "w"}


def made_plain(folder, source):
    recipe = recipe_in(folder, "shop.db", source=source)
    files = {name: found.files for name, found in listed_sources(recipe, folder / "staging").items()}
    return ingest(recipe, run_id="run", now=NOW, files=files)


@pytest.mark.parametrize(
    ("items", "source", "error", "says"),
    [
        ("shop.db", "", RecipeError, "a database needs a query"),
        ("shop.db", 'query = "select * from nothing"', SourceError, "nothing"),
        ("shop.db", 'query = "drop table items"', SourceError, "cannot be read"),
        ("shop.db", 'query = "insert into items values (1, 2, 3, 4)"', SourceError, "cannot be read"),
        ("shop.db", f"{QUERY}\nversion = 3", RecipeError, "version 3 is for Delta tables"),
        ("items", QUERY, RecipeError, "is for databases"),
        ("items", "version = 99", SourceError, "cannot be read"),
        ("none.db", f'format = "duckdb"\n{QUERY}', SourceError, "no such duckdb"),
        ("gone", 'format = "delta"', SourceError, "no such delta"),
        ("items.parquet", QUERY, RecipeError, "is for databases"),
    ],
)
@pytest.mark.parametrize("database", [in_duckdb, in_sqlite])
def test_what_cannot_be_read_is_named(tmp_path, items, source, error, says, database):
    database(tmp_path)
    in_delta(tmp_path)
    ROWS.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(error, match=says):
        made(tmp_path, items, source=source)


def step_digest(folder, name, **settings):
    """Return the digest of the inputs of an ingest step that runs on a warehouse of its own."""
    warehouse = Warehouse.create_or_open(folder / name)
    ctx = RunContext.open(warehouse, recipe_in(folder, "shop.db", more=MORE, **settings), run_id="run", job="retrain")
    with warehouse.writing("run"):
        report = run_step(ctx, STEPS["ingest"])
    assert report.rows["items"] == len(ctx.read("items"))
    return ctx.state.steps["ingest"]


def test_the_step_goes_by_the_rows_of_a_query_not_by_the_database(tmp_path):
    in_sqlite(tmp_path)
    first = step_digest(tmp_path, "a", source=QUERY)
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("create table other (x)")
    assert step_digest(tmp_path, "b", source=QUERY) == first
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("insert into items values ('10', 'white vase', 4, '2024-03-04')")
    assert step_digest(tmp_path, "c", source=QUERY) != first


def test_a_delta_table_in_an_object_store_is_read_by_its_address(tmp_path, object_store):
    address = "s3://shop/sources/items"
    write_deltalake(address, ROWS.to_arrow(), storage_options=locate(address).options)
    result = made(tmp_path, address, source='format = "delta"')
    assert column(result, "item_id") == ["007", "8", "9"]
    with pytest.raises(SourceError, match="cannot be read"):
        made(tmp_path, "s3://shop/sources/none", source='format = "delta"')
