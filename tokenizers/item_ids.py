"""The one spelling of an identifier, on every side of a join: items, events, vectors, imported SIDs and lists of ids.

Unicode's composed form (NFC), so that é is one letter however a system wrote it; no blanks and no byte-order mark around it; letter
case as it is, unless a recipe says that its sources write one item in both cases. Not done here: numbers as identifiers (see
`pipelines.ingest.columns`).
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path

import polars as pl

__all__ = ["normal_id", "normal_ids", "read_id_list", "spelled"]


def spelled(ids: pl.Series, *, uppercase: bool = False) -> pl.Series:
    r"""Return identifiers in their one spelling, nulls as they are.

    >>> spelled(pl.Series([" Cafe\u0301", None]), uppercase=True).to_list() == ["CAF\u00c9", None]
    True
    """
    plain = bool((ids.str.len_bytes() == ids.str.len_chars()).all())  # ASCII has one form; half the time of a million ids
    found = ids if plain else ids.str.normalize("NFC")
    if uppercase:
        found = found.str.to_uppercase().str.normalize("NFC")
    return found.str.strip_chars(_BLANKS)


def normal_ids(ids: Iterable[str], *, uppercase: bool = False) -> list[str]:
    r"""Return `spelled` of a list of texts.

    >>> normal_ids(["\ufeffa1 ", "b2"])
    ['a1', 'b2']
    """
    found: list[str] = spelled(pl.Series(list(ids), dtype=pl.String), uppercase=uppercase).to_list()
    return found


def normal_id(item_id: str, *, uppercase: bool = False) -> str:
    """Return `spelled` of one identifier; of plain letters in a microsecond, where a column of one row takes a hundred.

    >>> normal_id(" 85123a ", uppercase=True)
    '85123A'
    """
    if not item_id.isascii():
        return normal_ids([item_id], uppercase=uppercase)[0]
    return (item_id.upper() if uppercase else item_id).strip(_BLANKS)


def read_id_list(path: Path) -> list[str]:
    """Return the identifiers of a text file, one per line, in their one spelling; empty lines at its end do not count.

    Raises OSError where it cannot be read and UnicodeDecodeError where it is not UTF-8 (UTF-16 with its byte-order mark is read).
    """
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    lines = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n").rstrip().split("\n")
    return normal_ids([] if lines == [""] else lines)


_BLANKS = "".join(
    chr(code) for code in (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200C), 0x2028, 0x2029)
) + ("\u202f\u205f\u3000\u2060\ufeff")
"""What counts as blank: Unicode's white space, the zero-width ones and the byte-order mark."""
