"""Pictures as sources hold them: bytes, a path or an address, Hugging Face's {bytes, path}, base64 text, lists of these.

Of a list the first picture counts, of {bytes, path} the bytes. Text is base64 where it is a ``data:`` address, or begins as the
bytes of a picture do in base64 and is nothing else; other text is the place of a file. Whether the bytes are a picture is for the
encoder to find out.
"""

from __future__ import annotations

import base64
import binascii
import re

import polars as pl

from sidlake.pipelines.ingest.columns import type_error
from sidlake.pipelines.ingest.json_files import json_object
from sidlake.pipelines.ingest.source_rows import SourceRows

__all__ = ["as_pictures"]

_DATA = re.compile(r"^data:image/[\w.+-]+(?:;[\w=-]+)*;base64,", re.IGNORECASE)
_BASE64 = re.compile(r"^(?:iVBORw0KGgo|/9j/[24]|R0lGOD|UklGR|Qk0|SUkqA|TU0AK)[A-Za-z0-9+/\s]{40,}={0,2}\s*$")


def as_pictures(rows: SourceRows, name: str) -> tuple[pl.Series, pl.Series]:
    """Return a column's pictures: bytes, and the places of those that are elsewhere; null where a row has none.

    Raises:
        ContractError: the column holds neither.
    """
    column = rows.column(name)
    kind = column.dtype
    if name in rows.nested:
        return _of_json(rows, name)
    if isinstance(kind, pl.Array):
        column, kind = column.arr.to_list(), pl.List(kind.inner)
    if isinstance(kind, pl.List) and (kind.inner in (pl.Binary, pl.String) or isinstance(kind.inner, pl.Struct)):
        column = column.list.drop_nulls().list.first()
        kind = column.dtype
    if isinstance(kind, pl.Struct):
        fields = {one.name: one.dtype for one in kind.fields}
        data = column.struct.field("bytes") if fields.get("bytes") == pl.Binary else None
        place = column.struct.field("path") if fields.get("path") == pl.String else None
        if data is None and place is None:
            raise type_error(rows, name, f"a picture is bytes, a path or an object of bytes and path, image has {sorted(fields)}")
        places = place if place is not None else _nothing(pl.String, len(rows))
        if data is None:
            return _split_text(places)
        return _of_struct(rows, name, column, data, places)
    if kind == pl.Binary:
        return column, _nothing(pl.String, len(rows))
    if kind == pl.Null:
        return _nothing(pl.Binary, len(rows)), _nothing(pl.String, len(rows))
    if kind == pl.String:
        return _split_text(column)
    raise type_error(rows, name, "a picture (image) is bytes, a path or an object of bytes and path")


def _of_struct(rows: SourceRows, name: str, column: pl.Series, data: pl.Series, places: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return the bytes, and the places of those without; `ContractError` where no object holds either."""
    held = pl.DataFrame({"d": data, "p": places}).select(
        pl.when(pl.col("d").bin.size() > 0).then("d").alias("d"), pl.when(pl.col("p") != "").then("p").alias("p")
    )
    if (column.is_not_null() & held["d"].is_null() & held["p"].is_null()).all() and len(rows):
        raise type_error(rows, name, "a picture (image) has bytes or a path, here all bytes are empty and no path is given")
    return held["d"], held.select(pl.when(pl.col("d").is_null()).then("p").alias("p"))["p"]


def _split_text(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return the bytes of base64 texts, and the other texts, null where they are empty."""
    texts = column.str.strip_chars()
    if not texts.str.contains(r"^(?i)(data:image/|iVBORw0KGgo|/9j/|R0lGOD|UklGR|Qk0|SUkqA|TU0AK)").any():
        return _nothing(pl.Binary, len(column)), texts.set(texts == "", None)
    found = [None if text is None else _decoded(text) for text in texts.to_list()]
    places = [None if data is not None or not text else text for data, text in zip(found, texts.to_list(), strict=True)]
    return pl.Series("d", found, pl.Binary), pl.Series("p", places, pl.String)


def _decoded(text: str) -> bytes | None:
    data = _DATA.match(text)
    if data is None and not _BASE64.match(text):
        return None
    try:
        return base64.b64decode(re.sub(r"\s", "", text[data.end() if data else 0 :]), validate=True)
    except (binascii.Error, ValueError):
        return None


def _of_json(rows: SourceRows, name: str) -> tuple[pl.Series, pl.Series]:
    """Return pictures of JSON lines: an object's base64 `bytes`, or its `path`; of a list, the first entry."""
    found: list[bytes | None] = []
    places: list[str | None] = []
    for value, nested in zip(rows.column(name).to_list(), rows.nested[name].to_list(), strict=True):
        entry = json_object(value) if nested and value is not None else value
        entry = next((one for one in entry if one is not None), None) if isinstance(entry, list) else entry
        data = path = None
        if isinstance(entry, dict):
            text, path = entry.get("bytes"), entry.get("path")
            data = _plain_base64(text) if isinstance(text, str) else None
            if data is None and not isinstance(path, str):
                raise type_error(rows, name, "a picture (image) is a path or an object of base64 bytes and path")
        elif isinstance(entry, str):
            data, path = _decoded(entry), entry.strip() or None
        found.append(data)
        places.append(path if data is None and isinstance(path, str) else None)
    return pl.Series("d", found, pl.Binary), pl.Series("p", places, pl.String)


def _plain_base64(text: str) -> bytes | None:
    data = _DATA.match(text)
    try:
        return base64.b64decode(re.sub(r"\s", "", text[data.end() if data else 0 :]), validate=True)
    except (binascii.Error, ValueError):
        return None


def _nothing(kind: type[pl.DataType], count: int) -> pl.Series:
    return pl.Series("none", [None], kind).new_from_index(0, count)
