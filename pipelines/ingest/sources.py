"""Which files a source is: the one that is named, those of a folder or a pattern, and what a reading of them leaves out.

A file of the very name comes before any pattern, so ``items[1].csv`` is that file. A folder holds files whose ending (upper or
lower case, compressed or not) is one of the format's, or of any format where the recipe names none; what else lies there is left
out and named: other endings, hidden files, links that lead nowhere. What a file holds is told by its content (`format_of`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from sidlake.errors import SourceError
from sidlake.pipelines.ingest.text_streams import first_text
from sidlake.pipelines.settings.sources import Format, SourceConfig, Store

__all__ = ["SourceFiles", "find_files", "format_of", "source_files", "store_of"]

_ENDINGS: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet", ".pq", ".parq"),
    "csv": (".csv",),
    "tsv": (".tsv", ".tab"),
    "jsonl": (".jsonl", ".ndjson", ".json"),
}
_COMPRESSED = (".gz", ".zst", ".bz2", ".lz4")
_SIGNS = "*?["
_DELTA_LOG = "_delta_log"


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """The files of a source by name, sorted, and the names of what lies beside them and is not read."""

    files: dict[str, Path]
    left_out: tuple[str, ...] = ()


def source_files(path: Path, file_format: Format | None, source: str) -> dict[str, Path]:
    """Return the files of a source by name (`find_files`).

    >>> source_files(Path("nowhere.csv"), "csv", "events")
    Traceback (most recent call last):
    sidlake.errors.SourceError: source events: no such file nowhere.csv; the recipe's paths start at the recipe's folder
    """
    return find_files(path, file_format, source).files


def find_files(path: Path, file_format: Format | None, source: str) -> SourceFiles:
    """Return the files of a source: one file by the empty name, those of a folder or pattern by their path below it.

    A folder is searched at any depth; hidden files (and those in hidden folders) are somebody's work in progress. A pattern that
    says its files' ending (``*.txt``) names them whatever their ending. Raises `SourceError` where there is none.
    """
    path = _at_home(path)
    if path.is_file():
        return SourceFiles({"": path})
    if (path / _DELTA_LOG).is_dir():  # its newest commit says whether it has changed; its files hold removed rows too
        commits = sorted((path / _DELTA_LOG).glob("*.json"))
        return SourceFiles({"": commits[-1]} if commits else {})
    fixed = [part for part in path.parts if not any(sign in part for sign in _SIGNS)]
    is_pattern = len(fixed) < len(path.parts) and not path.is_dir()
    top = path if path.is_dir() else Path(*path.parts[: _first_sign(path)])
    found = path.rglob("*") if path.is_dir() else top.glob(str(path.relative_to(top))) if is_pattern else ()
    named = {file.relative_to(top).as_posix(): file for file in found}
    any_ending = is_pattern and file_format is not None and not _ends_open(path.name)
    endings = _endings(file_format)
    taken = {
        name: file
        for name, file in sorted(named.items())
        if file.is_file() and not _hidden(name) and (any_ending or _plain(name).endswith(endings))
    }
    if not taken:
        what = f"no file ending in {' or '.join(endings)} in" if path.is_dir() else "no such file"
        msg = f"source {source}: {what} {path}; the recipe's paths start at the recipe's folder"
        raise SourceError(msg, path=str(path), left_out=sorted(named)[:20])
    left_out = (name for name, file in named.items() if name not in taken and (not file.is_dir() or file.is_symlink()))
    return SourceFiles(taken, tuple(sorted(left_out)))


def store_of(where: str, source: SourceConfig) -> Store | None:
    """Return what kind of table or database a source is, None for files of rows: as the recipe says, or as its content tells."""
    if source.format in get_args(Store):
        return source.format  # type: ignore[return-value]  # mypy does not narrow by get_args
    if source.format is None and where.startswith(("postgresql://", "postgres://")):
        return "postgres"
    path = _at_home(Path(where))
    if source.format is None and (path / _DELTA_LOG).is_dir():
        return "delta"
    if source.format is None and path.is_file():
        with path.open("rb") as stream:
            start = stream.read(16)
        return "sqlite" if start == b"SQLite format 3\x00" else "duckdb" if start[8:12] == b"DUCK" else None
    return None


def format_of(path: Path, source: SourceConfig) -> Format:
    """Return the format of a file: the recipe's, else its ending's, else its content's.

    Raises:
        SourceError: the content is plainly of another format than the recipe or the ending says, or tells none.
    """
    if source.format in get_args(Store):
        return "parquet"  # of which a run has taken a snapshot
    with path.open("rb") as stream:
        is_parquet = stream.read(4) == b"PAR1"
    name = _plain(path.name)
    by_ending = next((form for form, endings in _ENDINGS.items() if name.endswith(endings)), None)
    stated = source.format or by_ending
    if stated == "parquet" or is_parquet:
        if stated != "parquet" and stated is not None:
            raise _other_format(path, stated, "parquet")
        found = None if is_parquet else _text_format(path, source)
        if found is not None:
            raise _other_format(path, "parquet", found)
        return "parquet"
    if stated is None:
        stated = _text_format(path, source)
        if stated is None:
            msg = f"source {path}: neither ending nor content tells what it is; set format = 'parquet', 'csv', 'tsv' or 'jsonl'"
            raise SourceError(msg, path=str(path))
    elif stated != "jsonl" and first_text(path, source.encoding).lstrip("\ufeff \r\n\t").startswith('{"'):
        raise _other_format(path, stated, "jsonl")
    return stated


def _at_home(path: Path) -> Path:
    """Return the path, from the home folder where a part is ``~`` and nothing is called so."""
    if path.exists() or "~" not in path.parts:
        return path
    return Path.home().joinpath(*path.parts[path.parts.index("~") + 1 :])


def _first_sign(path: Path) -> int:
    return next((at for at, part in enumerate(path.parts) if any(sign in part for sign in _SIGNS)), len(path.parts))


def _ends_open(pattern: str) -> bool:
    ending = Path(pattern).suffix
    return not ending or any(sign in ending for sign in _SIGNS)


def _endings(file_format: Format | None) -> tuple[str, ...]:
    return (
        _ENDINGS[file_format] if file_format in _ENDINGS else tuple(ending for endings in _ENDINGS.values() for ending in endings)
    )


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


def _plain(name: str) -> str:
    """Return a file's name in lower case without the ending of its compression."""
    low = name.lower()
    return next((low.removesuffix(ending) for ending in _COMPRESSED if low.endswith(ending)), low)


def _text_format(path: Path, source: SourceConfig) -> Format | None:
    """Return the format that the first lines of a text tell, None for what is no text."""
    text = first_text(path, source.encoding).lstrip("\ufeff \r\n\t")
    if not text or any(ord(sign) < 9 for sign in text):
        return None
    if text.startswith(("{", "[{")):
        return "jsonl"
    first = next(_lines(text), "")
    if first.count("\t") > first.count(","):
        return "tsv"
    return "csv" if any(sign in first for sign in ",;|") else None


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if line.strip())


def _other_format(path: Path, stated: str, found: str) -> SourceError:
    msg = (
        f"source {path}: cannot be read as {stated}: its content is {found}; set format = {found!r} in the recipe's "
        f"source, or leave "
        "format out where the file's ending tells it"
    )
    return SourceError(msg, path=str(path), stated=stated, found=found)
