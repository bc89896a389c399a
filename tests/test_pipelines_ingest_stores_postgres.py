"""A query on a real Postgres as a source: the rows of a file, and neither address nor password anywhere that is kept or shown."""

from contextlib import closing
from datetime import datetime
from urllib.parse import urlsplit

import polars as pl
import psycopg2
import pytest
from postgres_sample import PASSWORD
from source_files_sample import NOW, column, recipe_in

from sidlake.errors import RecipeError, SourceError
from sidlake.pipelines.ingest.reading import ingest
from sidlake.pipelines.ingest.stores.snapshots import listed_sources
from sidlake.pipelines.recipe import digest_of
from sidlake.pipelines.run import RunContext, run_step
from sidlake.pipelines.steps import STEPS
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
QUERY = 'format = "postgres"\nquery = "select * from items order by id"'
PLACE = "${SHOP_DATABASE}"


@pytest.fixture
def database(postgres, monkeypatch):
    """A table of items in a database whose address stands in a variable; SQL to be run on it."""
    monkeypatch.setenv("SHOP_DATABASE", postgres)

    def run(*statements):
        with closing(psycopg2.connect(postgres)) as connection, connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    run("drop table if exists items", "create table items (id text, name text, price numeric(9, 2), at timestamp)")
    values = [f"('{row[0]}', '{row[1]}', {'null' if row[2] is None else row[2]}, '{row[3]}')" for row in ROWS.iter_rows()]
    run(f"insert into items values {', '.join(values)}")
    return run


def made(folder, path=PLACE, source=QUERY):
    recipe = recipe_in(folder, path, source=source, more=MORE if "select *" in source else "")
    files = {name: found.files for name, found in listed_sources(recipe, folder / "staging").items()}
    return ingest(recipe, run_id="run", now=NOW, files=files)


def test_a_table_gives_the_items_that_a_file_of_its_rows_gives(tmp_path, database):
    ROWS.write_parquet(tmp_path / "items.parquet")
    wanted = ingest(recipe_in(tmp_path, "items.parquet", more=MORE), run_id="run", now=NOW)
    assert made(tmp_path).items.equals(wanted.items)


def test_an_address_without_a_password_takes_it_from_where_libpq_does(tmp_path, database, postgres, monkeypatch):
    at = urlsplit(postgres)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    path = f"postgresql://shop@127.0.0.1:{at.port}/postgres"
    source = 'query = "select * from items order by id"'  # the address tells what it is
    assert column(made(tmp_path, path, source), "item_id") == ["007", "8", "9"]


def test_uuids_json_and_arrays_are_read_as_files_would_have_them(tmp_path, database):
    uuid = "8d52d19a-076f-495f-9d3d-f8ad94dd0214"
    query = f"select '{uuid}'::uuid as id, array['red', 'cup'] as name, '{{}}'::jsonb as more"
    result = made(tmp_path, source=f'format = "postgres"\nquery = "{query}"')
    assert (column(result, "item_id"), column(result, "title")) == ([uuid], ["red, cup"])


def test_a_query_cannot_change_the_database(tmp_path, database):
    source = "format = \"postgres\"\nquery = \"insert into items values ('10', 'x', 1, null) returning id, name\""
    with pytest.raises(SourceError, match="read-only transaction"):
        made(tmp_path, source=source)
    assert len(made(tmp_path).items) == 3


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("select * from nothing", 'relation "nothing" does not exist'),
        ("select 'a' as id, 'b' as name, interval '1 day' as lasts", "'lasts' is of type interval.*lasts::text"),
        ("select 'a' as id, 'b' as name, point(1, 2) as place", "'place' is of type point.*place::text"),
        ("drop table items", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, database, query, says):
    with pytest.raises(SourceError, match=says):
        made(tmp_path, source=f'format = "postgres"\nquery = "{query}"')


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda address: address.replace("p%2540ss", "wrong"), "authentication failed"),
        (lambda address: f"{address}?sslmode=what", "sslmode"),
        (lambda address: address.replace("@127", "@[127"), "IPv6"),
        (lambda address: address.replace("postgresql://", "postgres://") + "/x?connect_timeout=p%2540ss%20word", "cannot be read"),
        (lambda address: "", "SHOP_DATABASE.* is not set"),
    ],
)
def test_a_database_that_does_not_answer_is_told_without_its_address(tmp_path, database, postgres, monkeypatch, change, says):
    monkeypatch.setenv("SHOP_DATABASE", change(postgres))
    with pytest.raises(SourceError, match=says) as raised:
        made(tmp_path)
    cause = raised.value.__cause__
    told = f"{raised.value} {raised.value.details} {cause} {cause and cause.__cause__}"
    assert not [secret for secret in (PASSWORD, "p%2540ss", "wrong", "ss word") if secret in told], told


@pytest.mark.parametrize(
    ("path", "source", "says"),
    [
        ("postgresql://shop:" + "secret@host/db", QUERY, "path holds a password"),
        ("postgresql://host/db?password=secret", QUERY, "path holds a password"),
        ("host=db password=secret", QUERY, "must be postgresql://host/database"),
        (PLACE, "", "say format = 'postgres'"),
        (PLACE, 'format = "postgres"', "a database needs a query"),
    ],
)
def test_a_recipe_that_holds_a_password_or_no_query_is_refused(tmp_path, path, source, says):
    with pytest.raises(RecipeError, match=says) as raised:
        made(tmp_path, path, source)
    assert "secret" not in str(raised.value)


def test_the_step_goes_by_the_rows_and_by_no_address(tmp_path, database, postgres, monkeypatch):
    warehouse, digests = Warehouse.create_or_open(tmp_path / "w"), []
    for run in ("a", "b", "c"):
        if run == "b":  # the same database under another name, as in a second environment
            monkeypatch.setenv("SHOP_DATABASE", postgres.replace("127.0.0.1", "localhost"))
        if run == "c":
            database("insert into items values ('10', 'white vase', 4, '2024-03-04')")
        ctx = RunContext.open(warehouse, recipe_in(tmp_path, PLACE, source=QUERY, more=MORE), run_id=run, job="retrain")
        with warehouse.writing(run):
            run_step(ctx, STEPS["ingest"])
        digests.append(ctx.state.steps["ingest"])
    assert digests[0] == digests[1] != digests[2]
    assert digest_of(ctx.recipe) == digest_of(recipe_in(tmp_path, PLACE, source=QUERY, more=MORE))
    kept = [path.read_bytes() for path in (tmp_path / "w").rglob("*") if path.is_file()]
    assert not [content for content in kept if b"127.0.0.1" in content or b"ss word" in content or b"p%2540ss" in content]
