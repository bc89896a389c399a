"""A made-up shop of any size, written to disk in pieces: items, events and vectors as Parquet, and the recipe that names them.

Titles are words of lists, categories paths of three, prices log-normal. Who takes what is skewed as in real shops (Zipf, over a
year), and half of a user's events lie in a cluster that the user likes, so that vectors tell something of what comes next. Vectors
are clusters within clusters, so that levels of codes have something to find. A piece is 2¹⁶ rows, and each depends on its number
and the seed alone: what is in memory does not grow with the size, and a later day's rows are written as the first ones were.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

DIM = 64
PIECE = 2**16
MONTHS = 12
YEAR_BEGIN, YEAR_SECONDS = 1_704_067_200, 365 * 86_400  # 2024-01-01
EVENTS_PER_USER = 12
_CLUSTERS, _WITHIN = 512, 64
_DEPARTMENTS = ("Kitchen", "Garden", "Toys", "Stationery", "Lighting", "Textiles", "Bath", "Pets", "Sports", "Office")
_KINDS = ("Mug", "Lantern", "Cushion", "Notebook", "Planter", "Puzzle", "Towel", "Bowl", "Frame", "Clock", "Basket", "Lamp", "Tray")
_LOOKS = ("Red", "Blue", "Ivory", "Striped", "Vintage", "Oak", "Glass", "Wool", "Enamel", "Woven", "Painted", "Brass", "Linen")
_MAKERS = ("Alder & Sons", "Brightwater", "Corvus", "Dunmore", "Elmhouse", "Fernley", "Greyling", "Harrow", "Isley", "Juniper")

RECIPE = f"""
name = "scale"
[sources.items]
path = "items"
[sources.events]
path = "events"
[items]
source = "items"
item_id = "item_id"
title = "title"
text = ["maker"]
category = "category"
price = "price"
[interactions]
source = "events"
user_id = "user_id"
item_id = "item_id"
ts = "ts"
[encoders.precomputed.given]
path = "vectors.parquet"
[encoders.fusion.given]
dim = {DIM}
"""


@dataclass(frozen=True, kw_only=True)
class Shop:
    """So many items and events in `folder`, as of a day; `write` makes it, `grow` is the next day."""

    folder: Path
    seed: int = 0

    def write(self, items: int, events: int) -> None:
        """Write recipe, items, a file of events a month, and vectors."""
        for name in ("items", "events"):
            (self.folder / name).mkdir()
        (self.folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
        self._items("items/first.parquet", 0, items)
        write(self.folder / "vectors.parquet", self._vectors(0, items))
        for month in range(MONTHS):
            begin = YEAR_BEGIN + month * YEAR_SECONDS // MONTHS
            num = events * (month + 1) // MONTHS - events * month // MONTHS
            self._events(f"events/month-{month + 1:02d}.parquet", num, items, begin=begin, seconds=YEAR_SECONDS // MONTHS)

    def grow(self, *, known: int, items: int, events: int) -> None:
        """Add a day: new items in a file of their own, events of old and new ones, and the vectors' table with theirs too."""
        self._items("items/later.parquet", known, items)
        self._events("events/later.parquet", events, known + items, begin=YEAR_BEGIN + YEAR_SECONDS, seconds=86_400)
        table, beside = self.folder / "vectors.parquet", self.folder / "vectors.new"
        write(beside, chain(_pieces(table), self._vectors(known, items)))
        beside.replace(table)

    def _items(self, name: str, first: int, num: int) -> None:
        def piece(rng: np.random.Generator, rows: npt.NDArray[np.int64]) -> pa.Table:
            words = [rng.choice(of, len(rows)) for of in (_LOOKS, _KINDS, _MAKERS)]
            paths = [
                [_DEPARTMENTS[cluster % len(_DEPARTMENTS)], f"Range {cluster % 40}", kind]
                for cluster, kind in zip((rows % _CLUSTERS).tolist(), words[1].tolist(), strict=True)
            ]
            titles = [f"{look} {kind} by {maker}, no. {row}" for look, kind, maker, row in zip(*words, rows.tolist(), strict=True)]
            prices = np.round(np.exp(rng.normal(2.5, 0.8, len(rows))), 2)
            return pa.table({"item_id": _ids(rows), "title": titles, "maker": words[2], "category": paths, "price": prices})

        write(self.folder / name, self._drawn(1, first, num, piece))

    def _vectors(self, first: int, num: int) -> Iterator[pa.Table]:
        rng = np.random.default_rng([self.seed, 99])
        centres = rng.standard_normal((_CLUSTERS, DIM), dtype=np.float32)
        within = rng.standard_normal((_WITHIN, DIM), dtype=np.float32) / 2

        def piece(rng: np.random.Generator, rows: npt.NDArray[np.int64]) -> pa.Table:
            noise = rng.standard_normal((len(rows), DIM), dtype=np.float32) / 4
            x_ND = centres[rows % _CLUSTERS] + within[rng.integers(_WITHIN, size=len(rows))] + noise
            return pa.table({"item_id": _ids(rows), "vector": pa.FixedSizeListArray.from_arrays(x_ND.ravel(), DIM)})

        return self._drawn(2, first, num, piece)

    def _events(self, name: str, num: int, items: int, *, begin: int, seconds: int) -> None:
        users = max(items // 2, num // EVENTS_PER_USER, 1)

        def piece(rng: np.random.Generator, rows: npt.NDArray[np.int64]) -> pa.Table:
            user_N = _zipf(rng, users, len(rows))
            item_N = _zipf(rng, items, len(rows)) * 7919 % items  # 7919 is prime: popular items lie in all clusters
            liked_N = item_N - item_N % _CLUSTERS + user_N * 31 % _CLUSTERS
            item_N = np.where((rng.random(len(rows)) < 0.5) & (liked_N < items), liked_N, item_N)
            ts_N = pa.array((begin + rng.integers(seconds, size=len(rows))) * 1_000_000, pa.timestamp("us"))
            return pa.table({"user_id": [f"u{user}" for user in user_N.tolist()], "item_id": _ids(item_N), "ts": ts_N})

        write(self.folder / name, self._drawn(begin, 0, num, piece))

    def _drawn(
        self, kind: int, first: int, num: int, piece: Callable[[np.random.Generator, npt.NDArray[np.int64]], pa.Table]
    ) -> Iterator[pa.Table]:
        for start in range(first, first + num, PIECE):
            rows = np.arange(start, min(start + PIECE, first + num))
            yield piece(np.random.default_rng([self.seed, kind, start]), rows)


def write(path: Path, pieces: Iterable[pa.Table]) -> None:
    """Write the pieces as row groups of one file; without any, no file."""
    writer = None
    for piece in pieces:
        writer = writer or pq.ParquetWriter(path, piece.schema)
        writer.write_table(piece)
    if writer is not None:
        writer.close()


def _pieces(path: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def _ids(rows: npt.NDArray[np.int64]) -> list[str]:
    return [f"item-{row:09d}" for row in rows.tolist()]


def _zipf(rng: np.random.Generator, num: int, size: int) -> npt.NDArray[np.int64]:
    """Return numbers from 0 to num − 1 whose frequency falls as 1 / (1 + number): no table of `num` shares is needed."""
    return np.minimum(np.exp(rng.random(size) * np.log(num + 1)).astype(np.int64) - 1, num - 1)
