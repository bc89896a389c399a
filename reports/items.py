"""Items as the quality report shows them: the tree of prefixes to browse, those that moved furthest, and their pictures.

Pictures are drawn anew at 32 pixels, so a page holds no byte that a catalogue's file brought along, and each is stored once however
often it is shown. Not done here: which items are shown (`report`, `prefix_tree`).
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping

import numpy as np
from PIL import Image

from sidlake.reports.prefix_tree import Prefix, distinctive_words, word_shares
from sidlake.reports.report import Item, Moved, Report
from sidlake.reports.text import text
from sidlake.tokenizers.semantic_id import format_sids

__all__ = ["Pictures", "moved_items", "tree_of_items"]

_PICTURE_SIZE = 32
_PICTURE_BYTES = 1_200_000  # of all pictures together, as data URIs
_MAX_PIXELS = 50_000_000
_MOVED_OPEN = 10  # moved items shown at once
_STRIP = 5  # pictures beside a prefix


class Pictures:
    """The thumbnails of a page: style rules that tags refer to by number, of some items only where all would be too many bytes."""

    def __init__(self, items: Mapping[int, Item]) -> None:
        found = {row: _thumbnail(item.picture) for row, item in sorted(items.items()) if item.picture is not None}
        uris = [(row, uri) for row, uri in found.items() if uri]
        fitting = min(1.0, _PICTURE_BYTES / max(1, sum(len(uri) for _, uri in uris)))
        kept = np.linspace(0, len(uris) - 1, int(len(uris) * fitting)).astype(int).tolist()
        self._uris = dict(uris[place] for place in kept)

    def style(self) -> str:
        """Return the rules, one per picture."""
        return "".join(f".p{row}{{background-image:url({uri})}}" for row, uri in self._uris.items())

    def tag(self, row: int) -> str:
        """Return the picture of the item of `row`; empty where it has none."""
        return f'<i class="picture p{row}"></i>' if row in self._uris else ""

    def strip(self, prefix: Prefix) -> str:
        """Return a few pictures spread over the items below `prefix`."""
        rows = [row for below in prefix.walk() for row in below.rows if row in self._uris]
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), _STRIP)).astype(int).tolist() if rows else []
        return "".join(self.tag(rows[place]) for place in chosen)


def tree_of_items(report: Report, pictures: Pictures) -> str:
    """Return the prefixes as nested folds, each with its number of items and its words, down to the items."""
    everywhere = word_shares(report.titles)

    def node(prefix: Prefix) -> str:
        words = distinctive_words([report.items[row].title for row in prefix.sample], everywhere)
        spelled = text(format_sids([prefix.codes])[0])
        many = f"{prefix.num_items:,} item{'s' if prefix.num_items > 1 else ''}"
        about = ", ".join(text(word, limit=20) for word in words)
        strip = pictures.strip(prefix) if len(prefix.codes) == 1 else ""
        return (
            f"<details><summary><span class=sid>{spelled}</span> {many} {strip}<bdi class=soft>{about}</bdi></summary>"
            f"{inside(prefix)}</details>"
        )

    def inside(prefix: Prefix) -> str:
        start = len(format_sids([prefix.codes])[0]) if prefix.codes else 0
        items = "".join(f"<li>{leaf(row, report.items[row], start)}" for row in prefix.rows)
        hidden = f"<li class=soft>and {prefix.num_hidden:,} more" if prefix.num_hidden else ""
        return "".join(node(child) for child in prefix.children) + (f"<ul>{items}{hidden}</ul>" if items or hidden else "")

    def leaf(row: int, item: Item, start: int) -> str:
        moved = " <span class=soft>(moved)</span>" if item.moved else ""
        return f"{pictures.tag(row)}<span class=sid>{text(item.sid[start:])}</span> {_titled(item)}{moved}"

    return f"<div class=tree>{inside(report.tree)}</div>"


def moved_items(moved: tuple[Moved, ...], pictures: Pictures, rows: Mapping[str, int]) -> str:
    """Return who moved from which SID to which, and by how much; `rows` gives the row of an item_id."""
    lines = [
        f"<div class=moved><div>{pictures.tag(rows[one.item.item_id])}{_titled(one.item)}</div>"
        f"<div>wanted <span class=sid>{text(one.wanted)}</span>, which belongs to {_holder(one)}</div>"
        f"<div>got <span class=sid>{text(one.item.sid)}</span></div>"
        f"<div>{one.distance_wanted:.2f} → {one.distance:.2f}</div></div>"
        for one in moved
    ]
    more = lines[_MOVED_OPEN:]
    folded = f"<details><summary>{len(more)} more</summary>{''.join(more)}</details>" if more else ""
    return "".join(lines[:_MOVED_OPEN]) + folded


def _holder(one: Moved) -> str:
    return f"<bdi>{text(one.holder)}</bdi>" if one.holder else "an item that is gone"


def _titled(item: Item) -> str:
    title = f"<bdi>{text(item.title)}</bdi>" if item.title.strip() else "<i>no title</i>"
    return f'{title} <bdi class="soft sid">{text(item.item_id)}</bdi>'


def _thumbnail(picture: bytes) -> str:
    """Return the picture, drawn anew at 32 pixels, as a data URI; empty for one that cannot be read (`rejected_rows` names it)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is checked before decoding
            with Image.open(io.BytesIO(picture)) as opened:
                if opened.width * opened.height > _MAX_PIXELS:
                    return ""
                small = opened.convert("RGBA")
                small.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return ""
    stream = io.BytesIO()
    small.save(stream, format="WEBP", quality=50)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
