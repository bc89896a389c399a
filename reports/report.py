"""What the quality report shows of a release, read from storage: no number here is measured anew that `sid_quality` holds.

Verdicts, values, limits and history are the rows of `sid_quality` of this release and those before it. Beside them: how the codes
are used, who shared a SID before uniqueness, the tree of prefixes, the items that moved furthest, and the churn against another
release. Not done here: the page (`report_page`).

Memory: the release's semantic IDs without their vectors, about 100 + 16 * L bytes per item; titles and pictures of what is shown.

Shapes: N items, L levels, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from sidlake.quality.gates import worst
from sidlake.quality.metrics.churn import LevelChurn, churn
from sidlake.quality.metrics.collision import collision_stats
from sidlake.quality.readings import READINGS
from sidlake.reports.prefix_tree import Prefix, prefix_tree
from sidlake.tokenizers.semantic_id import format_sids
from sidlake.warehouse.embeddings import as_codes
from sidlake.warehouse.releases import Release, get, level_widths, readable
from sidlake.warehouse.tables import Warehouse

__all__ = ["Comparison", "Item", "Judged", "Moved", "Report", "report_of", "verdict_of"]

_MAX_HISTORY = 60  # releases that a metric's history goes back
_NUM_MOVED = 25
_TITLES_OF_ALL = 2000  # titles sampled for what is common everywhere
_TITLE = 200  # characters of a title that its words are taken from; fewer are shown
_NUM_PICTURES = 2000  # pictures read: about as many thumbnails as a megabyte holds
_PICTURES_OF_A_PREFIX = 12

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A row of `sid_quality`, with the value that each release had, oldest first; None where it was not measured.

    `before` is the value of the release that this one is compared with.
    """

    metric: str
    level: int | None
    value: float | None
    threshold: float | None
    verdict: str
    reason: str
    examples: tuple[str, ...]
    before: float | None
    history: tuple[tuple[str, float | None], ...]

    @property
    def is_judged(self) -> bool:
        """Whether a gate asks something of it, measured or not."""
        return self.verdict != "info" or self.threshold is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """An item that the page shows; `picture` is the file's bytes, None where there is none."""

    item_id: str
    title: str
    sid: str
    moved: bool
    picture: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Moved:
    """An item, the SID that was its nearest, the title of the item that has that now, and its distance to either SID's vector."""

    item: Item
    wanted: str
    holder: str
    distance_wanted: float
    distance: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What changed since another release; `churn` is empty where no item is in both, and covers the levels that both have."""

    against: Release
    num_common: int
    num_new: int
    num_gone: int
    churn: tuple[LevelChurn, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that the page shows.

    Attributes:
        code_counts: items per code of each level, by nearest codes.
        groups_before: (items of a SID, SIDs with as many) by nearest codes; `groups_after` by published ones.
        items: what is shown of items, by row of the tree.
        titles: a sample of all titles, for what is common everywhere.
        overrides: releases up to this one that were published against their gates.
    """

    release: Release
    recipe: str
    verdict: str
    num_items: int
    num_moved: int
    widths: tuple[int, ...]
    metrics: tuple[Judged, ...]
    code_counts: tuple[npt.NDArray[np.int64], ...]
    groups_before: tuple[tuple[int, int], ...]
    groups_after: tuple[tuple[int, int], ...]
    tree: Prefix
    items: dict[int, Item]
    titles: tuple[str, ...]
    moved: tuple[Moved, ...]
    comparison: Comparison | None
    overrides: tuple[Release, ...]


