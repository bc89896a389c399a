"""The sources of a recipe: where the rows are, how their files and columns are to be read, and which rows are refused.

A reader is told what to read. CSV, TSV and JSON lines are read as text; what a column holds beside text is said by its use (a price
is a number, an event has a time) and, where that leaves a choice, by `types`. Nothing here touches data (see `ingest`).
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Literal
from zoneinfo import ZoneInfo

from sidlake.errors import RecipeError

__all__ = ["Column", "ColumnType", "Format", "Pick", "Rule", "SourceConfig", "Store", "Target", "check_instant"]

Target = Literal["items", "interactions"]
Format = Literal["parquet", "csv", "tsv", "jsonl", "delta", "duckdb", "sqlite", "postgres"]
Store = Literal["delta", "duckdb", "sqlite", "postgres"]
"""Formats that are no files of rows: a run takes a snapshot of them (`ingest.stores`)."""
Kind = Literal["text", "integer", "number", "time", "list"]
Pick = Literal["only", "latest", "first", "most_common", "median", "min", "max"]

_SCHEMES = ("postgresql", "postgres")
_KIND_OF: dict[str, Kind] = {
    "format": "time", "unit": "time", "zone": "time", "decimal": "number", "separator": "list", "html": "text",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnType:
    """How a source's column is to be read, where its use leaves a choice; a bare word is the `kind`.

    Attributes:
        kind: ``text`` keeps an identifier such as ``12.0`` as it is, ``integer`` makes it ``12``; ``number`` and ``time`` say what
            `order_by` goes by; ``list`` reads JSON lists, or values between separators. Follows from the other keys.
        format: of times, as `strftime` has it: ``%m/%d/%Y %H:%M``. Without it ISO 8601 and epoch numbers are read, never a date
            whose day and month could be exchanged.
        unit: of epoch numbers; without it, told by the only unit that puts the time between 1980 and 2100.
        zone: of times without an offset, such as ``Europe/London``; UTC without it.
        decimal: the decimal sign of numbers in text.
        separator: what stands between the values of a list: ``|``.
        html: take tags out of text and resolve entities such as ``&amp;``.
    """

    kind: Kind | None = None
    format: str | None = None
    unit: Literal["s", "ms", "us", "ns"] | None = None
    zone: str | None = None
    decimal: Literal[".", ","] | None = None
    separator: str | None = None
    html: bool = False
    shorthand: ClassVar[str] = "kind"

    def __post_init__(self) -> None:
        kinds = {kind: name for name, kind in _KIND_OF.items() if getattr(self, name)}
        if len(kinds.keys() | ({self.kind} if self.kind else set())) != 1:
            given = ", ".join([*kinds.values(), *([f"kind = {self.kind!r}"] if self.kind else [])])
            msg = f"a column has one kind, got {given or 'none'}: say kind, or one of {', '.join(_KIND_OF)}"
            raise RecipeError(msg)
        object.__setattr__(self, "kind", self.kind or next(iter(kinds)))
        if self.format is not None and "%" not in self.format:
            msg = f"format {self.format!r} has no directive such as %Y: write it as strftime does, %m/%d/%Y %H:%M"
            raise RecipeError(msg)
        if self.format and self.unit:
            msg = f"format {self.format!r} is of text and unit {self.unit!r} of numbers: say one of them"
            raise RecipeError(msg)
        try:
            ZoneInfo(self.zone or "UTC")
        except (KeyError, ValueError, OSError) as error:
            msg = f"zone {self.zone!r} is no time zone: write it as Europe/London"
            raise RecipeError(msg) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Rows of a source to refuse. Exactly one of the predicates is set; `name` is what `rejected_rows` will say.

    It sees the source's own value, under the source's own name. An empty value is refused by `is_null` alone. A value of which a
    number or a time is asked and that is none is refused: it cannot be shown to keep the rule.

    Attributes:
        column: the column that is looked at.
        matches: refuse where this regular expression (Rust syntax) is found in the value.
        not_matches: refuse where it is not found.
        accepted: refuse a value that is none of these.
        at_most: refuse where the value is a number ≤ this.
        at_least: refuse where the value is a number ≥ this.
        before: refuse where the value is a time before this one (ISO 8601, UTC without an offset).
        after: refuse where the value is a time after this one.
        shorter_than: refuse a text of fewer characters.
        longer_than: refuse a text of more characters.
        is_null: refuse where the value is null or an empty string.
        rejects: the targets that lose the row.
        name: what `rejected_rows` calls the rule.
    """

    name: str
    column: str
    matches: str | None = None
    not_matches: str | None = None
    accepted: tuple[str, ...] = ()
    at_most: float | None = None
    at_least: float | None = None
    before: str | None = None
    after: str | None = None
    shorter_than: int | None = None
    longer_than: int | None = None
    is_null: bool = False
    rejects: tuple[Target, ...] = ("items", "interactions")

    def __post_init__(self) -> None:
        names = ("matches", "not_matches", "at_most", "at_least", "before", "after", "shorter_than", "longer_than")
        given = sum(getattr(self, name) is not None for name in names) + bool(self.accepted) + self.is_null
        if given != 1:
            msg = f"rule {self.name}: {given} predicates given, needed exactly 1 of {', '.join(names)}, accepted, is_null"
            raise RecipeError(msg)
        for name in ("before", "after"):
            check_instant(f"rule {self.name}: {name}", getattr(self, name))


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """Files of rows. Rules are tried in order and the first that fits names the row.

    Attributes:
        path: a file, a folder that grows, or a pattern with ``*``, ``?`` or ``[]``; relative to the recipe's folder. A file of that
            very name comes first. Also an address, ``s3://…``. For a Delta table its folder or address; for a database its file, or
            its address without a password, ``postgresql://…``, or ``${NAME}``, the environment variable that holds the address.
        format: without it, told by the file's ending and content.
        query: the SELECT that gives the rows of a database.
        version: of a Delta table; its newest without it.
        delimiter: of CSV; without it a comma, or the one of ``;``, tab and ``|`` that gives the columns that the recipe names.
        quote: what stands around values of CSV that hold a delimiter; empty where quotes are a part of the values.
        encoding: of text files; without it UTF-8, or what a byte-order mark says.
        decimal: the decimal sign of numbers in text; without it a point, and ``1,234`` is not read, which may be either.
        columns: names of the columns of a CSV file without a header line.
        null_values: texts that stand for no value, beside the empty one.
        types: how columns are to be read, by name.
        new_columns: what becomes of a column that earlier releases did not know (`source_schema`).
        rules: which rows to refuse.
    """

    path: str
    format: Format | None = None
    query: str | None = None
    version: int | None = None
    delimiter: str | None = None
    quote: str = '"'
    encoding: str | None = None
    decimal: Literal[".", ","] | None = None
    columns: tuple[str, ...] = ()
    null_values: tuple[str, ...] = ()
    types: dict[str, ColumnType] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    new_columns: Literal["ignore", "refuse"] = "ignore"

    def __post_init__(self) -> None:
        _check_address(self.path, self.format)
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"'):
            msg = f"delimiter must be one character, got {self.delimiter!r}"
            raise RecipeError(msg)
        if len(self.quote) > 1 or self.quote in ("\r", "\n") or (self.quote and self.quote == self.delimiter):
            msg = f"quote must be one character, or empty for none, got {self.quote!r}"
            raise RecipeError(msg)
        if len(set(self.columns)) < len(self.columns):
            msg = f"columns must differ, got {list(self.columns)}"
            raise RecipeError(msg)
        try:
            if self.encoding is not None and not codecs.lookup(self.encoding)._is_text_encoding:
                raise LookupError
        except LookupError as error:
            msg = f"encoding {self.encoding!r} is not known: write it as utf-8, cp1252, latin-1 or utf-16"
            raise RecipeError(msg) from error

    def type_of(self, column: str) -> ColumnType | None:
        """Return what `types` says of a column, None where nothing."""
        return self.types.get(column)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """Where an item's value comes from when several rows speak of it; a bare word is the `column`.

    Attributes:
        column: the source's column; ``a.b`` is the field b of a column a that holds objects.
        pick: ``only`` (one row per item expected), ``latest`` or ``first`` (the non-empty value of the newest or oldest row, ties
            to the greater value), ``most_common``, ``median``, ``min`` or ``max``.
    """

    column: str
    pick: Pick = "only"
    shorthand: ClassVar[str] = "column"


