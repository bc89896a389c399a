"""Pictures as sources hold them, each read or refused by its real cause."""

import base64
import io

import polars as pl
import pytest
from PIL import Image
from source_files_sample import column, ingested, write

from sidlake.errors import ContractError


def png():
    data = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(data, "PNG")
    return data.getvalue()


PNG = png()
TEXT = base64.b64encode(PNG).decode()
STRUCT = pl.Struct({"bytes": pl.Binary, "path": pl.String})


@pytest.mark.parametrize(
    ("values", "kind", "data", "place"),
    [
        ([PNG, None], pl.Binary, PNG, None),
        (["a.png", ""], pl.String, None, "a.png"),
        ([{"bytes": PNG, "path": "a.png"}, None], STRUCT, PNG, None),
        ([{"bytes": None, "path": "a.png"}, {"bytes": b"", "path": None}], STRUCT, None, "a.png"),
        ([[PNG, b"second"], []], pl.List(pl.Binary), PNG, None),
        ([["a.png", "b.png"], None], pl.List(pl.String), None, "a.png"),
        ([[{"bytes": PNG, "path": None}], [None]], pl.List(STRUCT), PNG, None),
        ([f"data:image/png;base64,{TEXT}", None], pl.String, PNG, None),
        ([TEXT, None], pl.String, PNG, None),
        (["/9j/not/a/picture.jpg", None], pl.String, None, "/9j/not/a/picture.jpg"),
    ],
)
def test_a_picture_is_found_in_the_shape_that_a_source_holds_it_in(tmp_path, values, kind, data, place):
    frame = pl.DataFrame({"id": ["a", "b"], "name": ["x", "y"], "image": pl.Series(values, dtype=kind)})
    frame.write_parquet(tmp_path / "items.parquet")
    result = ingested(tmp_path, "items.parquet", more='image = "image"')
    assert column(result, "image") == [data, None]
    assert column(result, "image_uri") == [place, None]


def test_json_lines_hold_pictures_as_objects_of_base64_or_path(tmp_path):
    entries = [{"bytes": TEXT}, {"path": "a.png"}, ["b.png"], "c.png", None]
    write(tmp_path / "items.jsonl", [{"id": str(at), "name": "x", "image": one} for at, one in enumerate(entries)])
    result = ingested(tmp_path, "items.jsonl", more='image = "image"')
    assert column(result, "image") == [PNG, None, None, None, None]
    assert column(result, "image_uri") == [None, "a.png", "b.png", "c.png", None]


def test_objects_without_any_picture_are_refused_by_that_cause(tmp_path):
    values = pl.Series([{"bytes": b"", "path": None}] * 2, dtype=STRUCT)
    pl.DataFrame({"id": ["a", "b"], "name": ["x", "y"], "image": values}).write_parquet(tmp_path / "items.parquet")
    with pytest.raises(ContractError, match=r"column 'image' .* Struct.*all bytes are empty"):
        ingested(tmp_path, "items.parquet", more='image = "image"')
