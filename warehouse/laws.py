"""The laws of a release, re-read from storage: what must hold of the files themselves before anyone may read them.

Everything is SQL over the files that the named versions hold: it sees what a reader will see, not what a step believed it wrote. A
law is a query that returns one row per violation; all are run, and `LawBroken` names each broken one with its count and examples.
A law that held of exactly these files is not asked again where `hashing.verified_files` is there to say so.
Memory does not grow with the number of items beyond DuckDB's own limit (`sessions`). Nothing is written to the warehouse.
Not done here: the quality gates, which `sid_quality` records and `releases.publish` reads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import duckdb

from sidlake.errors import LawBroken, StorageError
from sidlake.warehouse.hashing.verified_files import Verified
from sidlake.warehouse.sessions import session
from sidlake.warehouse.sql import literal, over_files, table_at
from sidlake.warehouse.tables import Warehouse

__all__ = ["REQUIRED", "verify"]

REQUIRED = ("items", "semantic_ids", "codebooks")
_NUM_EXAMPLES = 5
_READ_ONCE = 50_000
"""Rows of a table up to which its files are read once for all laws; of more, each law reads them, so that memory stays bounded."""


class _Earlier(Protocol):
    """What `verify` needs of the previous release."""

    @property
    def release_id(self) -> str: ...
    @property
    def generation(self) -> str: ...
    @property
    def tables(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True)
class _Law:
    """A rule and the query of its violations: one row per violation, one column that shows it."""

    rule: str
    violations: str

    def reads(self, names: Iterable[str]) -> list[str]:
        """Return which of the relations `names` the query reads: those that it names, in order."""
        return sorted(set(names) & set(re.findall(r"\w+", self.violations)))


def verify(
    warehouse: Warehouse,
    tables: Mapping[str, int],
    *,
    generation: str,
    previous: _Earlier | None = None,
    ledger: int | None = None,
    verified: Verified | None = None,
) -> dict[str, int | float]:
    """Return what was checked (rows of each table, number of laws), or raise for what does not hold.

    `tables` gives the version of each table; items, semantic_ids and codebooks are required, others checked where named. SIDs are
    judged against every one that the generation ever published, by the version `ledger` of the ledger, or its newest. What
    `verified` knows to have held is believed, and what is found to hold is left there.
    Raises `StorageError` naming a file that is missing, of another size than the log says, or unreadable, and `LawBroken` with
    rule, count and examples.
    """
    missing = [name for name in REQUIRED if name not in tables]
    if missing:
        msg = f"a release needs versions of {', '.join(REQUIRED)}; missing {', '.join(missing)}: run the steps that write them"
        raise LawBroken(msg, rule="complete", missing=missing)
    ledger = warehouse.version("sid_ledger") if ledger is None else ledger
    read = dict(tables) if ledger is None else {**tables, "sid_ledger": ledger}
    versions = {name: (name, version) for name, version in read.items()}
    known = verified or Verified(warehouse)
    of_generation = previous is not None and previous.generation == generation
    if previous is not None and of_generation:
        versions["published"] = ("semantic_ids", previous.tables["semantic_ids"])
    for table, version in versions.values():
        _check_files(warehouse, known, table, version)
    states = {name: known.state(*version) for name, version in versions.items()}
    with session(warehouse) as connection:
        _define(connection, warehouse, "codebooks", versions["codebooks"], generation)
        widths = _level_widths(connection, generation)
        laws = [*_item_laws(), *_sid_laws(widths)]
        laws += _interaction_laws(warehouse, known, tables["interactions"]) if "interactions" in tables else []
        laws += _vector_laws() if "item_embeddings" in tables else []
        laws += _sequence_laws(len(widths)) if "user_sequences" in tables else []
        laws += _trie_laws(len(widths)) if "sid_trie" in tables else []
        laws += _retirement_laws() if "retired_sids" in tables else []
        laws += _ledger_laws() if "sid_ledger" in read else []
        if previous is not None and of_generation:
            laws += _published_laws(previous.release_id, retired="retired_sids" in tables)
        names = {law: f"{generation} {law.violations}" for law in laws}
        open_ = [law for law in laws if not known.held(names[law], [states[name] for name in law.reads(states)])]
        needed = {name for law in open_ for name in law.reads(states)}
        counts: dict[str, int | float] = {
            name: _count(connection, warehouse, known, *version) for name, version in versions.items() if name != "published"
        }
        for name in sorted(needed - {"codebooks"}):
            _define(connection, warehouse, name, versions[name], generation)
        _judge(connection, open_, generation)
    for law in open_:
        known.keep_law(names[law], [states[name] for name in law.reads(states)])
    return {**counts, "laws": len(laws)}


def _check_files(warehouse: Warehouse, known: Verified, table: str, version: int) -> None:
    """Compare each file's size with the log's: a truncated file is named before anything reads it."""
    sizes = known.sizes(table, version)
    for row in warehouse.manifest(table, version=version).to_pylist():
        size = sizes[row["path"]]
        if size != row["size_bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            msg = (
                f"{row['path']} of table {table} version {version} {found}, the log says {row['size_bytes']}; restore or rewrite it"
            )
            raise StorageError(msg, path=row["path"], table=table, version=version)


def _count(connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, known: Verified, table: str, version: int) -> int:
    """Return the number of rows that the log states, which the files must have."""
    stated, state = warehouse.num_rows(table, version), known.state(table, version)
    rule = f"{table} has {stated} rows"
    if not known.held(rule, [state]):
        rows = _scalar(connection, f"SELECT count(*) FROM ({table_at(warehouse, table, version)})")
        if rows != stated:
            msg = f"table {table} version {version} has {rows} rows in its files, the log says {stated}; write the table again"
            raise StorageError(msg, table=table, version=version)
        known.keep_law(rule, [state])
    return stated


def _define(
    connection: duckdb.DuckDBPyConnection, warehouse: Warehouse, name: str, version: tuple[str, int], generation: str
) -> None:
    """Define the relation `name` over a table's version: of tables that hold several generations, the rows of this one."""
    table, at = version
    of_generation = table in ("semantic_ids", "codebooks", "retired_sids", "sid_ledger")
    where = f" WHERE generation = {literal(generation)}" if of_generation else ""
    kind = "TABLE" if warehouse.num_rows(table, at) <= _READ_ONCE else "VIEW"
    connection.execute(f'CREATE TEMPORARY {kind} "{name}" AS SELECT * FROM ({table_at(warehouse, table, at)}){where}')


