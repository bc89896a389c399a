"""Columns as values of the contracts: text stays text on every side and in every format, and nothing is lost in silence."""

from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from source_files_sample import column, ingested, refused, write

from sidlake.errors import ContractError

FORMATS = ("csv", "jsonl", "parquet")
FIRST = datetime(2024, 3, 1, 9)


@pytest.mark.parametrize("form", FORMATS)
def test_identifiers_keep_zeros_and_case_and_lose_blanks_and_unicodes_two_forms(tmp_path, form):
    ids = ["007", "7", "Ab", "ab", " x ", "Cafe\u0301"]
    write(tmp_path / f"items.{form}", [{"id": one, "name": f"n{at}"} for at, one in enumerate(ids)])
    write(tmp_path / f"events.{form}", [{"user": "0042 ", "item": one, "at": str(FIRST)} for one in ("007", "x", "Caf\u00e9")])
    result = ingested(tmp_path, f"items.{form}", events=f"events.{form}")
    assert column(result, "item_id") == sorted(["007", "7", "Ab", "ab", "x", "Caf\u00e9"])
    assert sorted(column(result, "item_id", "interactions")) == ["007", "Caf\u00e9", "x"]
    assert set(column(result, "user_id", "interactions")) == {"0042"}


def test_an_identifier_that_is_no_number_in_a_late_row_is_read(tmp_path):
    write(tmp_path / "items.csv", [{"id": at, "name": f"n{at}"} for at in range(12_000)] + [{"id": "guest-9", "name": "late"}])
    assert "guest-9" in column(ingested(tmp_path), "item_id")


@pytest.mark.parametrize("form", FORMATS)
def test_identifiers_that_became_decimals_are_refused_or_mended_by_the_recipes_word(tmp_path, form):
    rows = [{"id": 12.0, "name": "x"}, {"id": 7.0, "name": "y"}]
    write(tmp_path / f"items.{form}", rows)
    with pytest.raises(ContractError, match=r"column 'id' .*types = \{ id = 'integer' \}"):
        ingested(tmp_path, f"items.{form}")
    assert column(ingested(tmp_path, f"items.{form}", source="types = { id = 'integer' }"), "item_id") == ["12", "7"]
    assert column(ingested(tmp_path, f"items.{form}", source="types = { id = 'text' }"), "item_id") == ["12.0", "7.0"]


def test_an_identifier_that_is_no_whole_number_though_it_is_declared_is_refused_by_rule(tmp_path):
    write(tmp_path / "items.csv", [{"id": "12.0", "name": "x"}, {"id": "1.5", "name": "y"}])
    assert refused(ingested(tmp_path, source="types = { id = 'integer' }")) == [("unreadable_identifier", "1.5")]


def test_upper_case_of_the_items_holds_for_the_events(tmp_path):
    write(tmp_path / "items.csv", [{"id": "85123a", "name": "x"}])
    write(tmp_path / "events.csv", [{"user": "u", "item": "85123A", "at": str(FIRST)}])
    result = ingested(tmp_path, more="uppercase_ids = true", events="events.csv")
    assert column(result, "item_id", "interactions") == ["85123A"]


def test_html_is_taken_out_of_text_by_the_recipes_word(tmp_path):
    write(tmp_path / "items.csv", [{"id": "a", "name": "<b>Salt &amp; pepper</b><br/>mills, 5 < 6"}])
    assert column(ingested(tmp_path, source="types = { name = { html = true } }"), "title") == ["Salt & pepper mills, 5 < 6"]
    assert column(ingested(tmp_path), "title") == ["<b>Salt &amp; pepper</b><br/>mills, 5 < 6"]


