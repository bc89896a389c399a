"""Which of several rows describes an item: every pick for every field, whatever the order of the rows and files."""

import random
from datetime import datetime, timedelta

import polars as pl
import pytest
from source_files_sample import column, ingested

from sidlake.errors import RecipeError
from sidlake.pipelines.ingest.item_evidence import conflicting

DAYS = [datetime(2024, 1, 1) + timedelta(days=day) for day in range(6)]
FIELDS = {
    "title": ["old", "mid", "mid", "new", "", None],
    "price": [9.0, 2.0, 2.0, float("nan"), 4.0, None],
    "category": [["a"], ["b", "c"], ["b", "c"], ["d"], [""], None],
    "image": ["1.png", "2.png", "2.png", "3.png", "", None],
    "first_seen": [datetime(2020, 1, 9), *[datetime(2020, 1, 2)] * 2, None, datetime(2020, 1, 4), None],
}
WANTED = {
    "title": {"latest": "new", "first": "old", "most_common": "mid"},
    "price": {"latest": 4.0, "first": 9.0, "most_common": 2.0, "median": 3.0, "min": 2.0, "max": 9.0},
    "category": {"latest": ["d"], "first": ["a"], "most_common": ["b", "c"]},
    "image": {"latest": "3.png", "first": "1.png", "most_common": "2.png"},
    "first_seen": {"latest": 4, "first": 9, "most_common": 2, "median": 3, "min": 2, "max": 9},
}
CASES = [(field, pick) for field, picks in WANTED.items() for pick in picks]


def write(folder, order, files=1):
    frame = pl.DataFrame({"id": ["a"] * 6, "by": DAYS, **FIELDS}, strict=False)[order]
    (folder / "rows").mkdir(exist_ok=True)
    for number in range(files):
        frame[number::files].write_parquet(folder / "rows" / f"{number}.parquet")


def picked(folder, field, pick):
    more = 'order_by = "by"'
    if field != "title":
        more += f"\n{field} = {{ column = '{field}', pick = '{pick}' }}"
    title = f'{{ column = "title", pick = "{pick if field == "title" else "latest"}" }}'
    result = ingested(folder, "rows", title=title, more=more)
    (value,) = column(result, "image_uri" if field == "image" else field)
    return value.day if field == "first_seen" else value


@pytest.mark.parametrize(("field", "pick"), CASES)
def test_every_pick_works_for_every_field_in_any_order_of_rows_and_files(tmp_path, field, pick):
    draw = random.Random(1)
    for files in (1, 3):
        order = draw.sample(range(6), 6)
        write(tmp_path, order, files)
        assert picked(tmp_path, field, pick) == WANTED[field][pick]


@pytest.mark.parametrize(("field", "pick"), [("title", "median"), ("category", "min"), ("image", "max"), ("category", "median")])
def test_a_pick_that_makes_no_sense_of_a_field_is_refused_by_the_recipe(tmp_path, field, pick):
    write(tmp_path, list(range(6)))
    with pytest.raises(RecipeError, match=rf"items\.{field}: pick = '{pick}' is for numbers and times; allowed here: only, latest"):
        picked(tmp_path, field, pick)


def test_first_without_an_order_is_the_first_row(tmp_path):
    pl.DataFrame({"id": ["a"] * 3, "name": ["z", "m", "z"]}).write_parquet(tmp_path / "items.parquet")
    assert column(ingested(tmp_path, "items.parquet", title='{ column = "name", pick = "first" }'), "title") == ["z"]


def test_items_whose_rows_disagree_are_counted(tmp_path):
    pl.DataFrame({"id": ["a", "a", "b", "b"], "name": ["x", "y", "z", None]}).write_parquet(tmp_path / "items.parquet")
    assert conflicting(ingested(tmp_path, "items.parquet", title='{ column = "name", pick = "most_common" }').evidence) == 1


@pytest.mark.parametrize("values", [["9/1/2024", "10/1/2024"], ["v2", "v10"], [True, False]])
def test_an_order_that_is_neither_time_nor_number_is_named(tmp_path, values):
    pl.DataFrame({"id": ["a", "a"], "name": ["x", "y"], "v": values}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(Exception, match=r"order_by|column 'v'"):
        ingested(tmp_path, "items.parquet", title='{ column = "name", pick = "latest" }', more='order_by = "v"', share=0.1)


def test_declared_numbers_put_text_in_order(tmp_path):
    (tmp_path / "items.csv").write_text("id,name,v\na,new,10\na,old,9\n")
    result = ingested(
        tmp_path, title='{ column = "name", pick = "latest" }', more='order_by = "v"', source="types = { v = 'number' }"
    )
    assert column(result, "title") == ["new"]