def _check_address(path: str, file_format: Format | None) -> None:
    """Refuse a password in a recipe, whose text is kept with every release, and what is no address of a database."""
    is_variable = re.fullmatch(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}", path) is not None
    scheme, _, rest = path.partition("://")
    if is_variable and file_format != "postgres":
        msg = f"path = {path!r} names a variable that holds a database's address: say format = 'postgres', or write the path"
        raise RecipeError(msg)
    if file_format == "postgres" and not is_variable and scheme not in _SCHEMES:
        msg = "path of a Postgres database must be postgresql://host/database, or ${NAME}, the variable that holds that"
        raise RecipeError(msg)
    if scheme in _SCHEMES and (":" in rest.rpartition("@")[0] or re.search(r"[?&](ssl)?password=", rest)):
        msg = (
            f"path holds a password, and recipes are kept with releases: leave it out of {scheme}://… and set PGPASSWORD or "
            "~/.pgpass, or put the whole address into a variable: path = '${SHOP_DATABASE}'"
        )
        raise RecipeError(msg)


def check_instant(name: str, value: str | None) -> None:
    """Return where `value` is an ISO 8601 date or time, or None; else `RecipeError` names it."""
    try:
        datetime.fromisoformat(value or "2000-01-01")
    except ValueError as error:
        msg = f"{name} must be a date or a time such as 2024-03-01 or 2024-03-01T09:00:00Z, got {value!r}"
        raise RecipeError(msg) from error
