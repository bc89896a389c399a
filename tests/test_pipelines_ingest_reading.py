"""Ingest: every source row is kept, merged or rejected by a named rule; bad sources fail before anything is written."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import ContractError, SourceError
from sidlake.pipelines.ingest.reading import ingest, keep_unchanged
from sidlake.pipelines.recipe import load_recipe

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ITEMS = """
name = "t"
[sources.items]
path = "items.parquet"
[items]
source = "items"
item_id = "id"
title = { column = "name" }
max_rejected_share = 1.0
"""
LARGE = pa.table({"id": [str(i) for i in range(50_000)], "name": [f"name {i}" for i in range(50_000)]})
NO_STRINGS = pa.array([], pa.string())
EVENTS = """
[sources.events]
path = "events.parquet"
[interactions]
source = "events"
user_id = "user"
item_id = "item"
ts = "at"
weight = "n"
max_rejected_share = 1.0
"""


def run(folder, items, events=None, *, recipe=ITEMS, now=NOW):
    """Ingest the given columns through real Parquet files."""
    pl.DataFrame(items, strict=False).write_parquet(folder / "items.parquet")
    if events is not None:
        recipe += EVENTS
        pl.DataFrame(events, strict=False).write_parquet(folder / "events.parquet")
    (folder / "recipe.toml").write_text(recipe)
    return ingest(load_recipe(folder / "recipe.toml"), run_id="run", now=now)


def rejected(result):
    return [(r["target"], r["row"], r["rule"], r["value"]) for r in result.rejected_rows.to_pylist()]


def test_items_without_id_text_or_uniqueness_are_rejected_by_rule(tmp_path):
    result = run(tmp_path, {"id": ["a", None, "", "  ", "b", "c", "a"], "name": ["x", "x", "x", "x", "  \t ", None, "y"]})
    assert result.items.column("item_id").to_pylist() == ["a"]
    assert rejected(result) == [
        ("items", 1, "missing_item_id", ""),
        ("items", 2, "missing_item_id", ""),
        ("items", 3, "missing_item_id", ""),
        ("items", 4, "empty_text", ""),
        ("items", 5, "empty_text", ""),
        ("items", 6, "duplicate_item_id", "a"),
    ]


def test_interactions_that_break_the_contract_are_rejected_by_rule(tmp_path):
    day = datetime(2025, 5, 1, 12)
    events = {
        "user": ["u", None, "u", "u", "u", "u", "u", "u"],
        "item": ["a", "a", "", "zz", "a", "a", "a", "a"],
        "at": [day, day, day, day, None, datetime(2026, 1, 2), day, day],
        "n": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, float("nan"), -2.0],
    }
    result = run(tmp_path, {"id": ["a"], "name": ["x"]}, events)
    assert [r[1:3] for r in rejected(result)] == [
        (1, "missing_user_id"),
        (2, "missing_item_id"),
        (3, "unknown_item"),
        (4, "missing_timestamp"),
        (5, "future_timestamp"),
        (6, "bad_weight"),
        (7, "bad_weight"),
    ]
    assert len(result.interactions) == 1


def test_lines_of_one_user_item_and_instant_are_one_event(tmp_path):
    day = datetime(2025, 5, 1)
    events = {"user": ["u"] * 3, "item": ["a"] * 3, "at": [day, day, day + timedelta(seconds=1)], "n": [2, 3, 4]}
    result = run(tmp_path, {"id": ["a"], "name": ["x"]}, events)
    assert result.interactions.column("weight").to_pylist() == [5.0, 4.0]


@pytest.mark.parametrize("text", ["emoji 👩‍👩‍👧", "עברית من اليمين", "tab\tand\x07bell\x00null", "x" * 1_000_000, "ﬁ ligature"])
def test_strange_text_is_kept(tmp_path, text):
    result = run(tmp_path, {"id": ["a"], "name": [text]})
    assert len(result.items) == 1
    assert result.items.column("text").to_pylist()[0].split() == text.split()


def test_the_latest_filled_value_wins_and_ties_go_to_the_greater(tmp_path):
    recipe = ITEMS.replace('{ column = "name" }', '{ column = "name", pick = "latest" }\norder_by = "at"')
    recipe += '[items.price]\ncolumn = "price"\npick = "median"\n[items.first_seen]\ncolumn = "at"\npick = "min"\n'
    days = [datetime(2025, 1, d) for d in (1, 2, 3, 3, 4)]
    rows = {"id": ["a"] * 5, "name": ["old", "mid", "new A", "new B", "  "], "at": days, "price": [1.0, 2.0, 9.0, 2.0, 3.0]}
    item = run(tmp_path, rows, recipe=recipe).items.to_pylist()[0]
    assert (item["title"], item["price"], item["first_seen"].day) == ("new B", 2.0, 1)


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(8)))
def test_the_order_of_source_rows_changes_nothing(order, tmp_path_factory):
    names = ["x", "y", "x", "", "z", "z z", "q", "r"]
    ids = ["a", "a", "b", "b", "c", "c", "d", None]
    folder = tmp_path_factory.mktemp("order")
    straight = run(folder, {"id": ids, "name": names})
    shuffled = run(folder, {"id": [ids[i] for i in order], "name": [names[i] for i in order]})
    assert straight.items.equals(shuffled.items)


def test_numbers_are_spelled_as_identifiers(tmp_path):
    assert run(tmp_path, {"id": [7, 12], "name": ["x", "y"]}).items.column("item_id").to_pylist() == ["12", "7"]


def test_the_content_hash_follows_the_text_only(tmp_path):
    first = run(tmp_path, {"id": ["a", "b"], "name": ["same", "same"]}).items.column("content_hash").to_pylist()
    second = run(tmp_path, {"id": ["a"], "name": ["other"]}).items.column("content_hash").to_pylist()
    assert first[0] == first[1] != second[0]


def test_lists_of_items_become_events_in_order(tmp_path):
    pl.DataFrame({"user": [1, 2], "seq": [[5, 6, 5], []]}, schema={"user": pl.Int32, "seq": pl.List(pl.Int32)}).write_parquet(
        tmp_path / "events.parquet"
    )
    recipe = ITEMS + EVENTS.replace('item_id = "item"\nts = "at"\nweight = "n"', 'item_id = "seq"\nsequences = true')
    pl.DataFrame({"id": [5, 6], "name": ["x", "y"]}).write_parquet(tmp_path / "items.parquet")
    (tmp_path / "recipe.toml").write_text(recipe)
    result = ingest(load_recipe(tmp_path / "recipe.toml"), run_id="run", now=NOW)
    assert result.interactions.sort_by("ts").column("item_id").to_pylist() == ["5", "6", "5"]


def test_unchanged_items_keep_their_dates_and_gone_items_stay(tmp_path):
    before = run(tmp_path, {"id": ["a", "b", "c"], "name": ["x", "y", "z"]}).items
    later = ingest(load_recipe(tmp_path / "recipe.toml"), run_id="run", now=NOW + timedelta(days=1)).items
    changed = run(tmp_path, {"id": ["a", "b", "d"], "name": ["x", "Y", "w"]}, now=NOW + timedelta(days=1)).items
    merged = {row["item_id"]: row for row in keep_unchanged(changed, before).to_pylist()}
    assert set(merged) == {"a", "b", "c", "d"}
    assert merged["a"]["updated_at"] == NOW
    assert merged["b"]["updated_at"] == NOW + timedelta(days=1)
    assert keep_unchanged(later, before).equals(before)


# ------------------------------------------------------------------------------------------------------------- broken sources


def broken(folder, *, data=None, text=None, columns=None, file_format="parquet"):
    path = folder / f"items.{file_format}"
    if data is not None:
        path.write_bytes(data)
    elif text is not None:
        path.write_text(text)
    elif columns is not None:
        pq.write_table(pa.table(columns), path)
    recipe = ITEMS.replace("items.parquet", path.name).replace('path = "items', f'format = "{file_format}"\npath = "items')
    (folder / "recipe.toml").write_text(recipe)
    return ingest(load_recipe(folder / "recipe.toml"), run_id="run", now=NOW)


@pytest.mark.parametrize(
    ("error", "says", "source"),
    [
        (SourceError, "no such file", {}),
        (SourceError, "cannot be read as parquet", {"data": b"PK\x03\x04 this is a zip"}),
        (SourceError, "cannot be read as parquet", {"data": b""}),
        (SourceError, "no column 'name'; it has", {"columns": {"id": ["a"], "nam": ["x"]}}),
        (ContractError, "holds Float64; an identifier is a string or an integer", {"columns": {"id": [1.5], "name": ["x"]}}),
        (ContractError, "no item left of 0 rows", {"columns": {"id": NO_STRINGS, "name": NO_STRINGS}}),
        (ContractError, "no item left of 1 rows", {"columns": {"id": ["a"], "name": [""]}}),
        (SourceError, "cannot be read as jsonl|damaged", {"text": "{not json", "file_format": "jsonl"}),
    ],
)  # fmt: skip
def test_a_broken_source_is_a_named_error(tmp_path, error, says, source):
    with pytest.raises(error, match=says):
        broken(tmp_path, **source)


def test_a_truncated_parquet_file_is_a_named_error(tmp_path):
    pq.write_table(
        pa.table({"id": [str(i) for i in range(50_000)], "name": [f"name {i}" for i in range(50_000)]}), tmp_path / "whole"
    )
    whole = (tmp_path / "whole").read_bytes()
    for share in (0.3, 0.99):
        with pytest.raises(SourceError, match=r"damaged|cut short"):
            broken(tmp_path, data=whole[: int(len(whole) * share)])


def test_a_damaged_page_is_a_named_error(tmp_path):
    pq.write_table(LARGE, tmp_path / "whole", compression="zstd")
    data = bytearray((tmp_path / "whole").read_bytes())
    data[2000:2400] = bytes(400)
    with pytest.raises(SourceError, match=r"damaged|cut short"):
        broken(tmp_path, data=bytes(data))


def test_csv_and_json_lines_give_the_same_items_as_parquet(tmp_path):
    rows = [{"id": "a", "name": 'x, "y"'}, {"id": "b", "name": "ü"}]
    parquet = run(tmp_path, {"id": ["a", "b"], "name": [r["name"] for r in rows]}).items
    jsonl = broken(tmp_path, text="\n".join(json.dumps(r) for r in rows), file_format="jsonl").items
    csv = broken(tmp_path, text='id,name\na,"x, ""y"""\nb,ü\n', file_format="csv").items
    assert parquet.equals(jsonl)
    assert parquet.equals(csv)


