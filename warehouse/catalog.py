"""The DuckDB catalogue: views over exactly the current release's files, time travel, and both directions of the mapping.

`catalog.duckdb` holds view definitions with absolute paths, no rows of the tables, in a storage version that DuckDB 1.x opens; the
statements lie beside it as `catalog.sql`. Both derive from `releases` and are replaced atomically: losing them loses nothing, and
`connect` writes them anew when they are missing or older than the tables. Older releases are views of the schema ``history``, one
per release and per pin, so that ``semantic_ids_at('r000001')`` and ``semantic_ids_at('prod')`` open that release's files only.
Not done here: moving data. An analyst who moves the warehouse writes the catalogue again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
import pyarrow as pa

from sidlake.errors import NotFoundError, StorageError
from sidlake.memory import duckdb_share
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.keep.pins import Pin, pins
from sidlake.warehouse.keep.vacuumed import Vacuumed, vacuumed
from sidlake.warehouse.places.object_files import let_read
from sidlake.warehouse.releases import Release, readable
from sidlake.warehouse.sessions import told
from sidlake.warehouse.sql import empty, identifier, literal, over_files, sql_type, table_at, without_globs
from sidlake.warehouse.tables import Warehouse
from sidlake.whole_files import replacing

__all__ = ["connect", "is_current", "query", "refresh_catalog", "statements", "write_catalog"]

_WRITTEN_AFTER = ("model_metrics", "recommendations")  # by the trainer, for a release that already exists
_RELEASED = (
    "items", "interactions", "rejected_rows", "item_embeddings", "codebooks", "semantic_ids", "sid_quality", "user_sequences",
    "sid_trie", "retired_sids",
)  # fmt: skip
_ABOUT = {
    "items": "the catalogue of products",
    "interactions": "the events of the current release",
    "rejected_rows": "input rows that broke a rule",
    "item_embeddings": "vectors of the items, per modality and encoder",
    "codebooks": "the codes of the current generation and their vectors",
    "semantic_ids": "one SID per item: the current release's generation",
    "retired_sids": "SIDs of items that have left, held for them",
    "sid_quality": "the current release's quality metrics and their verdicts",
    "user_sequences": "histories to train on, as items and as codes",
    "sid_trie": "the prefix trie of the SIDs, as compressed sparse rows",
    "model_metrics": "how the trained models fare, per release",
    "recommendations": "recommended items per user, from the latest release that has any",
    "releases": "all releases; the last row is current",
    "sid_ledger": "every SID that a release ever named, and whose it is",
    "lifted_holds": "rollbacks after which runs were told to publish again",
    "file_digests": "SHA-256 of every file that releases name, for finding damage",
    "pins": "names in force and the releases they point at",
    "vacuumed": "releases whose files are gone; the views of history leave them out",
    "sid_features": "what each SID begins with, at every depth, coarse to fine: categorical features of ranking models",
    "items_with_sids": "items joined with their SIDs",
    "quality_history": "the quality metrics of every release",
    "sid_changes": "old and new SID of items that the current generation gave another than the last release of the former one",
    "code_changes": "by level, the former codes that the items of a code of the current generation come from, and their shares",
}


def write_catalog(warehouse: Warehouse) -> Path:
    """Write `catalog.sql` and `catalog.duckdb` for the current release and return the path of the latter.

    Readers that have the old file open keep it. Raises `NotFoundError` before the first release, `StorageError` when a file
    cannot be written.
    """
    script = statements(warehouse)
    database, text = warehouse.root / "catalog.duckdb", warehouse.root / "catalog.sql"
    with _replacing(database) as temporary:
        _write_database(warehouse, temporary, script)
    with _replacing(text) as temporary:
        temporary.write_text(";\n".join(script) + ";\n", encoding="utf-8")
    for path in (database, text):
        warehouse.keep(path)
    return database


def refresh_catalog(warehouse: Warehouse) -> str | None:
    """Do as `write_catalog`, and return why it could not be done: what was committed does not wait for what derives from it."""
    try:
        write_catalog(warehouse)
    except StorageError as error:
        return f"no new catalog.duckdb: {error}. Until then sidlake query shows what is current, the file what was"
    return None


def _write_database(warehouse: Warehouse, path: Path, script: list[str]) -> None:
    with duckdb.connect() as connection:
        let_read(connection, warehouse.location)
        connection.execute(f"ATTACH {literal(str(path))} AS catalog (STORAGE_VERSION 'v1.0.0')")
        connection.execute("USE catalog")
        connection.begin()  # one write to disk for all: a second less at a hundred releases
        for statement in script:
            connection.execute(statement)
        connection.commit()


def is_current(warehouse: Warehouse) -> bool:
    """Return whether `catalog.duckdb` is there and shows the warehouse as it is: a run that died may have left an older one."""
    connection = _opened(warehouse, warehouse.root / "catalog.duckdb")
    if connection is None:
        return False
    connection.close()
    return True


def connect(warehouse: Warehouse) -> duckdb.DuckDBPyConnection:
    """Return a connection that reads the current release's catalogue, and no file outside the warehouse's tables.

    The catalogue is attached to an in-memory database, since DuckDB shares an opened file within a process and would go on showing
    a replaced one. It is written first when missing, stale or damaged; elsewhere where this reader may not write
    into the warehouse. Raises `NotFoundError` before the first release.
    """
    found = _opened(warehouse, warehouse.root / "catalog.duckdb")
    if found is not None:
        return found
    with suppress(StorageError):  # a reader without the right to write, a full disk: neither keeps anyone from reading
        return _attach(warehouse, write_catalog(warehouse))
    with tempfile.TemporaryDirectory(prefix="sidlake-catalog-") as folder:
        path = Path(folder) / "catalog.duckdb"
        _write_database(warehouse, path, statements(warehouse))
        return _attach(warehouse, path)  # which keeps the file open after its name is gone


def query(warehouse: Warehouse, sql: str) -> pa.Table:
    """Return the rows of one ``SELECT`` over the catalogue.

    Raises ValueError with DuckDB's message when the SQL is wrong or is anything but one ``SELECT``, and `StorageError` when a file
    cannot be read.
    """
    with connect(warehouse) as connection:
        try:
            parsed = connection.extract_statements(sql)
            if len(parsed) != 1 or parsed[0].type != duckdb.StatementType.SELECT:
                msg = f"expected one SELECT statement, got {len(parsed)} statements: {sql!r}"
                raise ValueError(msg)
            return connection.sql(sql).to_arrow_table()
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise told(error, warehouse) from error
        except duckdb.Error as error:
            raise ValueError(str(error)) from error


def statements(warehouse: Warehouse) -> list[str]:
    """Return the SQL that defines the catalogue of the current release, runnable in any DuckDB database."""
    warehouse = warehouse.remembering()  # the versions of all releases, several times each
    releases, gone = readable(warehouse), vacuumed(warehouse)
    if not releases:
        msg = f"nothing has been published in {warehouse.url}; run the pipeline first"
        raise NotFoundError(msg, path=warehouse.url)
    views = {
        "releases": _head(warehouse, "releases"),
        "sid_ledger": _head(warehouse, "sid_ledger"),
        "lifted_holds": _head(warehouse, "lifted_holds"),
        "file_digests": _head(warehouse, "file_digests"),
        "pins": f"SELECT * FROM ({_head(warehouse, 'pins')}) {_IN_FORCE}",
        "vacuumed": _head(warehouse, "vacuumed"),
        **{table: _released(warehouse, table, releases[-1]) for table in _RELEASED},
        "items_with_sids": "SELECT i.*, s.* EXCLUDE (item_id) FROM items i JOIN semantic_ids s USING (item_id)",
        "sid_features": _SID_FEATURES,
        **_trained_views(warehouse),
        "quality_history": _QUALITY_HISTORY.format(quality=_over_releases(warehouse, "sid_quality", releases)),
        "sid_changes": _sid_changes(warehouse, releases),
        "code_changes": _code_changes(warehouse, releases),
    }
    return [
        *_history_statements(warehouse, releases),
        *(_gone_statement(one) for one in gone.values()),
        *(_pinned_statement(one) for one in pins(warehouse)),
        *(f"CREATE OR REPLACE VIEW {identifier(name)} AS {body}" for name, body in views.items()),
        *_MACROS,
        *(statement for name in views for statement in _comments(warehouse, name, releases[-1])),
        f"CREATE OR REPLACE VIEW history.stamp AS SELECT {literal(_stamp(warehouse))} AS stamp",
    ]


# A macro's argument is pasted into its body, so no column there may have a name that an argument may use: sid_of(item_id).
_MAPPING = '(SELECT item_id AS "mapped item", sid AS "mapped sid" FROM semantic_ids)'
_MACROS = [
    "CREATE OR REPLACE MACRO semantic_ids_at(release) AS TABLE "
    "SELECT * FROM query_table('history.\"semantic_ids@' || release || '\"')",
    f'CREATE OR REPLACE MACRO sid_of(item) AS (SELECT "mapped sid" FROM {_MAPPING} WHERE "mapped item" = item)',
    f'CREATE OR REPLACE MACRO item_of(semantic_id) AS (SELECT "mapped item" FROM {_MAPPING} WHERE "mapped sid" = semantic_id)',
]

_SID_FEATURES = (
    "SELECT item_id, generation, [array_to_string(codes[1:level], '_') FOR level IN range(1, len(codes) + 1)] AS prefixes "
    "FROM semantic_ids"
)

_QUALITY_HISTORY = (
    "SELECT r.release_id, r.created_at, q.metric, q.level, q.value, q.verdict FROM ({quality}) q "
    "JOIN history.release_files f ON f.table_name = 'sid_quality' AND f.path = q.path JOIN releases r USING (release_id)"
)

_IN_FORCE = "QUALIFY number = max(number) OVER (PARTITION BY name) AND release_id IS NOT NULL"


def _history_statements(warehouse: Warehouse, releases: list[Release]) -> list[str]:
    """Return what the schema ``history`` holds: which release names which file, and its `semantic_ids`."""
    rows = [
        (release.release_id, table, path)
        for release in releases
        for table in ("semantic_ids", "sid_quality")
        for path in warehouse.files(table, version=release.tables[table])
    ]
    values = ", ".join(f"({', '.join(literal(value) for value in row)})" for row in rows)
    return [
        "CREATE SCHEMA IF NOT EXISTS history",
        "CREATE OR REPLACE TABLE history.release_files (release_id VARCHAR, table_name VARCHAR, path VARCHAR)",
        f"INSERT INTO history.release_files VALUES {values}",
        *(
            f"CREATE OR REPLACE VIEW history.{identifier('semantic_ids@' + release.release_id)} AS "
            f"{_released(warehouse, 'semantic_ids', release)}"
            for release in releases
        ),
    ]


def _gone_statement(gone: Vacuumed) -> str:
    """Return the view of a vacuumed release's `semantic_ids`, which says so when it is read."""
    message = f"release {gone.release_id} was vacuumed on {gone.vacuumed_at:%Y-%m-%d}: its files are gone"
    columns = ", ".join(f"error({literal(message)})::VARCHAR AS {name}" for name in ("item_id", "sid"))
    return f"CREATE OR REPLACE VIEW history.{identifier('semantic_ids@' + gone.release_id)} AS SELECT {columns}"


