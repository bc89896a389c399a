"""JSON lines: numbers keep their spelling, nested values are reached by path, broken lines are named."""

import json

import pytest
from source_files_sample import column, ingested

from sidlake.errors import ContractError, SourceError


def items_of(folder, text, **settings):
    (folder / "items.jsonl").write_text(text, encoding="utf-8")
    return ingested(folder, "items.jsonl", **settings)


def test_numbers_are_text_as_they_are_written(tmp_path):
    result = items_of(tmp_path, '{"id": 12345678901234567890, "name": 2.10}\n{"id": 7, "name": true}\n')
    assert dict(zip(column(result, "item_id"), column(result, "title"), strict=True)) == {
        "12345678901234567890": "2.10",
        "7": "true",
    }


def test_a_field_of_an_object_is_named_by_its_path(tmp_path):
    rows = [{"id": "a", "info": {"name": {"en": "lamp"}}}, {"id": "b", "info": None}]
    result = items_of(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), title='"info.name.en"')
    assert column(result, "title") == ["lamp"]


def test_one_list_of_objects_is_read_as_its_objects(tmp_path):
    (tmp_path / "items.json").write_text('[{"id": "007", "name": "x"},\n {"id": "8", "name": "y"}]')
    assert column(ingested(tmp_path, "items.json"), "item_id") == ["007", "8"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"id": "a", "name": "x"}\n{"id": ', "line 2 cannot be read as jsonl"),
        ('{"id": "a", "name": "x"}\n[1]\n', "line 2 .* is no object"),
        ('{"id": "a", "name": "\\ud800"}\n', "surrogate"),
        ('{"id": "a", "title": "x"}\n', r"no column 'name'; it has \['id', 'title'\]"),
        ("[1, 2]", "entry 0 .* is no object"),
        ("[" * 100_000, "cannot be read as jsonl"),
    ],
)
def test_what_is_no_object_is_named(tmp_path, text, says):
    with pytest.raises(SourceError, match=says):
        items_of(tmp_path, text)


def test_a_name_that_only_some_rows_have_is_no_error(tmp_path):
    result = items_of(tmp_path, '{"id": "a", "name": "x", "p": 1}\n\n{"id": "b", "name": "y"}\n', more='price = "p"')
    assert column(result, "price") == [1.0, None]


def test_lists_join_as_text_and_objects_are_refused_with_the_way_to_name_a_field(tmp_path):
    assert column(items_of(tmp_path, '{"id": "a", "name": ["x", "y", null]}\n'), "title") == ["x, y"]
    with pytest.raises(ContractError, match=r"a field of an object is named as name\.field"):
        items_of(tmp_path, '{"id": "a", "name": {"en": "x"}}\n')


def test_a_name_that_only_some_files_have_is_no_error_and_one_that_none_has_is(tmp_path):
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "1.jsonl").write_text('{"id": "a", "name": "x", "p": 1}\n')
    (tmp_path / "days" / "2.jsonl").write_text('{"id": "b", "name": "y"}\n')
    assert column(ingested(tmp_path, "days", more='price = "p"'), "price") == [1.0, None]
    with pytest.raises(SourceError, match="no column 'q'"):
        ingested(tmp_path, "days", more='price = "q"')
