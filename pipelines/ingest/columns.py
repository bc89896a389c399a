"""Columns of a source as values of the contracts: one stated function per use, whatever type or text a file has them in.

Identifiers and categories stay the text that they are; numbers and times are read (`numbers`), and what cannot be read is told
beside the values, so that its row is refused by a named rule. A type that no value of could be read, such as a price of pictures,
is an error that names the column and what to do.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass

import polars as pl

from sidlake.errors import ContractError
from sidlake.pipelines.ingest.json_files import json_list
from sidlake.pipelines.ingest.numbers import UTC, number_of_text, time_of_number, time_of_text, to_utc
from sidlake.pipelines.ingest.source_rows import SourceRows
from sidlake.tokenizers.item_ids import spelled

__all__ = [
    "Converted",
    "as_identifier",
    "as_number",
    "as_order",
    "as_text",
    "as_time",
    "identifiers",
    "spelling",
    "tidy",
    "toml_key",
    "type_error",
]

_FLOAT_LOOKING = r"^\s*[+-]?\d+\.0+\s*$"
_WHOLE = r"^\s*\+?(-?)0*(\d+)(?:\.0*)?\s*$"
_PLAIN_TEXT = (pl.String, pl.Categorical, pl.Enum)


@dataclass(frozen=True, slots=True)
class Converted:
    """Values of a column, null where there is none, and the text of those that could not be read, null elsewhere."""

    values: pl.Series
    unreadable: pl.Series

    @classmethod
    def of(cls, values: pl.Series, raw: pl.Series | None = None) -> Converted:
        """Return values beside the `raw` text of those that became null."""
        if raw is None:
            return cls(values, pl.Series("unreadable", [None], pl.String).new_from_index(0, len(values)))
        lost = pl.DataFrame({"v": values, "r": raw}).select(
            pl.when(pl.col("v").is_null() & pl.col("r").is_not_null() & (pl.col("r").str.strip_chars() != "")).then("r").alias("u")
        )["u"]
        return cls(values, lost)


def as_identifier(rows: SourceRows, name: str, *, uppercase: bool = False) -> Converted:
    """Return identifiers in their one spelling (`item_ids`); integers in decimal.

    Raises:
        ContractError: the column is neither text nor integer, or looks like integers that became decimals (``12.0``) and the recipe
            does not say which of both they are.
    """
    if name in rows.nested:
        raise type_error(rows, name, "an identifier is a string or an integer")
    return identifiers(rows, name, rows.column(name), uppercase=uppercase)


def identifiers(rows: SourceRows, name: str, column: pl.Series, *, uppercase: bool = False) -> Converted:
    """Return `as_identifier` of values that stood in the column `name`, such as the entries of its lists."""
    how = rows.source.type_of(name)
    kind, declared = column.dtype, how.kind if how else None
    if kind.is_float() and declared in ("integer", "text"):
        column = column.fill_nan(None)
    elif not (isinstance(kind, _PLAIN_TEXT) or kind.is_integer() or kind == pl.Null):
        msg = (
            f"column {name!r} of {rows.path} holds {kind}; an identifier is a string or an integer: convert it, name "
            f"another column, or "
            f"read decimals such as 12.0 as whole numbers by types = {{ {toml_key(name)} = 'integer' }} in the recipe's source"
        )
        raise ContractError(msg, column=name, type=str(kind), path=str(rows.path))
    text = column.cast(pl.String)
    if declared == "integer":
        parts = text.str.extract_groups(_WHOLE).struct.unnest()
        return Converted.of(parts.to_series(0) + parts.to_series(1), text)
    floats = text.filter(text.str.contains(_FLOAT_LOOKING).fill_null(value=False)) if declared != "text" else text.clear()
    if len(floats):
        msg = (
            f"column {name!r} of {rows.path} holds {floats[0]!r}: an identifier that a spreadsheet or data frame made a "
            f"decimal number? "
            f"Say types = {{ {toml_key(name)} = 'integer' }} in the recipe's source to read it as a whole number, or 'text' to "
            f"keep it as it is"
        )
        raise ContractError(msg, column=name, value=floats[0], path=str(rows.path))
    return Converted.of(spelled(text, uppercase=uppercase))


def as_number(rows: SourceRows, name: str) -> Converted:
    """Return numbers, Float64; what is not finite counts as none. `ContractError` for a column that holds none."""
    column, how = rows.column(name), rows.source.type_of(name)
    if column.dtype.is_numeric() or column.dtype == pl.Null:
        return Converted.of(_finite(column.cast(pl.Float64, strict=False)))
    if not isinstance(column.dtype, _PLAIN_TEXT):
        raise type_error(rows, name, "a price or weight is a number")
    text = column.cast(pl.String)
    found = number_of_text(text, (how.decimal if how else None) or rows.source.decimal)
    lost = Converted.of(found, text).unreadable
    return Converted(_finite(found), lost)


def as_time(rows: SourceRows, name: str) -> Converted:
    """Return instants in UTC. `ContractError` for a column that holds none, such as times of day or lists."""
    column, how = rows.column(name), rows.source.type_of(name)
    kind, zone = column.dtype, how.zone if how else None
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        found = to_utc(column, zone)
        return Converted.of(found, column.cast(pl.String)) if zone else Converted.of(found)
    if kind == pl.Null:
        return Converted.of(column.cast(UTC))
    if kind.is_numeric():
        return Converted.of(time_of_number(column, how), column.cast(pl.String))
    if isinstance(kind, _PLAIN_TEXT):
        return Converted.of(time_of_text(column.cast(pl.String), how), column.cast(pl.String))
    raise type_error(
        rows, name, "a timestamp column is a date or a datetime (taken as UTC without a zone), text or an epoch number"
    )


def as_order(rows: SourceRows, name: str) -> Converted:
    """Return what rows are put in order by: times, or the numbers of a column that holds or is declared numbers."""
    kind, how = rows.column(name).dtype, rows.source.type_of(name)
    declared = how.kind if how else None
    if declared == "time" or kind.is_temporal():
        return as_time(rows, name)
    if declared in ("number", "integer"):
        return as_number(rows, name)
    if kind.is_numeric():
        return Converted.of(rows.column(name).fill_nan(None) if kind.is_float() else rows.column(name))
    return as_time(rows, name)


def as_text(rows: SourceRows, name: str) -> pl.Series:
    """Return a column as tidy text, lists joined by commas, null where it is empty; `ContractError` for objects and bytes."""
    column, how = rows.column(name), rows.source.type_of(name)
    text = spelling(_joined(rows, name, column), rows, name)
    if how and how.html:
        text = _without_tags(text)
    tidied = pl.DataFrame({"t": text}).select(tidy(pl.col("t")).alias("t"))
    return tidied.select(pl.when(pl.col("t") != "").then("t").alias("t"))["t"]


def spelling(column: pl.Series, rows: SourceRows, name: str) -> pl.Series:
    """Return plain values as text; `ContractError` for lists, objects, bytes and lengths of time."""
    kind = column.dtype
    plain = isinstance(kind, _PLAIN_TEXT) or kind.is_numeric() or kind in (pl.Boolean, pl.Null, pl.Date, pl.Time)
    if not (plain or isinstance(kind, pl.Datetime)):
        raise type_error(rows, name, "text is needed")
    return column.cast(pl.String)


def toml_key(name: str) -> str:
    """Return a column's name as a key of TOML.

    >>> toml_key("at"), toml_key("Order No")
    ('at', '"Order No"')
    """
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def tidy(column: pl.Expr) -> pl.Expr:
    """Return text with single blanks, none at its ends."""
    return column.str.replace_all(r"\s+", " ").str.strip_chars()


def type_error(rows: SourceRows, name: str, needed: str) -> ContractError:
    """Return the error of a column whose type cannot be what it is used for."""
    kind = "lists or objects" if name in rows.nested else str(rows.column(name).dtype)
    hint = f"a field of an object is named as {name}.field" if "Struct" in kind or "objects" in kind else "convert it"
    msg = f"column {name!r} of {rows.path} holds {kind}; {needed}: {hint}, or name another column"
    return ContractError(msg, column=name, type=kind, path=str(rows.path))


def _finite(values: pl.Series) -> pl.Series:
    return pl.DataFrame({"v": values}).select(pl.when(pl.col("v").is_finite()).then("v").alias("v"))["v"]


def _joined(rows: SourceRows, name: str, column: pl.Series) -> pl.Series:
    """Return lists as text joined by commas, other columns as they are."""
    if name in rows.nested:
        return _joined_json(rows, name, column)
    kind = column.dtype
    while isinstance(kind, pl.Array):
        column, kind = column.arr.to_list(), pl.List(kind.inner)
    if not isinstance(kind, pl.List):
        return column
    inner = kind.inner
    if isinstance(inner, pl.List | pl.Array | pl.Struct) or inner in (pl.Binary, pl.Object) or isinstance(inner, pl.Duration):
        raise type_error(rows, name, "text, or a list of texts, is needed")
    return column.cast(pl.List(pl.String)).list.join(", ", ignore_nulls=True)


def _joined_json(rows: SourceRows, name: str, column: pl.Series) -> pl.Series:
    found = [
        (None if (entries := json_list(value)) is None else ", ".join(entry for entry in entries if isinstance(entry, str)))
        if is_nested and value is not None
        else value
        for value, is_nested in zip(column.to_list(), rows.nested[name].to_list(), strict=True)
    ]
    lost = any(value is None and was is not None for value, was in zip(found, column.to_list(), strict=True))
    if lost:
        raise type_error(rows, name, "text, or a list of texts, is needed")
    return pl.Series(name, found, pl.String)


def _without_tags(text: pl.Series) -> pl.Series:
    """Return text without tags and with entities resolved, 1 µs per different text."""
    bare = text.str.replace_all(r"(?s)<(script|style)\b.*?</(script|style)>", " ").str.replace_all(r"</?[A-Za-z!][^<>]*>", " ")
    return pl.Series(text.name, [None if value is None else html.unescape(value) for value in bare.to_list()], pl.String)