def test_too_many_rejected_rows_fail_the_run_and_name_the_worst_rules(tmp_path):
    with pytest.raises(ContractError, match=r"items: 66\.7% of 3 source rows rejected, allowed 50\.0% \(empty_text 2\)"):
        run(tmp_path, {"id": ["a", "b", "c"], "name": ["x", "", ""]}, recipe=ITEMS.replace("1.0", "0.5"))


@pytest.mark.parametrize("at", [["yesterday"], [3.5]])
def test_a_timestamp_column_without_a_time_is_an_error_that_shows_a_value_and_the_key(tmp_path, at):
    with pytest.raises(ContractError, match=rf"unreadable_timestamp 1, such as '{at[0]}': a timestamp column is .*types ="):
        run(tmp_path, {"id": ["a"], "name": ["x"]}, {"user": ["u"], "item": ["a"], "at": at, "n": [1]})


def test_a_weight_column_without_numbers_is_an_error_that_shows_a_value(tmp_path):
    events = {"user": ["u"], "item": ["a"], "at": [datetime(2025, 1, 1)], "n": ["many"]}
    with pytest.raises(ContractError, match="bad_weight 1, such as 'many': a weight is a number above 0"):
        run(tmp_path, {"id": ["a"], "name": ["x"]}, events)


# ------------------------------------------------------------------------------------------------------------------- the shop


