"""Reading new files only gives what reading all files gives: the same items, events and rejections, whatever the days hold."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import ContractError, SourceError
from sidlake.pipelines.ingest.reading import Known, ingest, ingest_new, keep_unchanged
from sidlake.pipelines.ingest.sources import source_files
from sidlake.pipelines.recipe import load_recipe

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RECIPE = """
name = "days"
[sources.rows]
path = "days"
[[sources.rows.rules]]
name = "returned"
column = "n"
at_most = 0
[items]
source = "rows"
item_id = "item"
order_by = "at"
title = { column = "name", pick = "latest" }
price = { column = "price", pick = "median" }
first_seen = { column = "at", pick = "min" }
max_rejected_share = 1.0
[interactions]
source = "rows"
user_id = "user"
item_id = "item"
ts = "at"
weight = "n"
max_rejected_share = 1.0
"""
SCHEMA = {"item": pl.String, "user": pl.String, "name": pl.String, "price": pl.Float64, "at": pl.Datetime("us"), "n": pl.Int64}
SOLD = ("a", "u", "lamp", 2.0, 3, 1)


def write_day(folder, day, rows):
    """Write rows (item, user, name, price, minute, number) of a day of January as its file."""
    at = datetime(2026, 1, 1) + timedelta(days=day)
    columns = [[*row[:4], at + timedelta(minutes=row[4]), row[5]] for row in rows]
    (folder / "days").mkdir(exist_ok=True)
    pl.DataFrame(columns, schema=SCHEMA, orient="row").write_parquet(folder / "days" / f"{day:02d}.parquet")


def recipe_in(folder, text=RECIPE):
    (folder / "recipe.toml").write_text(text)
    return load_recipe(folder / "recipe.toml")


def known_from(result):
    return Known(
        evidence=result.evidence,
        heard=result.heard,
        rows_read=result.rows_read,
        rejected=pl.from_arrow(result.rejected_rows).drop("run_id"),
        events=pl.from_arrow(result.interactions).lazy(),
    )


def add_days(folder, recipe, before, num_known):
    """Return what the files after the first `num_known` add, and all tables with it."""
    files = source_files(folder / "days", "parquet", "rows")
    new = {"rows": dict(list(files.items())[num_known:])}
    added = ingest_new(recipe, new, known_from(before), run_id="run", now=NOW)
    if added is None:
        return None, None
    old = pl.from_arrow(before.rejected_rows)
    gone = (pl.col("target") == "items") & (pl.col("rule") == "empty_text")
    dropped = old.filter(gone).join(added.settled, on=["source", "row"], how="semi")
    rejected = pl.concat([old.join(dropped, on=["source", "row", "target"], how="anti"), pl.from_arrow(added.rejected_rows)])
    events = pl.concat([pl.from_arrow(before.interactions), pl.from_arrow(added.interactions)])
    return added, (pl.from_arrow(keep_unchanged(added.items, before.items)), events, rejected)


def in_order(frame):
    return frame.sort(pl.all(), nulls_last=True)


rows = st.tuples(
    st.sampled_from(["a", "b", "c", None, " "]),
    st.sampled_from(["u", "v", None]),
    st.sampled_from(["lamp", "red  lamp", "", None]),
    st.sampled_from([1.0, 1.1, 2.5, None]),
    st.integers(0, 5),
    st.integers(-1, 3),
)


@settings(max_examples=40, deadline=None)
@given(days=st.lists(st.lists(rows, max_size=8), min_size=2, max_size=4))
def test_days_added_one_file_at_a_time_are_those_read_at_once(days, tmp_path_factory):
    folder = tmp_path_factory.mktemp("days")
    recipe = recipe_in(folder)
    write_day(folder, 0, [SOLD])
    before = ingest(recipe, run_id="run", now=NOW)
    for day, some in enumerate(days, start=1):
        write_day(folder, day, some)
        whole = ingest(recipe, run_id="run", now=NOW)
        added, tables = add_days(folder, recipe, before, day)
        if added is not None:
            for table, found in zip(("items", "interactions", "rejected_rows"), tables, strict=True):
                assert in_order(found).equals(in_order(pl.from_arrow(getattr(whole, table)))), table
            assert {target: dict(counts) for target, counts in added.rows_read.items()} == whole.rows_read
            assert in_order(added.evidence).equals(in_order(whole.evidence.select(added.evidence.columns)))
        before = whole


def test_only_the_items_of_new_files_are_described_anew(tmp_path):
    recipe = recipe_in(tmp_path)
    write_day(tmp_path, 0, [SOLD, ("b", "u", "mug", 1.0, 4, 1)])
    before = ingest(recipe, run_id="run", now=NOW)
    write_day(tmp_path, 1, [("a", "u", "lamp", 4.0, 1, 1)])
    added, (items, events, _) = add_days(tmp_path, recipe, before, 1)
    assert added.items.column("item_id").to_pylist() == ["a"]
    assert items["price"].to_list() == [3.0, 1.0]  # the median over both days
    assert len(events) == 3


@pytest.mark.parametrize(
    "second_day",
    [
        pytest.param([("x", "u", "vase", 1.0, 1, 1)], id="an item that was unknown has a name now"),
        pytest.param([("a", "u", "lamp", 2.0, 3 - 1440, 1)], id="a line of an event that is known"),
    ],
)
def test_all_files_are_read_where_new_ones_change_what_old_ones_mean(tmp_path, second_day):
    recipe = recipe_in(tmp_path)
    write_day(tmp_path, 0, [SOLD, ("x", "u", "", 1.0, 3, 1)])
    before = ingest(recipe, run_id="run", now=NOW)
    write_day(tmp_path, 1, second_day)
    assert add_days(tmp_path, recipe, before, 1) == (None, None)


def test_a_column_whose_type_changes_between_files_is_named_with_both_types(tmp_path):
    recipe = recipe_in(tmp_path)
    write_day(tmp_path, 0, [SOLD])
    pl.read_parquet(tmp_path / "days" / "00.parquet").with_columns(pl.col("price").cast(pl.String)).write_parquet(
        tmp_path / "days" / "01.parquet"
    )
    with pytest.raises(ContractError, match=r"01\.parquet: column 'price' holds String, in .*00\.parquet it holds Float64"):
        ingest(recipe, run_id="run", now=NOW)


def test_a_glob_and_a_folder_name_the_same_rows_by_their_own_files(tmp_path):
    write_day(tmp_path, 0, [SOLD, ("a", "u", "lamp", 2.0, 3, 0)])
    write_day(tmp_path, 1, [("a", "u", "lamp", 2.0, 3, 0)])
    (tmp_path / "days" / ".writing.parquet").write_bytes(b"not yet")
    folder = ingest(recipe_in(tmp_path), run_id="run", now=NOW)
    globbed = ingest(recipe_in(tmp_path, RECIPE.replace('"days"\n[[', '"days/*.parquet"\n[[')), run_id="run", now=NOW)
    assert folder.items.equals(globbed.items)
    assert set(zip(*folder.rejected_rows.select(["source", "row"]).to_pydict().values(), strict=True)) == {
        ("rows/00.parquet", 1),
        ("rows/01.parquet", 0),
    }


def test_an_empty_folder_is_a_named_error(tmp_path):
    (tmp_path / "days").mkdir()
    with pytest.raises(SourceError, match=r"source rows: no file ending in \.parquet or .* in .*days"):
        ingest(recipe_in(tmp_path), run_id="run", now=NOW)


def test_an_item_whose_long_identifier_was_unknown_is_read_with_its_events(tmp_path):
    recipe, long = recipe_in(tmp_path), "https://example.org/" + "x" * 230
    write_day(tmp_path, 0, [SOLD, (long, "u", "", 1.0, 3, 1)])
    before = ingest(recipe, run_id="run", now=NOW)
    write_day(tmp_path, 1, [(long, "u", "vase", 1.0, 1, 1)])
    assert add_days(tmp_path, recipe, before, 1) == (None, None)
