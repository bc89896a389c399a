"""Items as the quality report shows them: the tree of prefixes to browse, and their pictures.

Pictures are drawn anew at 32 pixels, so a page holds no byte that a catalogue's file brought along, and each is stored once however
often it is shown. Not done here: which items are shown (`report`, `prefix_tree`), and how (`templates/items.html.j2`).
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from sidlake.reports.prefix_tree import Prefix, distinctive_words, word_shares
from sidlake.reports.report import Item, Report
from sidlake.tokenizers.semantic_id import format_sids

__all__ = ["Fold", "thumbnails", "tree_of_items"]

_PICTURE_SIZE = 32
_PICTURE_BYTES = 1_200_000  # of all pictures together, as data URIs
_MAX_PIXELS = 50_000_000
_STRIP = 5  # pictures beside a prefix


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """A prefix of the tree to open: what is said of it, the folds and items inside, and how many of these are not shown.

    Attributes:
        sid: the prefix spelled; empty at the root.
        pictured: rows of items whose pictures stand beside the prefix.
        items: (row, what follows the prefix in the item's SID, the item).
    """

    sid: str
    num_items: int
    words: tuple[str, ...]
    pictured: tuple[int, ...]
    folds: tuple[Fold, ...]
    items: tuple[tuple[int, str, Item], ...]
    num_hidden: int


def tree_of_items(report: Report, pictured: Mapping[int, Markup]) -> Fold:
    """Return the prefixes as nested folds, each with its number of items and its words, down to the items.

    `pictured` are the pictures of the page by row.
    """
    everywhere = word_shares(report.titles)

    def fold(prefix: Prefix) -> Fold:
        sid = format_sids([prefix.codes])[0] if prefix.codes else ""
        return Fold(
            sid=sid,
            num_items=prefix.num_items,
            words=distinctive_words([report.items[row].title for row in prefix.sample], everywhere),
            pictured=_strip(prefix, pictured) if len(prefix.codes) == 1 else (),
            folds=tuple(fold(child) for child in prefix.children),
            items=tuple((row, report.items[row].sid[len(sid) :], report.items[row]) for row in prefix.rows),
            num_hidden=prefix.num_hidden,
        )

    return fold(report.tree)


def _strip(prefix: Prefix, pictured: Mapping[int, Markup]) -> tuple[int, ...]:
    """Return a few rows with pictures, spread over the items below `prefix`."""
    return tuple(_spread([row for below in prefix.walk() for row in below.rows if row in pictured], _STRIP))


def thumbnails(items: Mapping[int, Item]) -> dict[int, Markup]:
    """Return the pictures of a page as data URIs by row, of some items only where all would be too many bytes."""
    drawn = {row: _thumbnail(item.picture) for row, item in sorted(items.items()) if item.picture is not None}
    uris = {row: uri for row, uri in drawn.items() if uri}
    fitting = min(1.0, _PICTURE_BYTES / max(1, sum(len(uri) for uri in uris.values())))
    return {row: uris[row] for row in _spread(list(uris), int(len(uris) * fitting))}


def _spread(rows: Sequence[int], num: int) -> list[int]:
    """Return `num` of `rows`, or all, from the first to the last evenly."""
    return [rows[place] for place in np.linspace(0, len(rows) - 1, min(len(rows), num)).astype(int).tolist()]


def _thumbnail(picture: bytes) -> Markup:
    """Return the picture, drawn anew at 32 pixels, as a data URI; empty for one that cannot be read (`rejected_rows` names it)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked before decoding
            with Image.open(io.BytesIO(picture)) as opened:
                if opened.width * opened.height > _MAX_PIXELS:
                    return Markup()
                small = opened.convert("RGBA")
                small.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return Markup()
    stream = io.BytesIO()
    small.save(stream, format="WEBP", quality=50)
    return Markup("data:image/webp;base64,") + base64.b64encode(stream.getvalue()).decode()
