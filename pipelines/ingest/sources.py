"""A source as a lazy Polars frame, with every way it can be broken turned into one named error.

Parquet, CSV and JSON lines. A source is one file, or a folder or glob of files that grows: one file per day, say. Files are
opened and their columns are checked before any work starts; a file that is cut short in the middle is noticed when it is read,
and is an error then: a part of a source is never ingested as if it were the whole. Rows are numbered within their file, so that a
file that comes later changes no earlier row's number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.errors import ContractError, SourceError

__all__ = ["FILE", "ROW", "collect", "file_digest", "open_files", "open_source", "source_files"]

ROW = "__row"
"""Name of the row-number column (from 0, within the file) that `open_source` adds."""
FILE = "__file"
"""Name of the column that `open_files` adds: which file a row is from."""

_ENDINGS = {"parquet": (".parquet", ".pq"), "csv": (".csv",), "jsonl": (".jsonl", ".ndjson", ".json")}


def source_files(path: Path, file_format: str, source: str) -> dict[str, Path]:
    """Return the files of a source by name, sorted: one file by the empty name, those of a folder or glob by their path below it.

    A folder holds files of the format's ending, at any depth; hidden ones (and those in hidden folders) are somebody's work in
    progress and are left out. Raises `SourceError` where there is none.

    >>> source_files(Path("nowhere.csv"), "csv", "events")
    Traceback (most recent call last):
    sidlake.errors.SourceError: source events: no such file nowhere.csv; the recipe's paths start at the recipe's folder
    """
    if path.is_file():
        return {"": path}
    fixed = [part for part in path.parts if not any(sign in part for sign in "*?[")]
    top = path if path.is_dir() else Path(*fixed)
    found = path.rglob("*") if path.is_dir() else top.glob(str(path.relative_to(top))) if len(fixed) < len(path.parts) else ()
    endings = _ENDINGS[file_format]
    named = {file.relative_to(top).as_posix(): file for file in found if file.is_file() and file.suffix in endings}
    files = {name: file for name, file in sorted(named.items()) if not any(part.startswith((".", "_")) for part in name.split("/"))}
    if not files:
        what = f"no file ending in {' or '.join(endings)} in" if path.is_dir() else "no such file"
        msg = f"source {source}: {what} {path}; the recipe's paths start at the recipe's folder"
        raise SourceError(msg, path=str(path))
    return files


def open_files(files: Mapping[str, Path], file_format: str, needed: Iterable[str]) -> pl.LazyFrame:
    """Return the rows of `files` in order, their number within the file in `ROW` and the file's name in `FILE`.

    Raises:
        SourceError: a file is missing, damaged or lacks a needed column.
        ContractError: a needed column has one type here and another there.
    """
    needed = sorted(set(needed))
    frames = []
    first: tuple[Path, pl.Schema] | None = None
    for name, path in files.items():
        frame = open_source(path, file_format, needed).select(ROW, *needed)
        schema = frame.collect_schema()
        first = first or (path, schema)
        other = [column for column in needed if schema[column] != first[1][column]]
        if other:
            msg = (
                f"source {path}: column {other[0]!r} holds {schema[other[0]]}, in {first[0]} it holds {first[1][other[0]]}; "
                "the files of a source have one schema: write this one again with the type of the others"
            )
            raise ContractError(msg, path=str(path), column=other[0])
        frames.append(frame.with_columns(pl.lit(name).alias(FILE)))
    return pl.concat(frames)


def open_source(path: Path, file_format: str, needed: Iterable[str]) -> pl.LazyFrame:
    """Return the file's rows with their number in column `ROW`.

    Raises:
        SourceError: the file is missing, empty, not of `file_format`, cut short, or lacks a needed column.
    """
    if not path.is_file():
        msg = f"source {path}: no such file; the recipe's paths start at the recipe's folder"
        raise SourceError(msg, path=str(path))
    try:
        frame = _scan(path, file_format)
        columns = frame.collect_schema().names()
    except (pl.exceptions.PolarsError, pa.ArrowInvalid, OSError) as error:
        msg = f"source {path}: cannot be read as {file_format} (damaged, cut short or another format): {error}; write it again"
        raise SourceError(msg, path=str(path)) from error
    missing = sorted(set(needed) - set(columns))
    if missing:
        msg = f"source {path}: no column {missing[0]!r}; it has {columns}: correct the recipe or the source"
        raise SourceError(msg, path=str(path), missing=missing)
    return frame.with_row_index(ROW)


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Return the frame's rows; `SourceError` where the file turns out damaged, `ContractError` where a value has the wrong type."""
    try:
        return frame.collect()
    except (pl.exceptions.InvalidOperationError, pl.exceptions.SchemaError) as error:
        msg = f"source {path}: a column has the wrong type: {str(error).splitlines()[0]}; convert it, or name another column"
        raise ContractError(msg, path=str(path)) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"source {path}: damaged or cut short: {str(error).splitlines()[0]}; write the file again"
        raise SourceError(msg, path=str(path)) from error


def file_digest(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _scan(path: Path, file_format: str) -> pl.LazyFrame:
    if file_format == "parquet":
        pq.ParquetFile(path).close()  # polars defers some damage to collect(); pyarrow reads the footer now
        return pl.scan_parquet(path)
    if file_format == "csv":
        return pl.scan_csv(path, try_parse_dates=True, infer_schema_length=10_000)
    return pl.scan_ndjson(path, infer_schema_length=10_000)
