"""Which files a source is: the one that is named is read, and what is left out is named."""

import os

import polars as pl
import pytest
from source_files_sample import again, column, ingested, write

from sidlake.errors import SourceError
from sidlake.pipelines.ingest.sources import find_files, format_of, source_files
from sidlake.pipelines.settings.sources import SourceConfig

ROWS = [{"id": "a", "name": "x"}]
OTHER = [{"id": "b", "name": "y"}]


@pytest.mark.parametrize("name", ["items[1].csv", "what?.csv", "all*.csv", "~.csv", "items.csv?x=1", "it's 100% #1.csv"])
@pytest.mark.parametrize("ending", ["", ".parquet"])
def test_a_file_with_a_name_like_a_pattern_is_that_file(tmp_path, name, ending):
    for other in ("items1.csv", "whats.csv", "all of.csv"):
        write(tmp_path / (other + ending), OTHER)
    write(tmp_path / (name + ending), ROWS) if ending else (tmp_path / name).write_text("id,name\na,x\n")
    assert column(ingested(tmp_path, name + ending, source='format = "csv"' if not ending else ""), "item_id") == ["a"]


def test_a_path_in_the_home_folder_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write(tmp_path / "home" / "data" / "items.csv", ROWS)
    assert column(ingested(tmp_path, "~/data/items.csv"), "item_id") == ["a"]


@pytest.mark.parametrize(
    ("name", "form"), [("ITEMS.CSV", "csv"), ("a.Parquet", "parquet"), ("b.NDJSON.GZ", "jsonl"), ("c.TSV", "tsv")]
)
def test_endings_count_in_either_case(tmp_path, name, form):
    (tmp_path / name).write_bytes(b"")
    assert list(find_files(tmp_path, form, "items").files) == [name]
    assert list(find_files(tmp_path, None, "items").files) == [name]


def test_what_a_folder_reading_leaves_out_is_named(tmp_path):
    for name in ("a.csv", "b.xlsx", ".hidden.csv", "_tmp/c.csv", "sub/d.csv.gz", "e.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "broken.csv").symlink_to(tmp_path / "gone.csv")
    found = find_files(tmp_path, "csv", "items")
    assert list(found.files) == ["a.csv", "sub/d.csv.gz"]
    assert found.left_out == (".hidden.csv", "_tmp/c.csv", "b.xlsx", "broken.csv", "e.parquet")


def test_a_pattern_that_says_its_ending_names_its_files(tmp_path):
    (tmp_path / "rows.txt").write_text("id,name\n007,x\n")
    (tmp_path / "rows.log").write_text("nothing of the kind")
    assert column(ingested(tmp_path, "*.txt", source='format = "csv"'), "item_id") == ["007"]


def test_nothing_to_read_is_an_error_that_says_what_was_looked_for(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(SourceError, match=r"no file ending in \.csv in") as failure:
        source_files(tmp_path, "csv", "items")
    assert failure.value.details["left_out"] == ["a.xlsx"]


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("items", b"id,name\na,x\n", "csv"), ("items", b"id\tname\na\tx\n", "tsv"), ("items", b'{"id": 1}\n', "jsonl"),
        ("items.dat", b'[{"id": 1}]', "jsonl"), ("items.csv", b"id;name\n", "csv"), ("items.json", b"", "jsonl"),
    ],
)  # fmt: skip
def test_a_format_that_is_not_told_is_recognised(tmp_path, name, content, form):
    (tmp_path / name).write_bytes(content)
    assert format_of(tmp_path / name, SourceConfig(path=name)) == form


@pytest.mark.parametrize(
    ("name", "content", "told", "found"),
    [
        ("items.parquet", b"id,name\na,x\n", None, "csv"), ("items.csv", b"id,name\na,x\n", "parquet", "csv"),
        ("items.csv", b'{"id": 1}\n', "csv", "jsonl"), ("items.csv", b"PAR1....", None, "parquet"),
    ],
)  # fmt: skip
def test_a_format_that_the_content_contradicts_is_an_error_that_names_the_key(tmp_path, name, content, told, found):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=rf"its content is {found}; set format = '{found}'"):
        format_of(tmp_path / name, SourceConfig(path=name, format=told))


def test_content_without_a_format_is_an_error_that_names_the_key(tmp_path):
    (tmp_path / "items.bin").write_bytes(os.urandom(64) + b"\x00")
    with pytest.raises(SourceError, match="set format ="):
        format_of(tmp_path / "items.bin", SourceConfig(path="items.bin"))


def test_a_folder_may_hold_several_formats_where_none_is_told(tmp_path):
    write(tmp_path / "days" / "1.csv", [{"id": "007", "name": "x", "p": 1}])
    write(tmp_path / "days" / "2.jsonl", [{"id": "008", "name": "y", "p": 1.5}])
    write(tmp_path / "days" / "3.parquet", [{"id": "009", "name": "z", "p": 2}])
    result = ingested(tmp_path, "days", more='price = "p"')
    assert column(result, "item_id") == ["007", "008", "009"]
    assert column(result, "price") == [1.0, 1.5, 2.0]


def test_columns_may_be_called_as_ours_are(tmp_path):
    rows = [{"item_id": "a", "user_id": "u", "__row": "x", "__file": "2024-03-01", "ts": 2, "__rule": "n"}]
    pl.DataFrame(rows).write_parquet(tmp_path / "items.parquet")
    text = """
name = "ours"
[sources.rows]
path = "items.parquet"
[[sources.rows.rules]]
name = "on_row"
column = "__row"
matches = "y"
[items]
source = "rows"
item_id = "__row"
title = "item_id"
text = ["__rule"]
price = "ts"
[interactions]
source = "rows"
user_id = "item_id"
item_id = "__row"
ts = "__file"
"""
    (tmp_path / "recipe.toml").write_text(text)

    result = again(tmp_path)
    assert [result.items.to_pylist()[0][name] for name in ("item_id", "text", "price")] == ["x", "a. n", 2.0]
    assert column(result, "user_id", "interactions") == ["a"]
