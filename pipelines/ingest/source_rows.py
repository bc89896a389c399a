"""Rows of one source file under the source's own names: of the type that a Parquet file states, as text from all other files.

Files are read one by one and whole, the columns that a recipe names; a file that is cut short in the middle is an error: a part
of a source is never ingested as if it were the whole. What a column becomes is for `columns`, which gives every file's values one
type, so that the files of a folder need not have been written alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.errors import ContractError, SourceError
from sidlake.pipelines.ingest.csv_files import csv_columns, read_csv
from sidlake.pipelines.ingest.json_files import json_columns, read_json
from sidlake.pipelines.ingest.sources import format_of
from sidlake.pipelines.settings.sources import Format, SourceConfig

__all__ = ["SourceRows", "columns_of", "read_files", "read_rows"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRows:
    """The wanted columns of a file.

    Attributes:
        columns: by the names that were asked for.
        num_rows: rows of the file.
        path: the file, for messages.
        source: how the recipe has its values read.
        form: the file's format.
        absent: names that no row of a file of JSON lines has; each may be a field that is left out where it has no value.
        nested: for columns of JSON lines with lists or objects, which rows hold one, spelled as JSON in `columns`.
    """

    columns: Mapping[str, pl.Series]
    num_rows: int
    path: Path
    source: SourceConfig
    form: Format
    absent: frozenset[str] = frozenset()
    nested: Mapping[str, pl.Series] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.num_rows

    def column(self, name: str) -> pl.Series:
        """Return a wanted column as the file has it."""
        return self.columns[name]


def columns_of(path: Path, source: SourceConfig, wanted: Iterable[str] = ()) -> dict[str, str]:
    """Return the type of each column of a file: as Parquet states it, ``text`` in files that state none.

    Raises:
        SourceError: the file is missing or cannot be read.
    """
    form = _known_format(path, source)
    if form == "parquet":
        return {name: str(kind) for name, kind in _schema(path).items()}
    names = json_columns(path, source) if form == "jsonl" else csv_columns(path, source, sorted(wanted))
    return dict.fromkeys(names, "text")


def read_files(files: Mapping[str, Path], source: SourceConfig, wanted: Iterable[str]) -> Iterator[tuple[str, SourceRows]]:
    """Return each file's name and rows, one file at a time (`read_rows`).

    Raises:
        SourceError: a name that no row of any file has.
        ContractError: a wanted column has one stated type here and another there.
    """
    stated: dict[str, tuple[Path, pl.DataType]] = {}
    absent: dict[str, Path] | None = None
    for name, path in files.items():
        rows = read_rows(path, source, wanted)
        if rows.num_rows:
            absent = {one: path for one in rows.absent if absent is None or one in absent}
        for column, values in rows.columns.items() if rows.form == "parquet" else ():
            kind = values.dtype
            where, before = stated.setdefault(column, (path, kind))
            if before != kind:
                msg = (
                    f"source {path}: column {column!r} holds {kind}, in {where} it holds {before}; "
                    "the Parquet files of a source have one schema: write this one again with the type of the others"
                )
                raise ContractError(msg, path=str(path), column=column)
        yield name, rows
    for column, path in sorted((absent or {}).items()):
        raise _no_column(path, column, json_columns(path, source))


def read_rows(path: Path, source: SourceConfig, wanted: Iterable[str]) -> SourceRows:
    """Return the wanted columns of a file; ``a.b`` is the field b of a column a that holds objects.

    Raises:
        SourceError: the file is missing, empty, of another format, cut short, or lacks a wanted column.
    """
    names = sorted(set(wanted))
    form = _known_format(path, source)
    if form == "parquet":
        columns, num_rows = _parquet(path, names)
        return SourceRows(columns=columns, num_rows=num_rows, path=path, source=source, form=form)
    if form == "jsonl":
        found = read_json(path, source, names)
        absent = frozenset(names) - found.seen if found.num_rows else frozenset()
        return SourceRows(
            columns=found.columns, num_rows=found.num_rows, path=path, source=source, form=form, absent=absent, nested=found.nested
        )
    columns, num_rows = _csv(path, source, names)
    return SourceRows(columns=columns, num_rows=num_rows, path=path, source=source, form=form)


def _known_format(path: Path, source: SourceConfig) -> Format:
    if not path.is_file():
        msg = f"source {path}: no such file; the recipe's paths start at the recipe's folder"
        raise SourceError(msg, path=str(path))
    try:
        return format_of(path, source)
    except OSError as error:
        msg = f"source {path}: cannot be read: {error.strerror or error}"
        raise SourceError(msg, path=str(path)) from error


def _schema(path: Path) -> pl.Schema:
    try:
        pq.ParquetFile(path).close()  # polars defers some damage to collect(); pyarrow reads the footer now
        return pl.scan_parquet(path, glob=False, hive_partitioning=False).collect_schema()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException, OSError) as error:
        msg = f"source {path}: cannot be read as parquet (damaged, cut short or another format): {error}; write it again"
        raise SourceError(msg, path=str(path)) from error


def _parquet(path: Path, wanted: list[str]) -> tuple[dict[str, pl.Series], int]:
    schema = _schema(path)
    base_of = {name: _base(name, schema) for name in wanted}
    missing = [name for name, base in base_of.items() if base is None]
    if missing:
        raise _no_column(path, missing[0], list(schema))
    order = list(schema)
    # by their places, because names such as * and ^a.*$ are patterns to polars
    places = sorted({order.index(base) for base in base_of.values() if base is not None})
    rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    try:
        frame = rows.select(pl.nth(places) if places else pl.len()).collect()
        num_rows = frame.height if places else int(frame.item())
        found = {name: frame.to_series(places.index(order.index(base))) for name, base in base_of.items() if base is not None}
        return {name: _inside(column, name, base_of[name] or name) for name, column in found.items()}, num_rows
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:  # a damaged footer panics
        msg = f"source {path}: damaged or cut short: {str(error).splitlines()[0]}; write the file again"
        raise SourceError(msg, path=str(path)) from error


def _base(name: str, schema: Mapping[str, pl.DataType]) -> str | None:
    """Return the column that a name means: the one of this name, or the one of objects that has the field it names."""
    if name in schema:
        return name
    for base, rest in _splits(name):
        kind = schema.get(base)
        if kind == pl.String or (isinstance(kind, pl.Struct) and _base(rest, _fields(kind)) is not None):
            return base
    return None


def _inside(column: pl.Series, name: str, base: str) -> pl.Series:
    """Return the column, or the field of its objects that a dotted name leads to."""
    if name == base:
        return column
    rest = name[len(base) + 1 :]
    if not isinstance(column.dtype, pl.Struct):
        return column.str.json_path_match(_json_path(rest))
    inner = _base(rest, _fields(column.dtype))
    assert inner is not None
    return _inside(column.struct.field(inner), rest, inner)


def _fields(kind: pl.Struct) -> dict[str, pl.DataType]:
    fields: dict[str, Any] = {one.name: one.dtype for one in kind.fields}
    return fields


def _splits(name: str) -> list[tuple[str, str]]:
    """Return the ways to take a dotted name apart, the longest column first.

    >>> _splits("a.b.c")
    [('a.b', 'c'), ('a', 'b.c')]
    """
    parts = name.split(".")
    return [(".".join(parts[:at]), ".".join(parts[at:])) for at in range(len(parts) - 1, 0, -1)]


def _json_path(rest: str) -> str:
    return "$" + "".join("['" + part.replace("'", "\\'") + "']" for part in rest.split("."))


def _csv(path: Path, source: SourceConfig, wanted: list[str]) -> tuple[dict[str, pl.Series], int]:
    names = csv_columns(path, source, wanted)
    known: dict[str, pl.DataType] = dict.fromkeys(names, pl.String())
    base_of = {name: _base(name, known) for name in wanted} if names else {name: name for name in wanted}
    missing = [name for name, base in base_of.items() if base is None]
    if missing:
        raise _no_column(path, missing[0], names)
    rows = read_csv(path, source, [base for base in base_of.values() if base is not None])
    if not names:
        return {name: pl.Series([], dtype=pl.String) for name in wanted}, 0
    try:
        return {name: _inside(rows.columns[base], name, base) for name, base in base_of.items() if base is not None}, rows.num_rows
    except pl.exceptions.PolarsError as error:
        msg = f"source {path}: a name with a dot needs a column of JSON objects: {str(error).splitlines()[0]}"
        raise ContractError(msg, path=str(path)) from error


def _no_column(path: Path, name: str, columns: list[str]) -> SourceError:
    near = next((column for column in columns if column.casefold().strip() == name.casefold().strip()), None)
    hint = f"did you mean {near!r}? " if near else ""
    if len(columns) == 1 and any(sign in columns[0] for sign in ";\t|,:^~"):
        hint = "if that is several columns, set delimiter in the recipe's source; "
    msg = f"source {path}: no column {name!r}; it has {columns[:40]}: {hint}correct the recipe or the source"
    return SourceError(msg, path=str(path), missing=[name])
