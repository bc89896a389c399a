"""Rows of one source file under the source's own names: of the type that a Parquet file states, as text from all other files.

Files are read one by one and whole, the columns that a recipe names; a file that is cut short in the middle is an error: a part
of a source is never ingested as if it were the whole. What a column becomes is for `columns`, which gives every file's values one
type, so that the files of a folder need not have been written alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
        frame: columns by the names that were asked for.
        path: the file, for messages.
        source: how the recipe has its values read.
        form: the file's format.
        nested: for columns of JSON lines with lists or objects, which rows hold one, spelled as JSON in `frame`.
    """

    frame: pl.DataFrame
    path: Path
    source: SourceConfig
    form: Format
    nested: Mapping[str, pl.Series] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.frame.height

    def column(self, name: str) -> pl.Series:
        """Return a wanted column as the file has it."""
        return self.frame[name]


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
        ContractError: a wanted column has one stated type here and another there.
    """
    stated: dict[str, tuple[Path, pl.DataType]] = {}
    for name, path in files.items():
        rows = read_rows(path, source, wanted)
        for column, kind in rows.frame.schema.items() if rows.form == "parquet" else ():
            where, before = stated.setdefault(column, (path, kind))
            if before != kind:
                msg = (
                    f"source {path}: column {column!r} holds {kind}, in {where} it holds {before}; "
                    "the Parquet files of a source have one schema: write this one again with the type of the others"
                )
                raise ContractError(msg, path=str(path), column=column)
        yield name, rows


def read_rows(path: Path, source: SourceConfig, wanted: Iterable[str]) -> SourceRows:
    """Return the wanted columns of a file; ``a.b`` is the field b of a column a that holds objects.

    Raises:
        SourceError: the file is missing, empty, of another format, cut short, or lacks a wanted column.
    """
    names = sorted(set(wanted))
    form = _known_format(path, source)
    if form == "parquet":
        return SourceRows(frame=_parquet(path, names), path=path, source=source, form=form)
    if form == "jsonl":
        found = read_json(path, source, names)
        return SourceRows(frame=found.frame, path=path, source=source, form=form, nested=found.nested)
    return SourceRows(frame=_csv(path, source, names), path=path, source=source, form=form)


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
    except (pl.exceptions.PolarsError, pa.ArrowException, OSError) as error:
        msg = f"source {path}: cannot be read as parquet (damaged, cut short or another format): {error}; write it again"
        raise SourceError(msg, path=str(path)) from error


def _parquet(path: Path, wanted: list[str]) -> pl.DataFrame:
    schema = _schema(path)
    chosen = {name: _expression(name, schema) for name in wanted}
    missing = [name for name, expression in chosen.items() if expression is None]
    if missing:
        raise _no_column(path, missing[0], list(schema))
    picked = [expression.alias(name) for name, expression in chosen.items() if expression is not None]
    rows = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    try:
        return rows.select(picked or pl.lit(None).alias("")).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"source {path}: damaged or cut short: {str(error).splitlines()[0]}; write the file again"
        raise SourceError(msg, path=str(path)) from error


def _expression(name: str, schema: Mapping[str, pl.DataType]) -> pl.Expr | None:
    """Return the column, or the field of a column of objects, that a name means."""
    if name in schema:
        return pl.col(name)
    for base, rest in _splits(name):
        kind = schema.get(base)
        if isinstance(kind, pl.Struct):
            inner = _expression(rest, {one.name: _as_type(one.dtype) for one in kind.fields})
            return pl.col(base).struct.unnest_field(rest) if inner is None else _field(pl.col(base), kind, rest)
        if kind == pl.String:
            return pl.col(base).str.json_path_match(_json_path(rest))
    return None


def _field(column: pl.Expr, kind: pl.Struct, name: str) -> pl.Expr:
    inner = {one.name: one.dtype for one in kind.fields}
    if name in inner:
        return column.struct.field(name)
    base, rest = next((base, rest) for base, rest in _splits(name) if base in inner)
    nested = inner[base]
    return _field(column.struct.field(base), nested, rest) if isinstance(nested, pl.Struct) else column.struct.field(base)


def _as_type(kind: object) -> pl.DataType:
    assert isinstance(kind, pl.DataType)
    return kind


def _splits(name: str) -> list[tuple[str, str]]:
    """Return the ways to take a dotted name apart, the longest column first.

    >>> _splits("a.b.c")
    [('a.b', 'c'), ('a', 'b.c')]
    """
    parts = name.split(".")
    return [(".".join(parts[:at]), ".".join(parts[at:])) for at in range(len(parts) - 1, 0, -1)]


def _json_path(rest: str) -> str:
    return "$" + "".join("['" + part.replace("'", "\\'") + "']" for part in rest.split("."))


def _csv(path: Path, source: SourceConfig, wanted: list[str]) -> pl.DataFrame:
    columns = csv_columns(path, source, wanted)
    base_of = {name: next((base for base, _ in [(name, ""), *_splits(name)] if base in columns), None) for name in wanted}
    missing = [name for name, base in base_of.items() if base is None]
    if missing and columns:
        raise _no_column(path, missing[0], columns)
    rows = read_csv(path, source, [base or name for name, base in base_of.items()])
    if not columns:
        return pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
    picked = [
        pl.col(base).alias(name)
        if base == name
        else pl.col(base).str.json_path_match(_json_path(name[len(base) + 1 :])).alias(name)
        for name, base in base_of.items()
        if base is not None
    ]
    try:
        return rows.select(picked) if picked else rows
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
