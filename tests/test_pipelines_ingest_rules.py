"""Rules: each predicate refuses what it says, sees the source's own value, and is the same in every format."""

from datetime import datetime

import pytest
from source_files_sample import again, ingested, refused, write

from sidlake.errors import ContractError, RecipeError

ROWS = [
    {"id": "gift_1", "name": "red cup", "n": 5, "at": "2024-03-01T09:00:00"},
    {"id": "b", "name": "a", "n": -1, "at": "2023-12-31T23:59:59"},
    {"id": "c", "name": "a very long name indeed", "n": 100, "at": "2025-01-01T00:00:00"},
]
RULE = "[[sources.items.rules]]\nname = 'r'\ncolumn = '{column}'\n{predicate}"


def kept_out(folder, column, predicate, rows=ROWS, form="csv", **settings):
    write(folder / f"items.{form}", rows)
    result = ingested(folder, f"items.{form}", source=RULE.format(column=column, predicate=predicate), **settings)
    return [value for rule, value in refused(result) if rule == "r"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("column", "predicate", "values"),
    [
        ("id", "matches = '^gift_'", ["gift_1"]),
        ("id", "not_matches = '^gift_'", ["b", "c"]),
        ("id", "accepted = ['b', 'c']", ["gift_1"]),
        ("n", "at_most = 0", ["-1"]),
        ("n", "at_least = 100", ["100"]),
        ("name", "shorter_than = 2", ["a"]),
        ("name", "longer_than = 10", ["a very long name indeed"]),
        ("at", "before = '2024-01-01'", ["2023-12-31T23:59:59"]),
        ("at", "after = '2024-12-31T23:00:00+00:00'", ["2025-01-01T00:00:00"]),
    ],
)
def test_a_rule_refuses_what_it_says(tmp_path, form, column, predicate, values):
    assert kept_out(tmp_path, column, predicate, form=form) == values


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_an_empty_value_is_refused_by_is_null_alone(tmp_path, form):
    rows = [{"id": "a", "name": "x", "n": None}, {"id": "b", "name": "y", "n": "7"}]
    assert kept_out(tmp_path, "n", "is_null = true", rows, form) == [""]
    for predicate in ("not_matches = 'z'", "accepted = ['z']", "at_most = 9", "shorter_than = 3", "before = '2030-01-01'"):
        assert "" not in kept_out(tmp_path, "n", predicate, rows, form)


def test_a_value_that_is_no_number_or_time_cannot_keep_a_limit(tmp_path):
    rows = [*ROWS, {"id": "d", "name": "12", "n": 1, "at": "1.7.2024"}]
    assert kept_out(tmp_path, "name", "at_most = -9", rows) == [row["name"] for row in ROWS]
    assert kept_out(tmp_path, "at", "before = '1990-01-01'", rows) == ["1.7.2024"]


def test_a_rule_sees_the_value_before_it_is_spelled_anew(tmp_path):
    rows = [{"id": " gift_1", "name": "x"}, {"id": "b", "name": "y"}]
    assert kept_out(tmp_path, "id", "matches = '^ gift'", rows, more="uppercase_ids = true") == [" gift_1"]


def test_the_first_rule_names_the_row(tmp_path):
    both = (
        RULE.format(column="id", predicate="matches = 'gift'")
        + "\n"
        + RULE.replace("'r'", "'s'").format(column="n", predicate="at_least = 5")
    )
    write(tmp_path / "items.csv", ROWS)
    assert refused(ingested(tmp_path, source=both)) == [("r", "gift_1"), ("s", "100")]


@pytest.mark.parametrize("predicate", ["before = 'soon'", "matches = 'a'\nat_most = 3", "accepted = []"])
def test_a_rule_that_cannot_be_is_refused_by_the_recipe(tmp_path, predicate):
    with pytest.raises(RecipeError, match="r: "):
        kept_out(tmp_path, "id", predicate)


def test_a_rule_on_times_of_parquet_that_asks_for_a_number_does_not_fit(tmp_path):
    with pytest.raises(ContractError, match="rule r does not fit its column"):
        kept_out(tmp_path, "at", "at_most = 3", [{"id": "a", "name": "x", "at": datetime(2024, 1, 1)}], "parquet")


@pytest.mark.parametrize("year", [1, 1970, 1979])
def test_an_event_of_an_implausible_time_is_refused_and_an_early_catalogue_says_so(tmp_path, year):
    write(tmp_path / "items.csv", [{"id": "a", "name": "x"}])
    write(
        tmp_path / "events.csv",
        [{"user": "u", "item": "a", "at": f"{year:04}-05-01"}, {"user": "u", "item": "a", "at": "1985-01-01"}],
    )
    assert [rule for rule, _ in refused(ingested(tmp_path, events="events.csv"))] == ["implausible_timestamp"]
    path = tmp_path / "recipe.toml"
    path.write_text(path.read_text() + 'earliest = "0001-01-01"\n')

    assert len(again(tmp_path).interactions) == 2
