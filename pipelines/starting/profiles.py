"""What a stranger's files and tables hold, read by the ingest's own readers: columns with their types, how full and how different.

Nothing is decided here (see `roles`). What cannot be told from a file is kept as all its possibilities: the formats that read every
date of a column, and the encodings of a text. Memory: the columns of one file, pictures left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from sidlake.errors import SourceError
from sidlake.pipelines.ingest.csv_files import csv_columns
from sidlake.pipelines.ingest.numbers import number_of_text, time_of_number, time_of_text
from sidlake.pipelines.ingest.source_rows import columns_of, read_rows
from sidlake.pipelines.ingest.sources import find_files, format_of, store_of
from sidlake.pipelines.ingest.stores.snapshots import snapshot, tables_of
from sidlake.pipelines.ingest.text_streams import encoding_of, scan_text
from sidlake.pipelines.settings.sources import ColumnType, SourceConfig, Store
from sidlake.warehouse.sql import identifier

__all__ = ["ColumnProfile", "FileProfile", "date_formats", "look_at", "paths_of"]

Kind = Literal["text", "integer", "number", "time", "list", "bytes", "object"]

_DATES = (
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d.%m.%Y",
    "%m-%d-%Y",
    "%d-%m-%Y",
    "%Y%m%d",
    "%d %b %Y",
    "%b %d, %Y",
    "%d %B %Y",
    "%m/%d/%y",
    "%d/%m/%y",
)
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_LOOKED_AT = 1000
_CODE_PAGES = ("cp1252", "latin-1")
_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ColumnProfile:
    """A column of a file.

    Attributes:
        kind: of its values; text that is all whole numbers is ``integer``, but for such with leading zeros.
        rows, filled, distinct: numbers of rows, of values, and of different values.
        length: mean number of characters.
        formats: of dates in text, those that read every value; more than one where day and month could be exchanged.
        epoch: whether its numbers are epoch numbers of one possible unit.
        decimal: the sign that its numbers in text need, None where they need none.
        whole: whether it holds decimals that are whole numbers (``12.0``).
        first, last: its times.
        at_most_zero: values ≤ 0 of a column of numbers.
        values: its different values as text, of lists and objects none.
    """

    name: str
    kind: Kind
    rows: int
    filled: int
    distinct: int
    length: float
    values: pl.Series
    formats: tuple[str, ...] = ()
    epoch: bool = False
    decimal: str | None = None
    whole: bool = False
    first: str | None = None
    last: str | None = None
    days: int = 0
    at_most_zero: int = 0

    @property
    def is_time(self) -> bool:
        """Whether its values are times, or can be read as such."""
        return self.kind == "time" or bool(self.formats)

    @property
    def unique(self) -> bool:
        """Whether each row has a value of its own."""
        return self.rows > 0 and self.distinct == self.rows


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FileProfile:
    """A source's first file, or a table: the path that the recipe shall name, how it is to be read, its rows and columns."""

    path: Path
    source: SourceConfig
    rows: int
    columns: tuple[ColumnProfile, ...]
    num_files: int = 1
    table: str | None = None

    @property
    def place(self) -> str:
        """Return the path, and the table where a database has several."""
        return str(self.path) if self.table is None else f"{self.path} table {self.table}"

    def column(self, name: str) -> ColumnProfile:
        """Return the column of a name that is there."""
        return next(column for column in self.columns if column.name == name)


def look_at(path: Path) -> list[FileProfile]:
    """Return what a file, or the first file of a folder, holds; of a database each table; `SourceError` where it cannot be read."""
    store = store_of(str(path), SourceConfig(path=str(path)))
    return [_of_file(path)] if store is None else [_of_table(path, store, table) for table in tables_of(path, store)]


def _of_table(path: Path, store: Store, table: str | None) -> FileProfile:
    query = None if table is None else "select * from " + identifier(table)  # noqa: S608  quoted
    source = SourceConfig(path=str(path), format=store, query=query)
    with tempfile.TemporaryDirectory(prefix="sidlake-init-") as folder:
        copy = Path(folder, "table.parquet")
        snapshot(str(path), source, store, copy, name=table or path.name)
        rows, columns = _columns(copy, source)
    return FileProfile(path=path, source=source, rows=rows, columns=columns, table=table)


def _of_file(path: Path) -> FileProfile:
    files = find_files(path, None, path.name).files
    first = next(iter(files.values()))
    source = _reading(first)
    rows, columns = _columns(first, source)
    return FileProfile(path=path, source=source, rows=rows, columns=columns, num_files=len(files))


def _columns(file: Path, source: SourceConfig) -> tuple[int, tuple[ColumnProfile, ...]]:
    types = columns_of(file, source)
    wanted = [name for name, kind in types.items() if kind != "Binary"]
    rows = read_rows(file, source, wanted)
    read = {name: _profile(name, rows.column(name), is_nested=name in rows.nested) for name in wanted}
    return len(rows), tuple(read.get(name) or _pictures(name, len(rows)) for name in types)


def date_formats(values: pl.Series) -> tuple[str, ...]:
    """Return the formats that read every one of different texts; more than one where they cannot be told apart.

    >>> date_formats(pl.Series(["03/01/2024 09:00", "03/25/2024 14:00"]))
    ('%m/%d/%Y %H:%M',)
    >>> date_formats(pl.Series(["03/04/2024"]))
    ('%m/%d/%Y', '%d/%m/%Y')
    """
    if values.is_empty() or not values.head(_LOOKED_AT).str.contains(r"^\s*[\dA-Za-z].*\d").all():
        return ()
    candidates = [date + clock for date in _DATES for clock in _CLOCKS]
    for some in (values.head(1), values.head(_LOOKED_AT), values):
        candidates = [form for form in candidates if _reads(some, form)]
    return tuple(candidates)


