"""What differs between two releases: items, SIDs, metrics, inputs, settings; counted by SQL over the files, not from memory.

Within a generation a file that both versions name says the same in both, so only rows of the other files are compared: a diff of
two days costs what changed in a day. Across generations every SID is compared, and how many leading codes agree is told per depth,
because a model that was trained on the old codes reads prefixes. DuckDB joins by hash and spills to disk.
Not done here: judging the differences (see the quality gates), and listing them all: `NUM_EXAMPLES` ids of each kind are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from sidlake.warehouse.content import content_hash
from sidlake.warehouse.releases import Release, get, level_widths
from sidlake.warehouse.sessions import session
from sidlake.warehouse.sql import literal, over_files
from sidlake.warehouse.tables import Warehouse

__all__ = ["NUM_EXAMPLES", "ItemChanges", "MetricChange", "ReleaseDiff", "SidChanges", "diff"]

NUM_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemChanges:
    """Items of two versions of `items`: numbers, and the first ids of each kind."""

    before: int
    after: int
    added: int
    retired: int
    changed: int
    examples: Mapping[str, list[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SidChanges:
    """SIDs of the items that are in both releases, and of those that are in one.

    Attributes:
        same_generation: within a generation none may move; across generations all may.
        kept_prefixes: of the items in both, how many agree in the first 1, 2, ... codes; the last number is `kept`.
    """

    same_generation: bool
    kept: int
    moved: int
    added: int
    retired: int
    kept_prefixes: list[int]
    examples: list[dict[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricChange:
    """One metric of `sid_quality` whose value or verdict differs; None where a release does not have it."""

    metric: str
    level: int | None
    before: float | None
    after: float | None
    verdict_before: str | None
    verdict_after: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReleaseDiff:
    """`rows` gives the rows of each table before and after, where its version differs; `settings` what the lineages differ in."""

    before: str
    after: str
    generation_before: str
    generation_after: str
    same_content: bool
    items: ItemChanges
    sids: SidChanges
    metrics: list[MetricChange]
    rows: dict[str, tuple[int | None, int | None]]
    settings: dict[str, tuple[object, object]]


def diff(warehouse: Warehouse, before: str, after: str = "current") -> ReleaseDiff:
    """Return what changed from one release to another, each an id or a pin; `NotFoundError` for what cannot be read.

    Raises `StorageError` when a file is missing or damaged.
    """
    old, new = get(warehouse, before), get(warehouse, after)
    with session(warehouse) as connection:
        return ReleaseDiff(
            before=old.release_id,
            after=new.release_id,
            generation_before=old.generation,
            generation_after=new.generation,
            same_content=_same_content(warehouse, old, new),
            items=_items(connection, warehouse, old, new),
            sids=_sids(connection, warehouse, old, new),
            metrics=_metrics(connection, warehouse, old, new),
            rows=_rows(warehouse, old, new),
            settings=_settings(old, new),
        )


def _same_content(warehouse: Warehouse, old: Release, new: Release) -> bool:
    """Return whether both hold the same rows; of hashes made in two ways, the new release's is made in the old one's way."""
    if (old.tables, old.generation) == (new.tables, new.generation) or old.content_hash == new.content_hash:
        return True
    if len(old.content_hash) == len(new.content_hash):
        return False
    return content_hash(warehouse, new.tables, new.generation, like=old.content_hash) == old.content_hash


def _items(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, old: Release, new: Release) -> ItemChanges:
    kinds = {
        "added": "o.item_id IS NULL",
        "retired": "n.item_id IS NULL",
        "changed": "o.content_hash <> n.content_hash",
    }
    counted = ", ".join(
        f"count(*) FILTER ({rule}), min(coalesce(n.item_id, o.item_id), {NUM_EXAMPLES}) FILTER ({rule})" for rule in kinds.values()
    )
    query = f"SELECT {counted} FROM o FULL JOIN n ON o.item_id = n.item_id"
    found, _ = _compared(connection, warehouse, "items", ["item_id", "content_hash"], (old, new), query)
    return ItemChanges(
        before=warehouse.num_rows("items", old.tables["items"]),
        after=warehouse.num_rows("items", new.tables["items"]),
        **{kind: found[2 * place] for place, kind in enumerate(kinds)},
        examples={kind: found[2 * place + 1] for place, kind in enumerate(kinds) if found[2 * place]},
    )


def _sids(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, old: Release, new: Release) -> SidChanges:
    same = old.generation == new.generation
    lengths = [len(level_widths(warehouse, release)) for release in (old, new)]
    codes = [f"code_{level}" for level in range(max(lengths))]
    equal = [f"o.{code} IS NOT DISTINCT FROM n.{code}" for code in codes]  # the columns: slices of lists take four times as long
    both, kept = "o.item_id IS NOT NULL AND n.item_id IS NOT NULL", " AND ".join(equal)
    prefixes = [f"count(*) FILTER ({both} AND {' AND '.join(equal[: depth + 1])})" for depth in range(min(lengths))]
    query = (
        f"SELECT count(*) FILTER ({both} AND {kept}), count(*) FILTER ({both} AND NOT ({kept})), "
        "count(*) FILTER (o.item_id IS NULL), count(*) FILTER (n.item_id IS NULL), "
        f"[{', '.join(prefixes)}], min(n.item_id, {NUM_EXAMPLES}) FILTER ({both} AND NOT ({kept})) "
        "FROM o FULL JOIN n ON o.item_id = n.item_id"
    )
    columns = ["item_id", "generation", "sid", *codes]
    found, common = _compared(connection, warehouse, "semantic_ids", columns, (old, new), query, every_file=not same)
    return SidChanges(
        same_generation=same,
        kept=found[0] + common,
        moved=found[1],
        added=found[2],
        retired=found[3],
        kept_prefixes=[count + common for count in found[4]],
        examples=_moved(connection, found[5] or []),
    )


def _moved(connection: duckdb.DuckDBPyConnection, item_ids: list[str]) -> list[dict[str, str]]:
    query = "SELECT o.item_id, o.sid, n.sid FROM o JOIN n ON o.item_id = n.item_id WHERE list_contains(?, o.item_id) ORDER BY 1"
    rows = connection.execute(query, [item_ids]).fetchall() if item_ids else []
    return [dict(zip(("item_id", "before", "after"), row, strict=True)) for row in rows]


def _compared(
    connection: duckdb.DuckDBPyConnection,
    warehouse: Warehouse,
    table: str,
    columns: list[str],
    releases: tuple[Release, Release],
    query: str,
    *,
    every_file: bool = False,
) -> tuple[tuple[Any, ...], int]:
    """Return the one row of `query` over the views o and n, `table` in both releases, and the rows in files that both name.

    Rows of the files that both releases name are in neither view, unless `every_file` says so.
    """
    files = [set(warehouse.files(table, version=release.tables[table])) for release in releases]
    common = set[str]() if every_file else files[0] & files[1]
    sides = [(files[0] - common, releases[0]), (files[1] - common, releases[1]), (common, releases[1])]
    for view, (named, release) in zip(("o", "n", "common"), sides, strict=True):
        schema = warehouse.schema(table, version=release.tables[table])
        absent = [f"NULL::INTEGER AS {name}" for name in columns if name not in schema.names]
        listed = ", ".join([*(name for name in columns if name in schema.names), *absent])
        where = f" WHERE generation = {literal(release.generation)}" if "generation" in columns else ""
        relation = over_files(table, sorted(named), schema)
        connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {listed} FROM ({relation}){where}")
    ((shared,),) = connection.execute("SELECT count(*) FROM common").fetchall()
    (row,) = connection.execute(query).fetchall()
    return tuple(row), int(shared)


def _metrics(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, old: Release, new: Release) -> list[MetricChange]:
    columns = ["metric", "level", "value", "verdict"]
    for side, release in (("old_quality", old), ("new_quality", new)):
        rows = warehouse.read("sid_quality", version=release.tables["sid_quality"], columns=columns)
        connection.register(side, rows)
    found = connection.execute(
        "SELECT coalesce(o.metric, n.metric) AS metric, coalesce(o.level, n.level) AS level, "
        "o.value, n.value, o.verdict, n.verdict FROM old_quality o "
        "FULL JOIN new_quality n ON o.metric = n.metric AND o.level IS NOT DISTINCT FROM n.level "
        "WHERE o.value IS DISTINCT FROM n.value OR o.verdict IS DISTINCT FROM n.verdict ORDER BY metric, level NULLS FIRST"
    ).fetchall()
    names = ("metric", "level", "before", "after", "verdict_before", "verdict_after")
    return [MetricChange(**dict(zip(names, row, strict=True))) for row in found]


def _rows(warehouse: Warehouse, old: Release, new: Release) -> dict[str, tuple[int | None, int | None]]:
    differ = [name for name in sorted(old.tables.keys() | new.tables.keys()) if old.tables.get(name) != new.tables.get(name)]
    return {name: (_num_rows(warehouse, name, old), _num_rows(warehouse, name, new)) for name in differ}


def _num_rows(warehouse: Warehouse, table: str, release: Release) -> int | None:
    return warehouse.num_rows(table, release.tables[table]) if table in release.tables else None


def _settings(old: Release, new: Release) -> dict[str, tuple[object, object]]:
    """Return what the releases were made of, as dotted keys, where it differs."""
    sides = [
        _flat({"inputs": one.inputs, "encoders": one.encoders, "recipe": one.config, "code_version": one.code_version})
        for one in (old, new)
    ]
    keys = sorted(sides[0].keys() | sides[1].keys())
    return {key: (sides[0].get(key), sides[1].get(key)) for key in keys if sides[0].get(key) != sides[1].get(key)}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, entry in value.items():
        flat |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, Mapping) else {f"{prefix}{key}": entry}
    return flat
