"""CSV and TSV as text: every value as it is written, every row as long as the header, or an error that names the line.

Python's csv module decides what a quote means (strictly: a quote within a quoted value is doubled); where a file holds no quotes
at all, Arrow splits it, ten times as fast and with the same result. An empty value is null. Names of columns lose the blanks around
them. Memory: the wanted columns, whole.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv

from sidlake.errors import SourceError
from sidlake.pipelines.ingest.text_streams import encoding_of, open_bytes, open_text, scan_text
from sidlake.pipelines.settings.sources import SourceConfig

__all__ = ["CsvRows", "csv_columns", "read_csv"]

_ROWS = 50_000
_BLOCK = 1 << 24
_FIELD_BYTES = 2**31 - 1
_OTHERS = (";", "\t", "|")


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How a file separates its values, the names of its columns, and whether its first line holds them."""

    delimiter: str
    columns: tuple[str, ...]
    has_header: bool


def csv_columns(path: Path, source: SourceConfig, wanted: Sequence[str] = ()) -> list[str]:
    """Return the names of a file's columns, none of an empty file; `SourceError` where it cannot be read."""
    return list(_dialect(path, source, encoding_of(path, source.encoding), wanted).columns)


@dataclass(frozen=True, slots=True)
class CsvRows:
    """Columns as text, by name, and how many rows there are."""

    columns: Mapping[str, pl.Series]
    num_rows: int


def read_csv(path: Path, source: SourceConfig, wanted: Sequence[str]) -> CsvRows:
    """Return the wanted columns that the file has, each as text, null where it is empty.

    Raises:
        SourceError: bytes that are not of the encoding, a row longer or shorter than the header, or a quote that does not end, each
            with its line.
    """
    encoding = encoding_of(path, source.encoding)
    dialect = _dialect(path, source, encoding, wanted)
    found = [name for name in dict.fromkeys(wanted) if name in dialect.columns]
    twice = next((name for name in found if dialect.columns.count(name) > 1), None)
    if twice is not None:
        msg = f"source {path}: column {twice!r} is there {dialect.columns.count(twice)} times; name each column once"
        raise SourceError(msg, path=str(path), column=twice)
    # all pieces are read, so that every byte is held against the encoding
    quoted = sum(bool(source.quote) and source.quote in piece for piece in scan_text(path, encoding))
    if not quoted and encoding in ("utf-8", "utf-8-sig"):
        split = _split(path, source, dialect, found)
        if split is not None:
            return split
    chunks = [_columns(rows, dialect.columns, found, source.null_values) for rows in _chunks(path, source, dialect, encoding)]
    empty = pl.Series([], dtype=pl.String)
    joined = {name: pl.concat([empty, *(columns[name] for columns, _ in chunks)]) for name in found}
    return CsvRows(joined, sum(count for _, count in chunks))


def _dialect(path: Path, source: SourceConfig, encoding: str, wanted: Sequence[str]) -> _Dialect:
    default = source.delimiter or ("\t" if _is_tsv(path, source) else ",")
    candidates = (default,) if source.delimiter else (default, *(sign for sign in _OTHERS if sign != default))
    first = {sign: _first_row(path, source, encoding, sign) for sign in candidates}
    if source.columns:
        fits = [sign for sign in candidates if len(first[sign]) == len(source.columns)]
        return _Dialect(fits[0] if fits else default, source.columns, has_header=False)
    bases = {name: _names(row) for name, row in first.items()}
    fits = [sign for sign in candidates if all(_has(bases[sign], name) for name in wanted)]
    chosen = fits[0] if fits else default
    return _Dialect(chosen, tuple(bases[chosen]), has_header=True)


def _is_tsv(path: Path, source: SourceConfig) -> bool:
    return source.format == "tsv" or (source.format is None and any(part.lower() in (".tsv", ".tab") for part in path.suffixes))


def _has(names: list[str], wanted: str) -> bool:
    return wanted in names or any(wanted[:at] in names for at, sign in enumerate(wanted) if sign == ".")


def _names(row: list[str]) -> list[str]:
    return [name.strip().removeprefix("\ufeff").strip() for name in row]