def _reads(values: pl.Series, form: str) -> bool:
    found = time_of_text(values, ColumnType(format=form))
    return not found.has_nulls() and bool(found.dt.year().is_between(1900, 2100).all())


def _reading(path: Path) -> SourceConfig:
    """Return how a file is to be read, where that is not what the readers take it for by themselves."""
    plain = SourceConfig(path=str(path))
    form = format_of(path, plain)
    if form == "parquet":
        return plain
    encoding = _encoding(path)
    source = SourceConfig(path=str(path), encoding=encoding)
    if form != "csv":
        return source
    found = {sign: len(csv_columns(path, SourceConfig(path=str(path), encoding=encoding, delimiter=sign))) for sign in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda sign: found[sign])
    return source if best == "," else SourceConfig(path=str(path), encoding=encoding, delimiter=best)


def _encoding(path: Path) -> str | None:
    if _decodes(path, encoding_of(path, None)):
        return None
    return next(name for name in _CODE_PAGES if _decodes(path, name))


def _decodes(path: Path, encoding: str) -> bool:
    try:
        for _ in scan_text(path, encoding):
            pass
    except SourceError as error:
        if "encoding" in error.details:
            return False
        raise
    return True


def _pictures(name: str, rows: int) -> ColumnProfile:
    nothing = pl.Series([], dtype=pl.String)
    return ColumnProfile(name=name, kind="bytes", rows=rows, filled=rows, distinct=0, length=0, values=nothing)


def _profile(name: str, column: pl.Series, *, is_nested: bool) -> ColumnProfile:
    kind = column.dtype
    if is_nested or isinstance(kind, pl.List | pl.Array | pl.Struct | pl.Duration | pl.Object):
        filled = len(column) - column.null_count()
        what: Kind = "list" if is_nested or isinstance(kind, pl.List | pl.Array) else "object"
        nothing = pl.Series([], dtype=pl.String)
        return ColumnProfile(name=name, kind=what, rows=len(column), filled=filled, distinct=0, length=0, values=nothing)
    text = column.cast(pl.String, strict=False).str.strip_chars()
    values = text.filter(text.is_not_null() & (text != "")).unique(maintain_order=True)
    filled = int((text.is_not_null() & (text != "")).sum())
    length = float(values.head(_LOOKED_AT).str.len_chars().mean() or 0)  # type: ignore[arg-type]
    read = _read_as(name, column, values)
    if read.get("whole"):
        values = values.str.replace(r"\.0+$", "")
    known = {"name": name, "rows": len(column), "filled": filled, "distinct": len(values), "length": length, "values": values}
    return ColumnProfile(**known, **read)  # type: ignore[arg-type]


def _read_as(name: str, column: pl.Series, values: pl.Series) -> dict[str, object]:
    """Return what the values of a column are: kind, formats, times and numbers."""
    kind = column.dtype
    if kind == pl.Date or isinstance(kind, pl.Datetime):
        return _times(column.drop_nulls().cast(pl.Datetime("us")))
    if kind.is_numeric():
        return _numbers(name, column.drop_nulls())
    return _text(name, values) if len(values) else {"kind": "text"}


def _numbers(name: str, column: pl.Series) -> dict[str, object]:
    if column.dtype.is_integer():
        times = time_of_number(column, None)
        if _sounds_like_time(name) and len(times) and not times.has_nulls():
            return _times(times) | {"epoch": True}
    whole = column.dtype.is_float() and bool((column == column.round()).all())
    what = "integer" if column.dtype.is_integer() else "number"
    return {"kind": what, "whole": whole, "at_most_zero": int((column <= 0).sum())}


def _text(name: str, values: pl.Series) -> dict[str, object]:
    is_digits = bool(values.head(_LOOKED_AT).str.contains(r"^\d+$").all())
    if (not is_digits or _sounds_like_time(name)) and not (times := time_of_text(values.head(_LOOKED_AT), None)).has_nulls():
        return _times(time_of_text(values, None).drop_nulls() if len(values) > len(times) else times)
    if (not is_digits or _sounds_like_time(name)) and (formats := date_formats(values)):
        return _times(time_of_text(values, ColumnType(format=formats[0]))) | {"kind": "text", "formats": formats}
    for decimal in (None, ","):
        numbers = number_of_text(values, decimal)
        if not numbers.has_nulls():
            return _number_text(values, numbers, decimal)
    return {"kind": "text"}


def _number_text(values: pl.Series, numbers: pl.Series, decimal: str | None) -> dict[str, object]:
    is_digits = bool(values.str.contains(r"^-?\d+$").all())
    padded = is_digits and bool(values.str.contains(r"^0\d").any())
    whole = not is_digits and bool(values.str.contains(r"^\d+\.0+$").all())
    what = "text" if padded else "integer" if is_digits else "number"
    return {"kind": what, "decimal": decimal, "whole": whole, "at_most_zero": int((numbers <= 0).sum())}


def _times(times: pl.Series) -> dict[str, object]:
    if times.is_empty():
        return {"kind": "time"}
    first, last = pl.DataFrame({"t": times}).select(pl.col("t").min().alias("a"), pl.col("t").max().alias("b")).row(0)
    return {"kind": "time", "first": first.isoformat(), "last": last.isoformat(), "days": (last - first).days}


def _sounds_like_time(name: str) -> bool:
    low = name.casefold()
    return low in ("at", "ts", "t", "when") or low.endswith("_at") or any(word in low for word in ("time", "date", "stamp"))


def paths_of(files: Iterable[Path]) -> list[Path]:
    """Return the named files, or those of the working folder that a recipe can read, when none is named."""
    named = list(files)
    if named:
        return named
    found = find_files(Path(), None, "here").files
    return [path for name, path in found.items() if "/" not in name]
