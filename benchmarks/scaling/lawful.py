"""A lawful release of any size, written straight into a warehouse without a pipeline: random events over items with unique SIDs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.warehouse.contracts import CONTRACTS, conform
from sidlake.warehouse.tables import Warehouse

__all__ = ["WIDTH", "events", "write_release"]

WIDTH = 128
_LEVELS = 3
_NOW = 1_767_225_600_000_000  # 2026-01-01, in microseconds
_DAYS = 60
_US = pa.timestamp("us", tz="UTC")


def write_release(warehouse: Warehouse, num_items: int, num_events: int, *, seed: int) -> dict[str, int]:
    """Return the versions of the tables of a release of generation g1."""
    rng = np.random.default_rng(seed)
    names, codes_NL = item_ids(num_items), _codes(num_items)
    interactions = events(names, num_events, rng, first_user=0, day=None)
    sequences = _sequences(interactions, names, codes_NL)
    quality = pa.Table.from_pylist([{"metric": "collision_rate", "value": 0.0, "verdict": "pass"}], CONTRACTS["sid_quality"])
    content = {
        "items": _items(names, rng),
        "codebooks": _codebooks(),
        "semantic_ids": _semantic_ids(names, codes_NL),
        "sid_quality": quality,
        "sid_trie": _trie(names, codes_NL),
        "interactions": interactions,
        "user_sequences": sequences,
    }
    return {table: warehouse.overwrite(table, rows, run_id="run") for table, rows in content.items()}


def item_ids(count: int) -> pa.Array:
    """Return the names of that many items."""
    return pa.array([f"item-{number:07d}" for number in range(count)])


def events(names: pa.Array, count: int, rng: np.random.Generator, *, first_user: int, day: int | None) -> pa.Table:
    """Return `count` events, 25 a user, over the last days or on the one that many days after them, no two alike."""
    users = max(1, count // 25)
    days_N = rng.integers(-_DAYS, 0, count) if day is None else np.full(count, day)
    when = pa.array(_NOW + days_N * 86_400_000_000 + rng.integers(0, 86_000, count) * 1_000_000 + np.arange(count) % 1_000_000)
    named = pa.array([f"user-{first_user + number:07d}" for number in range(users)])
    rows = pa.table(
        {
            "user_id": named.take(pa.array(np.sort(rng.integers(0, users, count)))),
            "item_id": names.take(pa.array(rng.integers(0, len(names), count))),
            "ts": when.cast(_US),
            "event": pa.array(np.full(count, "purchase")),
            "weight": np.ones(count, dtype=np.float32),
            "day": pc.strftime(when.cast(pa.timestamp("us")), "%Y-%m-%d"),
        }
    )
    return rows.cast(CONTRACTS["interactions"])


def _codes(count: int) -> np.ndarray:
    numbers = np.arange(count)
    return np.stack([numbers // WIDTH**2, numbers // WIDTH % WIDTH, numbers % WIDTH], axis=1).astype(np.int32)


def _lists(values: pa.Array, per: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, per, dtype=np.int32)), values)


def _items(names: pa.Array, rng: np.random.Generator) -> pa.Table:
    count = len(names)
    columns = {
        "item_id": names,
        "title": pa.array([f"thing {number}" for number in range(count)]),
        "text": pa.array([f"what there is to say of thing {number}" for number in range(count)]),
        "category": _lists(pa.array(["a", "b"] * count), 2),
        "price": pa.array(rng.random(count)),
        "image": pa.nulls(count, pa.binary()),
        "image_uri": pa.nulls(count, pa.string()),
        "content_hash": pa.array([f"{number:032x}" for number in range(count)]),
        "first_seen": pa.array(np.full(count, _NOW)).cast(_US),
        "updated_at": pa.array(np.full(count, _NOW)).cast(_US),
    }
    return pa.table(columns).cast(CONTRACTS["items"])


def _codebooks() -> pa.Table:
    rows = [
        {"generation": "g1", "level": level, "code": code, "centroid": [float(level), float(code)], "count": 1}
        for level in range(_LEVELS)
        for code in range(WIDTH)
    ]
    return pa.Table.from_pylist(rows, CONTRACTS["codebooks"])


def _semantic_ids(names: pa.Array, codes_NL: np.ndarray) -> pa.Table:
    count, flat = len(names), pa.array(codes_NL.ravel())
    columns = {
        "item_id": names,
        "generation": pa.array(["g1"] * count),
        "codes": _lists(flat, _LEVELS),
        **{f"code_{level}": pa.array(codes_NL[:, level]) for level in range(_LEVELS)},
        "sid": pa.array([f"<a_{a}><b_{b}><c_{c}>" for a, b, c in codes_NL.tolist()]),
        "sid_key": pa.array(np.arange(count)),
        "modalities": _lists(pa.array(["text"] * count), 1),
        "raw_codes": _lists(flat, _LEVELS),
        "moved": pa.array(np.zeros(count, dtype=bool)),
        "move_cost": pa.array(np.zeros(count, dtype=np.float32)),
        "residual_norm": pa.array(np.ones(count, dtype=np.float32)),
        "assigned_at": pa.array(np.full(count, _NOW)).cast(_US),
    }
    return conform(pa.table(columns), "semantic_ids", num_levels=_LEVELS)


def _sequences(interactions: pa.Table, names: pa.Array, codes_NL: np.ndarray) -> pa.Table:
    """Return a sequence per user: `interactions` are in the order of users."""
    users = interactions["user_id"].combine_chunks()
    starts = np.flatnonzero(np.concatenate([[True], np.asarray(pc.not_equal(users[1:], users[:-1]))]))
    offsets = np.append(starts, len(users)).astype(np.int32)
    items = interactions["item_id"].combine_chunks()
    places = pc.index_in(items, value_set=names).to_numpy()
    columns = {
        "user_id": users.take(pa.array(starts)),
        "split": pa.array(["train"] * len(starts)),
        "item_ids": pa.ListArray.from_arrays(pa.array(offsets), items),
        "codes": pa.ListArray.from_arrays(pa.array(offsets * _LEVELS), pa.array(codes_NL[places].ravel())),
        "target": pa.nulls(len(starts), pa.string()),
    }
    return pa.table(columns).cast(CONTRACTS["user_sequences"])


def _trie(names: pa.Array, codes_NL: np.ndarray) -> pa.Table:
    """Return the trie of items whose numbers are their keys, in order."""
    keys = [np.unique(np.arange(len(names)) // WIDTH ** (_LEVELS - 1 - level)) for level in range(_LEVELS)]
    parts = []
    for level, key in enumerate(keys):
        last = level == _LEVELS - 1
        below = key if last else keys[level + 1] // WIDTH
        ends = (
            [np.zeros(len(key), dtype=np.int64)] * 2 if last else [np.searchsorted(below, key, side) for side in ("left", "right")]
        )
        columns = {
            "level": pa.array(np.full(len(key), level, dtype=np.int32)),
            "node": pa.array(np.arange(len(key))),
            "code": pa.array((key % WIDTH).astype(np.int32)),
            "child_start": pa.array(ends[0]),
            "child_end": pa.array(ends[1]),
            "item_id": names if last else pa.nulls(len(key), pa.string()),
        }
        parts.append(pa.table(columns).cast(CONTRACTS["sid_trie"]))
    return pa.concat_tables(parts)