def _first_row(path: Path, source: SourceConfig, encoding: str, delimiter: str) -> list[str]:
    try:
        with open_text(path, encoding) as text:
            return next((row for row in _reader(text, source, delimiter) if row), [])
    except csv.Error as error:
        raise _broken(path, 1, error) from error
    except (UnicodeError, OSError, pa.ArrowInvalid):
        for _ in scan_text(path, encoding):  # says where
            pass
        raise


def _reader(lines: Iterator[str], source: SourceConfig, delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(_FIELD_BYTES)
    if not source.quote:
        return csv.reader(lines, delimiter=delimiter, quotechar=None, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=delimiter, quotechar=source.quote, strict=True)


def _chunks(path: Path, source: SourceConfig, dialect: _Dialect, encoding: str) -> Iterator[list[list[str]]]:
    """Return rows, some ten thousand at a time; 2.5 µs per row of four values, measured on a million."""
    line = 0
    with open_text(path, encoding) as text:
        reader = _reader(text, source, dialect.delimiter)
        try:
            skip = dialect.has_header
            while True:
                line = reader.line_num  # type: ignore[attr-defined]
                rows = [row for row in islice(reader, _ROWS) if row]
                if skip and rows:
                    rows, skip = rows[1:], False
                if not rows and not reader.line_num > line:  # type: ignore[attr-defined]
                    return
                odd = next((at for at, row in enumerate(rows) if len(row) != len(dialect.columns)), None)
                if odd is not None:
                    raise _ragged(path, rows[odd], len(dialect.columns), dialect.delimiter)
                yield rows
        except csv.Error as error:
            raise _broken(path, reader.line_num, error) from error  # type: ignore[attr-defined]


def _columns(
    rows: list[list[str]], columns: tuple[str, ...], found: list[str], nulls: tuple[str, ...]
) -> tuple[dict[str, pl.Series], int]:
    nothing = {"", *nulls}
    at = {name: columns.index(name) for name in found}
    values = {name: [None if row[i] in nothing else row[i] for row in rows] for name, i in at.items()}
    return {name: pl.Series(column, dtype=pl.String) for name, column in values.items()}, len(rows)


def _split(path: Path, source: SourceConfig, dialect: _Dialect, found: list[str]) -> CsvRows | None:
    """Return the columns of a file without quotes; None where its rows are not of one length, or longer than Arrow's blocks."""
    if not dialect.columns:
        return CsvRows({name: pl.Series([], dtype=pl.String) for name in found}, 0)
    names = [str(at) for at in range(len(dialect.columns))]
    kept = {name: names[dialect.columns.index(name)] for name in found}
    try:
        with open_bytes(path) as stream:
            table = pyarrow.csv.read_csv(
                stream,
                read_options=pyarrow.csv.ReadOptions(
                    use_threads=False, column_names=names, skip_rows=int(dialect.has_header), block_size=_BLOCK
                ),
                parse_options=pyarrow.csv.ParseOptions(delimiter=dialect.delimiter, quote_char=False),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(kept.values()) or names[:1], column_types=dict.fromkeys(names, pa.large_string()),
                    strings_can_be_null=True, null_values=["", *source.null_values],
                ),
            )  # fmt: skip
    except (pa.ArrowInvalid, OSError):
        return None  # the csv module reads it, or says in which line it cannot
    columns = {name: pl.Series(table.column(key), dtype=pl.String) for name, key in kept.items()}
    return CsvRows(columns, table.num_rows)


def _ragged(path: Path, row: list[str], num_columns: int, delimiter: str) -> SourceError:
    shown = delimiter.join(row)[:120]
    msg = (
        f"source {path}: the row {shown!r} has {len(row)} values, the header has {num_columns}; a value that holds the delimiter "
        f"{delimiter!r} needs quotes around it, and a last line that is too short means that the file was cut short"
    )
    return SourceError(msg, path=str(path), row=shown)


def _broken(path: Path, line: int | None, error: Exception) -> SourceError:
    where = "" if line is None else f"line {line}: "
    msg = (
        f"source {path}: {where}{str(error).splitlines()[0][:300]}; a quote within a value in quotes is doubled, a "
        f"value that holds the "
        "delimiter needs quotes around it; where quotes are parts of the values, set quote = '' in the recipe's source"
    )
    return SourceError(msg, path=str(path), line=line)