def _scalar(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


def _level_widths(connection: duckdb.DuckDBPyConnection, generation: str) -> list[int]:
    """Return the number of codes of each level of the generation, which must be numbered without gaps."""
    query = "SELECT level, count(*), count(DISTINCT code), min(code), max(code) FROM codebooks GROUP BY level ORDER BY level"
    rows = connection.execute(query).fetchall()
    bad = [row for index, row in enumerate(rows) if row[0] != index or row[1] != row[2] or row[3] != 0 or row[4] != row[1] - 1]
    if bad or not rows:
        msg = (
            f"law broken: codebooks of generation {generation} must number levels and codes from 0 without gaps; found "
            f"(level, rows, codes, lowest, highest) {bad[:_NUM_EXAMPLES] or 'no rows'}; fit the generation again"
        )
        raise LawBroken(msg, rule="codebooks are numbered from 0 without gaps", count=len(bad), examples=bad[:_NUM_EXAMPLES])
    return [int(row[1]) for row in rows]


def _item_laws() -> list[_Law]:
    return [
        _Law(
            "every item_id is there once and not empty",
            "SELECT coalesce(item_id, 'null') FROM items GROUP BY item_id HAVING count(*) > 1 OR item_id IS NULL OR item_id = ''",
        ),
        _Law("every item has one SID", "SELECT item_id FROM semantic_ids GROUP BY item_id HAVING count(*) > 1"),
        _Law("every item has a SID", "SELECT item_id FROM items ANTI JOIN semantic_ids USING (item_id)"),
        _Law("every SID belongs to an item of the catalogue", "SELECT item_id FROM semantic_ids ANTI JOIN items USING (item_id)"),
        _Law(
            "every SID belongs to one item",
            "SELECT codes::VARCHAR || ' of ' || min(item_id) || ' and ' || max(item_id) FROM semantic_ids "
            "GROUP BY codes HAVING count(*) > 1",
        ),
    ]


def _sid_laws(widths: list[int]) -> list[_Law]:
    levels = range(len(widths))
    shown = "SELECT item_id || ': ' || coalesce(codes::VARCHAR, 'null') FROM semantic_ids WHERE "
    in_book = " AND ".join(f"{{codes}}[{level + 1}] BETWEEN 0 AND {widths[level] - 1}" for level in levels)
    agree = " OR ".join(f"code_{level} IS DISTINCT FROM codes[{level + 1}]" for level in levels)
    # The spelling of the tokens is that of the contract: <a_12><b_7><c_33>.
    spelled = " || ".join(f"'<{chr(ord('a') + level)}_' || codes[{level + 1}] || '>'" for level in levels)
    radix = " + ".join(f"codes[{level + 1}]::HUGEINT * {math.prod(widths[level + 1 :])}::HUGEINT" for level in levels)
    key = radix if math.prod(widths) < 2**63 else "NULL"
    return [
        _Law("every SID has a code per level", shown + f"len(codes) IS DISTINCT FROM {len(widths)}"),
        _Law("every code is in its codebook", shown + f"({in_book.format(codes='codes')}) IS NOT TRUE"),
        _Law(
            "every raw code is in its codebook",
            shown + f"len(raw_codes) IS DISTINCT FROM {len(widths)} OR ({in_book.format(codes='raw_codes')}) IS NOT TRUE",
        ),
        _Law("the code columns agree with codes", shown + agree),
        _Law("sid spells the codes", shown + f"sid IS DISTINCT FROM {spelled}"),
        _Law("sid_key is the codes in mixed radix", shown + f"sid_key IS DISTINCT FROM ({key})"),
    ]


def _interaction_laws(warehouse: Warehouse, known: Verified, version: int) -> list[_Law]:
    # Rows that were told apart before still are: only what a new file brings may be there already. The hash, which need not be the
    # same tomorrow, picks candidates, in 8 bytes a row; the rows themselves decide.
    same, new = "hash(user_id, item_id, ts)", known.unknown("interactions", version)
    candidates = f"SELECT {same} FROM interactions GROUP BY ALL HAVING count(*) > 1"
    if len(new) < len(known.sizes("interactions", version)):
        candidates = f"SELECT {same} FROM ({over_files('interactions', new, warehouse.schema('interactions', version=version))})"
    return [
        _Law(
            "interactions name known items",
            "SELECT item_id || ' of user ' || user_id FROM interactions ANTI JOIN items USING (item_id)",
        ),
        _Law(
            "interactions tell of one event per user, item and instant",
            f"SELECT item_id || ' of user ' || user_id FROM interactions WHERE {same} IN ({candidates}) "
            "GROUP BY user_id, item_id, ts HAVING count(*) > 1",
        ),
    ]


def _vector_laws() -> list[_Law]:
    return [
        _Law(
            "an item's content has one vector of each encoder",
            "SELECT item_id || ': ' || modality || ' of ' || encoder_id FROM item_embeddings "
            "GROUP BY item_id, modality, encoder_id, content_hash HAVING count(*) > 1",
        )
    ]


def _sequence_laws(num_levels: int) -> list[_Law]:
    shown = "SELECT user_id || ' in ' || split FROM user_sequences WHERE "
    # the codes of each level beside the items, so that no list is put together again for each sequence (5 times as long)
    levels = range(num_levels)
    told = ", ".join(f"unnest(codes[{level + 1}:-:{num_levels}]) AS told_{level}" for level in levels)
    given = ", ".join(f"codes[{level + 1}] AS given_{level}" for level in levels)
    differ = " OR ".join(f"told_{level} IS DISTINCT FROM given_{level}" for level in levels)
    return [
        _Law("sequences have num_levels codes per item", shown + f"len(codes) IS DISTINCT FROM len(item_ids) * {num_levels}"),
        _Law("sequence targets are known items", shown + "target IS NOT NULL AND target NOT IN (SELECT item_id FROM items)"),
        _Law(
            "sequences carry their items' codes",
            f"SELECT DISTINCT user_id || ' in ' || split FROM (SELECT user_id, split, unnest(item_ids) AS item_id, {told} "
            f"FROM user_sequences) LEFT JOIN (SELECT item_id, {given} FROM semantic_ids) USING (item_id) WHERE {differ}",
        ),
    ]


def _trie_laws(num_levels: int) -> list[_Law]:
    """Return the laws of the trie: numbered nodes, children that tile the next level, and leaves that spell exactly the SIDs."""
    last = num_levels - 1
    paths = ["path_0 AS (SELECT node, child_start, child_end, item_id, [code] AS codes FROM sid_trie WHERE level = 0)"]
    paths += [
        f"path_{level} AS (SELECT c.node, c.child_start, c.child_end, c.item_id, list_append(p.codes, c.code) AS codes "
        f"FROM (SELECT * FROM sid_trie WHERE level = {level}) c ASOF JOIN "
        f"(SELECT * FROM path_{level - 1} WHERE child_end > child_start) p ON c.node >= p.child_start WHERE c.node < p.child_end)"
        for level in range(1, num_levels)
    ]
    leaves = f"WITH {', '.join(paths)}, leaf AS (SELECT item_id, codes FROM path_{last})"
    return [
        _Law(
            "trie nodes are numbered from 0 within their level",
            "SELECT 'level ' || level FROM sid_trie GROUP BY level "
            "HAVING min(node) <> 0 OR max(node) <> count(*) - 1 OR count(DISTINCT node) <> count(*) "
            f"OR level NOT BETWEEN 0 AND {last}",
        ),
        _Law(
            "trie leaves, and only they, name an item and have no children",
            "SELECT 'level ' || level || ' node ' || node FROM sid_trie "
            f"WHERE (level = {last}) <> (item_id IS NOT NULL) OR (level = {last}) <> (child_start = child_end)",
        ),
        _Law(
            "every trie leaf spells its item's SID",
            f"{leaves} SELECT coalesce(l.item_id, s.item_id) FROM leaf l FULL JOIN semantic_ids s ON l.item_id = s.item_id "
            "WHERE l.codes IS DISTINCT FROM s.codes",
        ),
        _Law("every item has one trie leaf", f"{leaves} SELECT item_id FROM leaf GROUP BY item_id HAVING count(*) > 1"),
    ]


def _retirement_laws() -> list[_Law]:
    return [
        _Law(
            "no SID is another item's quarantined SID",
            "SELECT s.item_id || ' has ' || s.sid || ' of ' || r.item_id FROM semantic_ids s JOIN retired_sids r "
            "ON s.codes = r.codes",
        ),
        _Law("no retired item is in the catalogue", "SELECT item_id FROM items SEMI JOIN retired_sids USING (item_id)"),
    ]


def _ledger_laws() -> list[_Law]:
    return [
        _Law(
            "no SID is another item's by the ledger",
            "SELECT s.item_id || ' has ' || s.sid || ' of ' || l.item_id FROM semantic_ids s JOIN sid_ledger l "
            "ON s.codes = l.codes WHERE s.item_id <> l.item_id",
        ),
        _Law(
            "no item has another SID than by the ledger",
            "SELECT s.item_id || ' has ' || s.sid || ' and had ' || l.sid FROM semantic_ids s JOIN sid_ledger l USING (item_id) "
            "WHERE s.codes IS DISTINCT FROM l.codes",
        ),
        _Law(
            "the ledger names every item and every SID once",
            "SELECT min(item_id) || ' ' || min(sid) FROM sid_ledger GROUP BY item_id HAVING count(*) > 1 "
            "UNION ALL SELECT min(item_id) || ' ' || min(sid) FROM sid_ledger GROUP BY codes HAVING count(*) > 1",
        ),
    ]


def _published_laws(release_id: str, *, retired: bool) -> list[_Law]:
    held = " ANTI JOIN retired_sids USING (item_id, codes)" if retired else ""
    return [
        _Law(
            f"no SID published in {release_id} moved within its generation",
            "SELECT p.item_id || ': ' || p.sid || ' became ' || s.sid FROM published p JOIN semantic_ids s USING (item_id) "
            "WHERE p.codes IS DISTINCT FROM s.codes",
        ),
        _Law(
            f"every SID published in {release_id} is still its item's or held for it",
            f"SELECT item_id FROM (SELECT item_id, codes FROM published) ANTI JOIN semantic_ids USING (item_id){held}",
        ),
    ]


def _judge(connection: duckdb.DuckDBPyConnection, laws: list[_Law], generation: str) -> None:
    broken = []
    for law in laws:
        query = f"SELECT count(*), min(example, {_NUM_EXAMPLES}) FROM ({law.violations}) AS violations(example)"
        ((count, examples),) = connection.execute(query).fetchall()
        if count:
            broken.append({"rule": law.rule, "count": count, "examples": examples})
    if broken:
        shown = "; ".join(f"{one['rule']}: {one['count']} times not, such as {one['examples']}" for one in broken)
        msg = f"law broken in generation {generation}: {shown}. Nothing was published; run the steps that wrote these tables again"
        raise LawBroken(msg, **broken[0], broken=broken, generation=generation)