def report_of(
    warehouse: Warehouse,
    release_id: str = "current",
    *,
    against: str | None = None,
    root: str | Path | None = None,
    max_shown: int = 17_000,
) -> Report:
    """Return the report of a release, compared with `against` or, without it, with the release before; deterministic.

    Pictures that items name instead of holding are read below the folder `root`, and left out without one. `max_shown` bounds the
    prefixes and items of the tree. Raises `NotFoundError` for a release that is not there.
    """
    release = get(warehouse, release_id)
    known = readable(warehouse)
    until = known[: [one.release_id for one in known].index(release.release_id) + 1]
    other = get(warehouse, against) if against else until[-2] if len(until) > 1 else None
    sids = _sids(warehouse, release)
    widths = level_widths(warehouse, release)
    codes_NL, raw_NL = (as_codes(sids[name].to_arrow()) for name in ("codes", "raw_codes"))
    tree = prefix_tree(codes_NL, max_shown=max_shown)
    furthest = _furthest(sids)
    holders = {row: _row_of(codes_NL, raw_NL[row]) for row in furthest}
    pictured = {row for prefix in tree.walk() for row in prefix.rows[:_PICTURES_OF_A_PREFIX]} | set(furthest)
    everywhere = np.linspace(0, len(sids) - 1, min(len(sids), _TITLES_OF_ALL)).astype(int).tolist()
    named = pictured | {row for prefix in tree.walk() for row in (*prefix.rows, *prefix.sample)} | set(everywhere)
    named |= {row for row in holders.values() if row is not None}
    items = _items(warehouse, release, sids, named, pictures=_pictures(warehouse, release, sids, pictured, root))
    metrics = _judged(warehouse, until[-_MAX_HISTORY:], other)
    return Report(
        release=release,
        recipe=str(release.config.get("name", "")),
        verdict=verdict_of(warehouse, release),
        num_items=len(sids),
        num_moved=int(sids["moved"].sum()),
        widths=widths,
        metrics=metrics,
        code_counts=tuple(np.bincount(raw_NL[:, level], minlength=width) for level, width in enumerate(widths)),
        groups_before=collision_stats(raw_NL).group_size_histogram,
        groups_after=collision_stats(codes_NL).group_size_histogram,
        tree=tree,
        items=items,
        titles=tuple(items[row].title for row in everywhere),
        moved=tuple(_moved(items, sids, row, holders[row]) for row in furthest),
        comparison=_compare(warehouse, sids, codes_NL, widths, other) if other else None,
        overrides=tuple(one for one in until if one.override),
    )


def verdict_of(warehouse: Warehouse, release: Release) -> str:
    """Return ``refuse`` if any metric of the release is refused (its gates were overridden), else ``warn``, else ``pass``."""
    return worst(warehouse.read("sid_quality", version=release.tables["sid_quality"], columns=["verdict"])["verdict"].to_pylist())


def _sids(warehouse: Warehouse, release: Release) -> pl.DataFrame:
    """Return the release's semantic IDs in lexicographic order of their codes, which are unique."""
    rows = warehouse.scan("semantic_ids", version=release.tables["semantic_ids"])
    kept = ["item_id", "codes", "raw_codes", "sid", "moved", "move_cost", "residual_norm"]
    frame = rows.filter(pl.col("generation") == release.generation).select(kept).collect()
    codes_NL = as_codes(frame["codes"].to_arrow())
    return frame[np.lexsort(codes_NL.T[::-1])]


def _judged(warehouse: Warehouse, releases: Sequence[Release], other: Release | None) -> tuple[Judged, ...]:
    """Return the rows of the last release's `sid_quality` with the values of all, in the order that metrics are read in."""
    rows_of = {
        version: warehouse.read("sid_quality", version=version).to_pylist()
        for version in sorted({one.tables["sid_quality"] for one in (*releases, *([other] if other else []))})
    }
    values = {version: {(row["metric"], row["level"]): row["value"] for row in rows} for version, rows in rows_of.items()}
    found = [
        Judged(
            metric=row["metric"],
            level=row["level"],
            value=row["value"],
            threshold=row["threshold"],
            verdict=row["verdict"],
            reason=row.get("reason") or "",
            examples=tuple(row.get("examples") or ()),
            before=values[other.tables["sid_quality"]].get((row["metric"], row["level"])) if other else None,
            history=tuple(
                (one.release_id, values[one.tables["sid_quality"]].get((row["metric"], row["level"]))) for one in releases
            ),
        )
        for row in rows_of[releases[-1].tables["sid_quality"]]
    ]
    order = {metric: place for place, metric in enumerate(READINGS)}
    return tuple(
        sorted(found, key=lambda one: (order.get(one.metric, len(order)), one.metric, -1 if one.level is None else one.level))
    )


