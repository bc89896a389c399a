"""Lists of values: category paths, and the items of a user's sequence.

A list is a Parquet list, a list in JSON lines, or text that the recipe's `types` says is one: with a separator (``A|B|C``), or of
kind ``list``, which is JSON. A single value is a path of one. Of a list of category paths the first that is not empty counts.
"""

from __future__ import annotations

import polars as pl

from sidlake.errors import ContractError
from sidlake.pipelines.ingest.columns import Converted, spelling, toml_key, type_error
from sidlake.pipelines.ingest.json_files import json_list
from sidlake.pipelines.ingest.source_rows import SourceRows

__all__ = ["as_category", "as_sequence"]


def as_category(rows: SourceRows, name: str) -> Converted:
    """Return category paths, List(String), general to specific: no empty names, null where none is left.

    Raises:
        ContractError: the column holds objects, bytes or what else is no list of texts.
    """
    column, raw = rows.column(name), None
    if _is_text_list(rows, name):
        raw = column.cast(pl.String)
        column = _from_text(rows, name)
    column = _as_lists(column)
    while isinstance(column.dtype, pl.List) and isinstance(_as_lists_of(column).inner, pl.List | pl.Array):
        inner = pl.element().arr.to_list() if isinstance(_as_lists_of(column).inner, pl.Array) else pl.element()
        kept = column.list.eval(inner.filter(inner.list.drop_nulls().list.len() > 0))
        column = _as_lists(kept.list.first())
    if isinstance(column.dtype, pl.List):
        inner_kind = column.dtype.inner
        if isinstance(inner_kind, pl.Struct | pl.Duration) or inner_kind in (pl.Binary, pl.Object):
            raise type_error(rows, name, "a category is a text or a list of texts")
        paths = column.cast(pl.List(pl.String))
    else:
        texts = spelling(column, rows, name)
        paths = pl.DataFrame({"t": texts}).select(pl.concat_list("t").alias("t"))["t"]
    blank = pl.element().str.strip_chars()
    tidy = paths.list.eval(blank.filter(blank.is_not_null() & (blank != "")))
    found = pl.DataFrame({"p": tidy}).select(pl.when(pl.col("p").list.len() > 0).then("p").alias(name))[name]
    return Converted.of(found) if raw is None else Converted(found, _not_json(rows, name, raw, column))


def as_sequence(rows: SourceRows, name: str) -> pl.Series:
    """Return lists of identifiers as they are written, empty and null entries among them.

    Raises:
        ContractError: the column holds no lists, as a recipe with `sequences` says.
    """
    column = _from_text(rows, name) if _is_text_list(rows, name) else rows.column(name)
    column = _as_lists(column)
    if not isinstance(column.dtype, pl.List) and len(rows):
        msg = (
            f"column {name!r} of {rows.path} holds {column.dtype}, sequences = true needs lists of items: the column "
            f"has the wrong type; "
            f"convert it, say types = {{ {toml_key(name)} = {{ separator = ' ' }} }} for text, or leave sequences out"
        )
        raise ContractError(msg, column=name, type=str(column.dtype))
    return column if len(rows) else pl.Series(name, [], pl.List(pl.String))


def _is_text_list(rows: SourceRows, name: str) -> bool:
    how = rows.source.type_of(name)
    return name in rows.nested or (how is not None and how.kind == "list" and rows.column(name).dtype == pl.String)


def _from_text(rows: SourceRows, name: str) -> pl.Series:
    """Return lists out of text: JSON's where a value is one or is declared to be, else what stands between separators."""
    column, how = rows.column(name), rows.source.type_of(name)
    separator = how.separator if how else None
    if separator is not None and name not in rows.nested:
        return column.str.split(separator)
    is_list = rows.nested[name].to_list() if name in rows.nested else [True] * len(rows)
    found: list[list[str | None] | None] = []
    for value, nested in zip(column.to_list(), is_list, strict=True):  # 2 µs each
        if value is None:
            found.append(None)
        elif nested:
            found.append(_flat(json_list(value)))
        else:
            found.append(value.split(separator) if separator else [value])
    return pl.Series(name, found, pl.List(pl.String))


def _flat(entries: list[object] | None) -> list[str | None] | None:
    """Return a list's texts; of a list of lists, those of the first that is not empty; None where it is no such list."""
    while entries and isinstance(entries[0], list):
        entries = next((entry for entry in entries if isinstance(entry, list) and entry), None)
    if entries is None or any(isinstance(entry, dict | list) for entry in entries):
        return None
    return [None if entry is None else str(entry) for entry in entries]


def _not_json(rows: SourceRows, name: str, raw: pl.Series, found: pl.Series) -> pl.Series:
    lost = found.is_null() & raw.is_not_null() & (raw.str.strip_chars() != "").fill_null(value=False)
    return pl.DataFrame({"r": raw, "l": lost}).select(pl.when("l").then("r").alias("u"))["u"]


def _as_lists(column: pl.Series) -> pl.Series:
    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def _as_lists_of(column: pl.Series) -> pl.List:
    assert isinstance(column.dtype, pl.List)
    return column.dtype
