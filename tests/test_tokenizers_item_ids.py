"""One spelling of identifiers on every side: columns, lists in Python, lists in files."""

import codecs

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidlake.tokenizers.item_ids import normal_ids, read_id_list, spelled


@given(st.lists(st.text(st.characters(blacklist_categories=("Cs",)))), st.booleans())
def test_spelling_twice_changes_nothing_more(ids, uppercase):
    once = normal_ids(ids, uppercase=uppercase)
    assert normal_ids(once, uppercase=uppercase) == once
    assert spelled(pl.Series(ids, dtype=pl.String), uppercase=uppercase).to_list() == once


@pytest.mark.parametrize(
    "data", [b"a\nb c\n", b"a\r\nb c\r\n\r\n", codecs.BOM_UTF8 + b" a\nb c", codecs.BOM_UTF16_LE + "a\nb c".encode("utf-16-le")]
)
def test_a_list_of_ids_is_read_whatever_system_wrote_it(tmp_path, data):
    (tmp_path / "ids.txt").write_bytes(data)
    assert read_id_list(tmp_path / "ids.txt") == ["a", "b c"]


def test_an_empty_line_between_ids_stays_a_line(tmp_path):
    (tmp_path / "ids.txt").write_text("a\n\nb\n")
    assert read_id_list(tmp_path / "ids.txt") == ["a", "", "b"]