def test_prices_that_cannot_be_read_are_refused_with_their_text_and_the_key(tmp_path):
    write(
        tmp_path / "items.csv",
        [{"id": "a", "name": "x", "p": "12,5"}, {"id": "b", "name": "y", "p": "3"}, {"id": "c", "name": "z", "p": ""}],
    )
    assert refused(ingested(tmp_path, more='price = "p"')) == [("unreadable_price", "12,5")]
    assert column(ingested(tmp_path, more='price = "p"', source='decimal = ","'), "price") == [12.5, 3.0, None]
    with pytest.raises(ContractError, match="unreadable_price 1, such as '12,5': a price is a number: say decimal"):
        ingested(tmp_path, more='price = "p"', share=0.1)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("name", [b"x"], pl.Binary), ("name", [timedelta(days=1)], pl.Duration), ("name", [{"a": 1}], pl.Struct({"a": pl.Int64})),
        ("id", [1.5], pl.Float64), ("id", [["a"]], pl.List(pl.String)), ("id", [True], pl.Boolean), ("id", [b"a"], pl.Binary),
        ("p", [[1.0]], pl.List(pl.Float64)), ("p", [b"1"], pl.Binary), ("p", [FIRST], pl.Datetime), ("p", [True], pl.Boolean),
        ("c", [b"1"], pl.Binary), ("c", [[{"a": 1}]], pl.List(pl.Struct({"a": pl.Int64}))),
        ("c", [{"a": 1}], pl.Struct({"a": pl.Int64})),
        ("s", [FIRST.time()], pl.Time), ("s", [["2024-01-01"]], pl.List(pl.String)), ("s", [timedelta(1)], pl.Duration),
        ("i", [3], pl.Int64), ("i", [["a", "b"]], pl.List(pl.List(pl.String))), ("i", [{"x": 1}], pl.Struct({"x": pl.Int64})),
    ],
)  # fmt: skip
def test_a_type_that_cannot_be_what_it_is_used_for_is_an_error_that_names_column_and_file(tmp_path, name, values, kind):
    values = [[values[0]]] if isinstance(kind, pl.List) and isinstance(kind.inner, pl.List) else values
    columns = {"id": ["a"], "name": ["x"], "p": [1.0], "c": ["c"], "s": [FIRST], "i": ["a.png"]}
    frame = pl.DataFrame(columns).with_columns(pl.Series(name, values, kind))
    frame.write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ContractError, match=rf"column '{name}' of .*items\.parquet holds"):
        ingested(tmp_path, "items.parquet", more='price = "p"\ncategory = "c"\nfirst_seen = "s"\nimage = "i"')


def test_a_plain_type_is_text_where_text_is_wanted(tmp_path):
    frame = pl.DataFrame({"id": [7], "name": ["x"], "a": [[1, 2]], "b": [True], "c": [FIRST.date()]})
    frame = frame.with_columns(pl.Series("d", [["x", "y"]], pl.Array(pl.String, 2)), pl.col("name").cast(pl.Categorical).alias("e"))
    frame.write_parquet(tmp_path / "items.parquet")
    result = ingested(tmp_path, "items.parquet", more='text = ["a", "b", "c", "d", "e"]')
    assert column(result, "text") == ["x. 1, 2. true. 2024-03-01. x, y. x"]


names = st.text(st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufeff"), min_size=1, max_size=12)
some_rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.one_of(st.from_regex(r"[0A-Za-z_-][0-9A-Za-z_-]{0,5}", fullmatch=True), names),
            "name": st.one_of(st.just(""), names),
            "price": st.one_of(st.none(), st.integers(0, 999), st.decimals(0, 99, places=2).map(float)),
            "at": st.integers(0, 10**8).map(lambda seconds: (FIRST - timedelta(seconds=seconds)).isoformat()),
            "cat": st.one_of(st.just(""), names),
        }
    ),
    min_size=1,
    max_size=6,
)
PICKED = 'order_by = "at"\nfirst_seen = { column = "at", pick = "min" }\nprice = { column = "price", pick = "median" }\n'
PICKED += 'category = { column = "cat", pick = "most_common" }'


@settings(max_examples=60, deadline=None)
@given(rows=some_rows)
def test_the_same_rows_are_the_same_items_in_every_format(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    schema = {"id": pl.String, "name": pl.String, "price": pl.Float64, "at": pl.String, "cat": pl.String}
    found = []
    for form in FORMATS:
        write(folder / f"items.{form}", [{**row, "price": row["price"]} for row in rows], schema)
        try:
            result = ingested(folder, f"items.{form}", title='{ column = "name", pick = "latest" }', more=PICKED)
            found.append((result.items.to_pylist(), refused(result)))
        except ContractError as error:
            found.append((str(error).replace(form, "?"), []))
    assert found[0] == found[1] == found[2]
