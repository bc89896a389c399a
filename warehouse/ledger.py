"""The ledger: every SID that a release ever named and whose it is, for as long as its generation is in use.

A release tells what its items' SIDs are; the ledger tells what no other item may have, though the release was rolled back, the item
has left, or the files were vacuumed. So a model trained on any release of a generation reads every other one. Rows are only added.
They are committed just before the release that names them, on the version against which the laws were judged: where another run
came between, that run's SIDs may be these, and the commit is refused. Whatever dies and whenever, no release names a SID that is
not here, and no SID or item is here twice in a generation. A run that died before its release leaves rows that nobody has read;
they keep their SIDs for the same items. Why so, and not otherwise: docs/decisions/0017-ledger.md.
A warehouse of an earlier version gets its ledger from the releases that can be read (`founded`).
Not done here: judging a release against the ledger (see `laws`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import polars as pl
import pyarrow as pa

from sidlake.errors import ReleaseConflict
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.sessions import session
from sidlake.warehouse.sql import identifier, literal, over_files, table_at
from sidlake.warehouse.tables import Warehouse

__all__ = ["TABLE", "founded", "generations", "record", "refuse_overtaken", "rows_of", "taken"]

TABLE = "sid_ledger"
_TAKEN = pa.schema([CONTRACTS[TABLE].field(name) for name in ("item_id", "codes")])
_KEPT = [name for name in CONTRACTS[TABLE].names if name not in ("release_id", "run_id")]


class _Released(Protocol):
    """What the founding of the ledger needs of a release."""

    @property
    def release_id(self) -> str: ...
    @property
    def generation(self) -> str: ...
    @property
    def tables(self) -> Mapping[str, int]: ...


def taken(warehouse: Warehouse, generation: str) -> pa.Table:
    """Return item_id and codes of every SID of `generation`, in item_id order: what no other item may have; 40 bytes per item."""
    return _rows(warehouse, generation).select("item_id", "codes").collect().to_arrow().cast(_TAKEN)


def rows_of(warehouse: Warehouse, generation: str, item_ids: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the ledger's rows of these items in `generation`, in item_id order; about 150 bytes each."""
    wanted = pl.Series(item_ids.to_pylist(), dtype=pl.String)
    return _cast(_rows(warehouse, generation).filter(pl.col("item_id").is_in(wanted.implode())).collect().to_arrow())


def _rows(warehouse: Warehouse, generation: str) -> pl.LazyFrame:
    if not warehouse.exists(TABLE):
        return pl.from_arrow(CONTRACTS[TABLE].empty_table()).lazy()  # type: ignore[union-attr]
    return warehouse.scan(TABLE).filter(pl.col("generation") == generation).sort("item_id")


def generations(warehouse: Warehouse) -> set[str]:
    """Return the generations that have SIDs in the ledger, those whose first release never came among them."""
    if not warehouse.exists(TABLE):
        return set()
    return set(warehouse.scan(TABLE).select("generation").unique().collect()["generation"])


def founded(warehouse: Warehouse, releases: Sequence[_Released], *, run_id: str) -> int | None:
    """Return the ledger's head, made of `releases` (those that can be read, oldest first) where there is none; None without any.

    Releases of earlier versions may contradict each other: of two items that had one SID, and of two SIDs that one item had, the
    later release is right, because its readers are.
    """
    head = warehouse.version(TABLE)
    if head is not None or not releases:
        return head
    try:
        return warehouse.append_at(TABLE, _of_releases(warehouse, releases, run_id), head=None, run_id=run_id)
    except ReleaseConflict:  # another machine founded it, of the same releases
        return warehouse.version(TABLE)


def refuse_overtaken(
    warehouse: Warehouse, tables: Mapping[str, int], generation: str, *, head: int | None, release_id: str
) -> None:
    """Raise `ReleaseConflict` where another run has given SIDs for `release_id` too, and `tables` were made without knowing them.

    That run is about to publish, or died before it could. `head` is the ledger's version to look at.
    """
    if head is None:
        return
    given = f"({table_at(warehouse, TABLE, head)}) WHERE release_id = {literal(release_id)} AND generation = {literal(generation)}"
    mine = f"({table_at(warehouse, 'semantic_ids', tables['semantic_ids'])}) WHERE generation = {literal(generation)}"
    rows = (
        f"WITH given AS (FROM {given}), mine AS (SELECT item_id, codes, sid FROM {mine}) "
        "SELECT run_id, m.item_id, m.sid FROM given g JOIN mine m ON g.codes = m.codes WHERE g.item_id <> m.item_id UNION ALL "
        "SELECT run_id, m.item_id, m.sid FROM given g JOIN mine m ON g.item_id = m.item_id WHERE g.codes <> m.codes"
    )
    with session(warehouse) as connection:
        found = connection.sql(rows).fetchall()
    if found:
        run_id, item_id, sid = found[0]
        msg = f"run {run_id} has given SIDs while this run was at work, such as {sid}, here {item_id}'s; run again to build on it"
        raise ReleaseConflict(msg, run_id=run_id, count=len(found))