def _pinned_statement(pin: Pin) -> str:
    """Return the view of a pin's `semantic_ids`: ``semantic_ids_at('prod')``."""
    return (
        f"CREATE OR REPLACE VIEW history.{identifier('semantic_ids@' + pin.name)} AS "
        f"SELECT * FROM history.{identifier(f'semantic_ids@{pin.release_id}')}"
    )


def _released(warehouse: Warehouse, table: str, release: Release) -> str:
    if table not in release.tables:
        return empty(CONTRACTS[table])
    where = f" WHERE generation = {literal(release.generation)}" if table in ("semantic_ids", "codebooks") else ""
    return _with_all_columns(warehouse, table, release.tables[table]) + where


def _sid_changes(warehouse: Warehouse, releases: list[Release]) -> str:
    """Return a `SELECT` of the items that changed SIDs since the newest release of another generation; without one, of no row.

    That release is the one to come from: after a rollback over a generation it is the one that was rolled back.
    """
    old, new = _former(releases), releases[-1]
    return (
        f"SELECT item_id, {literal(old.release_id)} AS old_release, {literal(old.generation)} AS old_generation, o.sid AS old_sid, "
        f"{literal(new.release_id)} AS new_release, {literal(new.generation)} AS new_generation, n.sid AS new_sid "
        f"FROM ({_released(warehouse, 'semantic_ids', old)}) o JOIN semantic_ids n USING (item_id) WHERE o.sid <> n.sid"
    )


