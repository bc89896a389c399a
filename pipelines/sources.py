"""A source file as a lazy Polars frame, with every way it can be broken turned into one named error.

Parquet, CSV and JSON lines. The file is opened and its columns are checked before any work starts; a file that is cut short in the
middle is noticed when it is read, and is an error then: a part of a source is never ingested as if it were the whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.tokenizers.errors import ContractError, SourceError

__all__ = ["ROW", "collect", "file_digest", "open_source"]

ROW = "__row"
"""Name of the row-number column (from 0) that `open_source` adds."""


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
        msg = f"source {path}: cannot be read as {file_format} (damaged, cut short or another format): {error}"
        raise SourceError(msg, path=str(path)) from error
    missing = sorted(set(needed) - set(columns))
    if missing:
        msg = f"source {path}: no column {missing[0]!r}; it has {columns}"
        raise SourceError(msg, path=str(path), missing=missing)
    return frame.with_row_index(ROW)


def collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    """Return the frame's rows; `SourceError` where the file turns out damaged, `ContractError` where a value has the wrong type."""
    try:
        return frame.collect()
    except (pl.exceptions.InvalidOperationError, pl.exceptions.SchemaError) as error:
        msg = f"source {path}: a column has the wrong type: {error}"
        raise ContractError(msg, path=str(path)) from error
    except (pl.exceptions.PolarsError, OSError) as error:
        msg = f"source {path}: damaged or cut short: {error}"
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