def record(
    warehouse: Warehouse, tables: Mapping[str, int], generation: str, *, head: int | None, release_id: str, run_id: str
) -> int | None:
    """Add the SIDs of `tables` that the ledger lacks, and return its head: to be called just before the release is committed.

    `head` is the version that `laws.verify` judged these tables against. Raises `ReleaseConflict` where it is another one by now.
    About 150 bytes per new SID.
    """
    known = f"ANTI JOIN ({table_at(warehouse, TABLE, head)}) USING (generation, item_id)" if head is not None else ""
    rows = (
        f"SELECT {_columns(_KEPT)}, {literal(release_id)} AS release_id, {literal(run_id)} AS run_id "
        f"FROM ({table_at(warehouse, 'semantic_ids', tables['semantic_ids'])}) {known} "
        f"WHERE generation = {literal(generation)} ORDER BY item_id"
    )
    with session(warehouse) as connection:
        new = connection.sql(rows).to_arrow_table()
    return warehouse.append_at(TABLE, _cast(new), head=head, run_id=run_id) if len(new) else head


def _of_releases(warehouse: Warehouse, releases: Sequence[_Released], run_id: str) -> pa.Table:
    """Return the SIDs that `releases` and their `retired_sids` name, each with the release that named it first."""
    first = {number: release.release_id for number, release in enumerate(releases)}
    rows = " UNION ALL ".join(part for table in ("semantic_ids", "retired_sids") if (part := _named(warehouse, releases, table)))
    with session(warehouse) as connection:
        found = connection.sql(
            f"WITH row_of AS ({rows}), said AS (SELECT * EXCLUDE (number), min(number) OVER same AS first, number AS last "
            "FROM row_of "
            "WINDOW same AS (PARTITION BY generation, item_id, codes)), "
            "by_item AS (FROM said QUALIFY row_number() OVER (PARTITION BY generation, item_id ORDER BY last DESC) = 1), "
            "by_sid AS (FROM by_item QUALIFY row_number() OVER (PARTITION BY generation, codes ORDER BY last DESC) = 1) "
            f"SELECT {_columns(_KEPT)}, first FROM by_sid ORDER BY generation, item_id"
        ).to_arrow_table()
    names = pa.array([first[number] for number in found.column("first").to_pylist()], pa.string())
    about = {"release_id": names, "run_id": pa.array([run_id] * len(found), pa.string())}
    return _cast(pa.table({name: found.column(name) for name in _KEPT} | about))


def _named(warehouse: Warehouse, releases: Sequence[_Released], table: str) -> str:
    """Return a `SELECT` of the rows of `table` with the number of each release that names them; empty where none has the table."""
    having = [(number, release) for number, release in enumerate(releases) if table in release.tables]
    if not having:
        return ""
    files = {
        (path, release.generation, number)
        for number, release in having
        for path in warehouse.files(table, version=release.tables[table])
    }
    values = ", ".join(f"({literal(path)}, {literal(generation)}, {number})" for path, generation, number in sorted(files))
    schema = warehouse.schema(table, version=having[-1][1].tables[table])
    schema = pa.schema([schema.field(name) for name in _KEPT])
    paths = sorted({path for path, _, _ in files})
    return (
        f"SELECT {_columns(_KEPT)}, n.number FROM ({over_files(table, paths, schema, with_path=True)}) r "
        f"JOIN (VALUES {values}) n(path, of, number) USING (path) WHERE r.generation = n.of "
    )


def _columns(names: Sequence[str]) -> str:
    return ", ".join(identifier(name) for name in names)


def _cast(rows: pa.Table) -> pa.Table:
    return rows.select(CONTRACTS[TABLE].names).cast(CONTRACTS[TABLE])