def _code_changes(warehouse: Warehouse, releases: list[Release]) -> str:
    """Return a `SELECT` of how items of both generations went from code to code, level by level; without another, of no row.

    The shares of a (level, new_code) add up to 1: weights of the old codes' embeddings in the new code's.
    """
    old, new = _former(releases), releases[-1]
    pairs = (
        f"SELECT unnest(range(0, least(len(o.codes), len(n.codes)))) AS level, o.codes, n.codes AS new_codes "
        f"FROM ({_released(warehouse, 'semantic_ids', old)}) o JOIN semantic_ids n USING (item_id) WHERE {old != new}"
    )
    counted = (
        "SELECT level, codes[level + 1] AS old_code, new_codes[level + 1] AS new_code, count(*) AS num_items "
        f"FROM ({pairs}) GROUP BY ALL"
    )
    return f"SELECT *, num_items / sum(num_items) OVER (PARTITION BY level, new_code) AS share FROM ({counted})"


def _former(releases: list[Release]) -> Release:
    """Return the newest release of another generation than the current one's; the current one where there is none."""
    return next((release for release in reversed(releases) if release.generation != releases[-1].generation), releases[-1])


def _head(warehouse: Warehouse, table: str) -> str:
    version = warehouse.version(table)
    return empty(CONTRACTS[table]) if version is None else _with_all_columns(warehouse, table, version)