def _furthest(sids: pl.DataFrame) -> list[int]:
    moved = sids.with_row_index("row").filter("moved").sort("move_cost", "item_id", descending=[True, False])
    return moved["row"].head(_NUM_MOVED).to_list()


def _row_of(codes_NL: Codes, codes_L: Codes) -> int | None:
    """Return the row of the item that has these codes, None where nobody has: they were taken by an item that has gone."""
    found = np.flatnonzero((codes_NL == codes_L).all(axis=1))
    return int(found[0]) if len(found) else None


def _items(
    warehouse: Warehouse, release: Release, sids: pl.DataFrame, rows: set[int], *, pictures: dict[int, bytes]
) -> dict[int, Item]:
    """Return the items of `rows` with their titles."""
    about = _about(warehouse, release, sids, rows, ["title"]).with_columns(pl.col("title").str.slice(0, _TITLE)).sort("row")
    return {
        row["row"]: Item(
            item_id=row["item_id"], title=row["title"], sid=row["sid"], moved=row["moved"], picture=pictures.get(row["row"])
        )
        for row in about.iter_rows(named=True)
    }


def _pictures(
    warehouse: Warehouse, release: Release, sids: pl.DataFrame, rows: set[int], root: str | Path | None
) -> dict[int, bytes]:
    """Return the pictures of at most `_NUM_PICTURES` of `rows`, spread over them; rows without one are left out."""
    wanted = set(np.array(sorted(rows))[np.linspace(0, len(rows) - 1, min(len(rows), _NUM_PICTURES)).astype(int)].tolist())
    about = _about(warehouse, release, sids, wanted, ["image", "image_uri"])
    found = {
        row: image if image is not None else _picture_at(uri, root)
        for row, image, uri in about.select("row", "image", "image_uri").iter_rows()
    }
    return {row: picture for row, picture in found.items() if picture}


def _about(warehouse: Warehouse, release: Release, sids: pl.DataFrame, rows: set[int], columns: list[str]) -> pl.DataFrame:
    """Return `columns` of `items` for `rows`; batches of the table are read and dropped one after the other."""
    shown = sids.with_row_index("row")[sorted(rows)].select("row", "item_id", "sid", "moved")
    scanned = warehouse.scan("items", version=release.tables["items"]).select("item_id", *columns)
    return scanned.join(shown.lazy(), on="item_id").collect(engine="streaming")


def _picture_at(uri: str | None, root: str | Path | None) -> bytes | None:
    """Return the bytes of the file `uri` below `root`; None for addresses (a page asks nobody), and where no file is."""
    if uri is None or root is None:
        return None
    path = (Path(root) / uri).resolve()
    return path.read_bytes() if path.is_relative_to(Path(root).resolve()) and path.is_file() else None


def _moved(items: dict[int, Item], sids: pl.DataFrame, row: int, holder: int | None) -> Moved:
    distance, cost = (float(sids[name][row]) for name in ("residual_norm", "move_cost"))
    return Moved(
        item=items[row],
        wanted=format_sids(np.array([sids["raw_codes"][row].to_list()]))[0],
        holder=items[holder].title if holder is not None else "",
        distance_wanted=distance - cost,
        distance=distance,
    )


def _compare(warehouse: Warehouse, sids: pl.DataFrame, codes_NL: Codes, widths: tuple[int, ...], other: Release) -> Comparison:
    rows = warehouse.scan("semantic_ids", version=other.tables["semantic_ids"]).filter(pl.col("generation") == other.generation)
    before = rows.select("item_id", pl.col("codes").alias("codes_before")).collect()
    both = sids.select("item_id", "codes").join(before, on="item_id")
    found: tuple[LevelChurn, ...] = ()
    if len(both):
        before_NL, after_NL = (as_codes(both[name].to_arrow()) for name in ("codes_before", "codes"))
        levels = min(before_NL.shape[1], after_NL.shape[1])
        widths_before = level_widths(warehouse, other)
        found = churn(before_NL[:, :levels], after_NL[:, :levels], widths_before[:levels], widths[:levels])
    return Comparison(
        against=other,
        num_common=len(both),
        num_new=len(codes_NL) - len(both),
        num_gone=len(before) - len(both),
        churn=found,
    )
