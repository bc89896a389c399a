"""A small lawful release, built by hand: the warehouse's tests, and processes they start, load it with runpy."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from sidlake.warehouse.contracts import CONTRACTS, conform
from sidlake.warehouse.releases import ReleaseDraft
from sidlake.warehouse.tables import Warehouse

WIDTHS = (3, 4, 5)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def item_ids(count: int) -> list[str]:
    return [f"item '{index:03d}\"" for index in range(count)]


def codes_of(count: int, widths: tuple[int, ...] = WIDTHS, skip: int = 0) -> list[list[int]]:
    return [list(code) for code in itertools.islice(itertools.product(*map(range, widths)), skip, skip + count)]


def items(names: list[str], title: str = "thing") -> pa.Table:
    rows = [
        {
            "item_id": name, "title": f"{title} {name}", "text": "t", "category": ["a", "b"], "price": 1.5, "image": None,
            "image_uri": None,
            "content_hash": "00", "first_seen": NOW, "updated_at": NOW,
        }
        for name in names
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, CONTRACTS["items"])


def semantic_ids(names: list[str], codes: list[list[int]], *, generation: str = "g1", widths: tuple[int, ...] = WIDTHS) -> pa.Table:
    rows = []
    for name, code in zip(names, codes, strict=True):
        key = 0
        for value, width in zip(code, widths, strict=True):
            key = key * width + value
        rows.append(
            {
                "item_id": name, "generation": generation, "codes": code,
                **{f"code_{level}": value for level, value in enumerate(code)},
                "sid": "".join(f"<{chr(97 + level)}_{value}>" for level, value in enumerate(code)), "sid_key": key,
                "modalities": ["text"],
                "raw_codes": code, "moved": False, "move_cost": 0.0, "residual_norm": 0.5, "assigned_at": NOW,
            }
        )  # fmt: skip
    return conform(pa.Table.from_pylist(rows), "semantic_ids", num_levels=len(widths))


def codebooks(generation: str = "g1", widths: tuple[int, ...] = WIDTHS) -> pa.Table:
    rows = [
        {"generation": generation, "level": level, "code": code, "centroid": [float(level), float(code)], "count": 1}
        for level, width in enumerate(widths)
        for code in range(width)
    ]
    return pa.Table.from_pylist(rows, CONTRACTS["codebooks"])


def interactions(names: list[str]) -> pa.Table:
    rows = [
        {
            "user_id": f"u{index % 3}", "item_id": name, "ts": NOW.replace(day=1 + index % 4), "event": "purchase", "weight": 1.0,
            "day": f"2026-01-{1 + index % 4:02d}",
        }
        for index, name in enumerate(names)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, CONTRACTS["interactions"])


def quality(verdict: str = "pass", value: float = 0.1) -> pa.Table:
    rows = [{"metric": "collision_rate", "level": None, "value": value, "threshold": 0.5, "verdict": verdict}]
    return pa.Table.from_pylist(rows, CONTRACTS["sid_quality"])


def sequences(names: list[str], codes: list[list[int]]) -> pa.Table:
    row = {"user_id": "u0", "split": "train", "item_ids": names[:3], "codes": list(itertools.chain(*codes[:3])), "target": None}
    return pa.Table.from_pylist([row], CONTRACTS["user_sequences"])


def trie(names: list[str], codes: list[list[int]]) -> pa.Table:
    pairs = sorted(zip(map(tuple, codes), names, strict=True))
    levels = [sorted({code[: depth + 1] for code, _ in pairs}) for depth in range(len(pairs[0][0]))]
    item_of = dict(pairs)
    rows = []
    for depth, prefixes in enumerate(levels):
        start = 0
        for node, prefix in enumerate(prefixes):
            children = [child for child in levels[depth + 1] if child[:-1] == prefix] if depth + 1 < len(levels) else []
            end = start + len(children)
            rows.append(
                {
                    "level": depth, "node": node, "code": prefix[-1], "child_start": start, "child_end": end,
                    "item_id": item_of.get(prefix) if not children else None,
                }
            )  # fmt: skip
            start = end
    return pa.Table.from_pylist(rows, CONTRACTS["sid_trie"])


def write(
    warehouse: Warehouse, count: int = 12, *, generation: str = "g1", skip: int = 0, run_id: str = "run", title: str = "thing"
) -> dict[str, int]:
    """Write every table of a lawful release of `count` items; the same count, generation and skip give the same content."""
    names, codes = item_ids(count), codes_of(count, skip=skip)
    content: dict[str, Any] = {
        "items": items(names, title),
        "interactions": interactions(names),
        "codebooks": codebooks(generation),
        "semantic_ids": semantic_ids(names, codes, generation=generation),
        "sid_quality": quality(),
        "user_sequences": sequences(names, codes),
        "sid_trie": trie(names, codes),
    }
    return {table: warehouse.overwrite(table, data, run_id=run_id) for table, data in content.items()}


def draft(tables: dict[str, int], *, generation: str = "g1", run_id: str = "run", reason: str = "test") -> ReleaseDraft:
    return ReleaseDraft(
        run_id=run_id, generation=generation, tables=tables, inputs={"shop": {"rows": 12}}, encoders={"text": "e@1"},
        codebook_hash="cafe", config={"levels": 3}, code_version="0.1.0", metrics={"collision_rate": 0.1}, steps={"fit": "ab"},
        reason=reason,
    )  # fmt: skip