def _with_all_columns(warehouse: Warehouse, table: str, version: int) -> str:
    """Return `table_at` with the columns that the contract has gained since `version` was written, as nulls."""
    missing = [field for field in CONTRACTS.get(table, ()) if field.name not in warehouse.schema(table, version=version).names]
    if not missing:
        return table_at(warehouse, table, version)
    nulls = {field.name: f"CAST(NULL AS {sql_type(field.type)}) AS {identifier(field.name)}" for field in missing}
    columns = ", ".join(nulls.get(name, identifier(name)) for name in CONTRACTS[table].names)
    return f"SELECT {columns} FROM ({table_at(warehouse, table, version)})"


def _trained_views(warehouse: Warehouse) -> dict[str, str]:
    """Return the views of what a trainer wrote for a known release; recommendations of the latest such release only."""
    known = f"({_head(warehouse, 'model_metrics')}) WHERE release_id IN (SELECT release_id FROM releases)"
    recommended = f"({_head(warehouse, 'recommendations')})"
    latest = (
        f"SELECT r.release_id FROM releases r SEMI JOIN {recommended} w ON w.release_id = r.release_id "
        "ORDER BY r.created_at DESC, r.release_id DESC LIMIT 1"
    )
    return {
        "model_metrics": f"SELECT * FROM {known}",
        "recommendations": f"SELECT * FROM {recommended} WHERE release_id = ({latest})",
    }


def _over_releases(warehouse: Warehouse, table: str, releases: list[Release]) -> str:
    """Return a `SELECT` over every file of `table` that any release names, each file once, with its path."""
    versions = sorted({release.tables[table] for release in releases})
    files = sorted({path for version in versions for path in warehouse.files(table, version=version)})
    schema = warehouse.schema(table, version=versions[-1])
    return over_files(
        table, files, pa.schema([schema.field(name) for name in ("metric", "level", "value", "verdict")]), with_path=True
    )


def _comments(warehouse: Warehouse, view: str, release: Release) -> Iterator[str]:
    yield f"COMMENT ON VIEW {identifier(view)} IS {literal(_ABOUT[view])}"
    stored = view == "semantic_ids"
    schema = warehouse.schema(view, version=release.tables[view]) if stored else CONTRACTS.get(view, pa.schema([]))
    for field in schema:
        comment = (field.metadata or {}).get(b"comment", b"").decode()
        yield f"COMMENT ON COLUMN {identifier(view)}.{identifier(field.name)} IS {literal(comment)}"


def _stamp(warehouse: Warehouse) -> str:
    heads = [f"{table}@{warehouse.version(table)}" for table in ("releases", "pins", "vacuumed", "lifted_holds", *_WRITTEN_AFTER)]
    return " ".join([*heads, warehouse.url])


def _opened(warehouse: Warehouse, path: Path) -> duckdb.DuckDBPyConnection | None:
    """Return a connection to the catalogue at `path`; None where it is missing, damaged, or does not show the warehouse as it is.

    Losing the file loses nothing, so that a damaged one is written anew instead of being reported.
    """
    if not path.exists():
        return None
    try:
        connection = _attach(warehouse, path)
    except StorageError:
        return None
    with suppress(duckdb.Error):
        if _stamp_in(connection) == _stamp(warehouse):
            return connection
    connection.close()
    return None


def _stamp_in(connection: duckdb.DuckDBPyConnection) -> str:
    return str(connection.execute("SELECT stamp FROM history.stamp").fetchall()[0][0])


def _attach(warehouse: Warehouse, path: Path) -> duckdb.DuckDBPyConnection:
    spilled = str(Path(tempfile.gettempdir()) / f"sidlake-duckdb-{os.getpid()}")
    connection = duckdb.connect(config={"memory_limit": f"{duckdb_share(warehouse.memory)}B", "temp_directory": spilled})
    try:
        let_read(connection, warehouse.location)
        connection.execute(f"ATTACH {literal(str(path))} AS catalog (READ_ONLY)")
        connection.execute("USE catalog")
        folder = f"{warehouse.url}/delta/"
        allowed = ", ".join(literal(path) for path in (folder, without_globs(folder)))  # checked before and after globbing
        connection.execute(f"SET allowed_directories = [{allowed}]")
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
    except duckdb.Error as error:
        connection.close()
        msg = f"cannot open {path}: {error}; delete it, the next query writes it again"
        raise StorageError(msg, path=str(path)) from error
    return connection


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a path as `replacing` does, for a database too, with an error that says what to do."""
    try:
        with replacing(path) as temporary:
            try:
                yield temporary
            finally:
                temporary.with_name(temporary.name + ".wal").unlink(missing_ok=True)
    except (OSError, duckdb.IOException) as error:
        msg = f"cannot write {path}: {error}; free space, or make the directory writable"
        raise StorageError(msg, path=str(path)) from error