def test_every_row_of_the_shop_is_accounted_for():
    recipe = load_recipe(ROOT / "recipes" / "online_retail.toml")
    result = ingest(recipe, run_id="run", now=NOW)
    rules = pl.from_arrow(result.rejected_rows).group_by("target", "rule").len().sort("target", "rule").rows()
    assert result.rows_read == {"items": {"": 1_044_847}, "interactions": {"": 1_044_847}}
    assert len(result.items) == 4_724
    assert len(result.interactions) == 765_988
    # the same counts from another engine, written by hand: the first rule that fits, in the recipe's order
    codes = "POST|DOT|M|C2|C3|D|S|B|BANK CHARGES|ADJUST2?|AMAZONFEE|CRUK|PADS|GIFT|gift_\\d+_\\d+|TEST\\d+"
    expected = duckdb.sql(
        f"""select case when InvoiceNo[1] in ('C', 'A') then 'cancelled_invoice'
                   when regexp_matches(StockCode, '^(?i)({codes})$') then 'non_product_code'
                   when Quantity <= 0 then 'quantity_not_positive' when UnitPrice <= 0 then 'price_not_positive'
                   when CustomerID is null then 'missing_customer' end as rule, count(*)
            from '{ROOT / "data" / "online_retail.parquet"}' group by 1 having rule is not null order by 1"""
    ).fetchall()
    assert [(rule, n) for target, rule, n in rules if target == "interactions"] == expected
    assert [(rule, n) for target, rule, n in rules if target == "items"] == [
        row for row in expected if row[0] != "missing_customer"
    ]
