from __future__ import annotations

import json

import dagster as dg
import polars as pl
import pyarrow as pa

from sidlake.assets.evidence import as_metadata, column_schema, preview
from sidlake.assets.plots import code_usage
from sidlake.warehouse.contracts import CONTRACTS


def test_no_cell_can_break_out_of_the_preview():
    rows = pl.DataFrame({"title": ["a|b", "two\nlines", "<img src=x>", "nul\x00", "`code`", "مرحبا", None]})
    lines = str(preview(rows).value).splitlines()
    assert lines == [
        "| title |", "| --- |", r"| a\|b |", "| two lines |", "| &lt;img src=x> |", "| nul  |", "| 'code' |", "| مرحبا |", "|  |",
    ]  # fmt: skip


def test_preview_cuts_megabyte_texts_vectors_and_bytes():
    rows = pl.DataFrame({"text": ["x" * 1_000_000], "vector": [[0.123456] * 384], "image": [b"\x89PNG" * 1000]})
    (row,) = str(preview(rows).value).splitlines()[2:]
    assert len(row) < 200
    assert "0.123, 0.123" in row
    assert "4,000 bytes" in row


def test_column_schema_carries_the_contract_s_comments_and_nulls():
    schema = column_schema(CONTRACTS["items"]).value
    assert [column.name for column in schema.columns] == CONTRACTS["items"].names
    assert {column.name: column.constraints.nullable for column in schema.columns}["price"] is True
    assert schema.columns[0].description == "the item; unique and not empty"
    assert not schema.columns[0].constraints.nullable


def test_a_column_without_a_comment_has_an_empty_description():
    (column,) = column_schema(pa.schema([pa.field("x", pa.int8())])).value.columns
    assert column.description == ""


def test_numbers_stay_numbers_and_flags_stay_flags():
    found = as_metadata({"rows": 3, "share": 0.5, "skipped": True, "widths": (4, 8), "encoder": "text:a"})
    assert found["rows"] == dg.MetadataValue.int(3)
    assert found["share"] == dg.MetadataValue.float(0.5)
    assert found["skipped"] == dg.MetadataValue.bool(True)
    assert found["widths"] == dg.MetadataValue.json([4, 8])
    assert found["encoder"] == dg.MetadataValue.text("text:a")


def test_metadata_can_be_stored_as_json():
    found = as_metadata({"n": 2**62, "x": 0.25, "d": {"a": [1, 2]}})
    assert json.loads(json.dumps({name: value.value for name, value in found.items()})) == {
        "n": 2**62,
        "x": 0.25,
        "d": {"a": [1, 2]},
    }


def test_the_usage_plot_is_a_small_inline_picture():
    import numpy as np

    text = str(code_usage("usage", [np.arange(256), np.ones(4, dtype=np.int64)]).value)
    assert text.startswith("![usage](data:image/png;base64,iVBOR")
    assert len(text) < 60_000
