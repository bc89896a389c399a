"""Sources that are no files of rows: a Delta table by folder or address, a query on a DuckDB, SQLite or Postgres database.

Each run takes a snapshot as one Parquet file in its staging folder, and everything after that is as for any file: unchanged rows
are an unchanged digest. Databases are opened to be read only; a Delta table is read at the version that the recipe names, or its
newest. SQLite states no types, so its values come as text (bytes as bytes). Batches go to disk as they come. Not done here: other
databases behind a server, and reading what is new since a former run alone: two Delta versions, a query from a cursor on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sidlake.errors import RecipeError, SourceError
from sidlake.pipelines.ingest.sources import SourceFiles, find_files, store_of
from sidlake.pipelines.ingest.stores.objects import copied
from sidlake.pipelines.ingest.stores.postgres import postgres_batches
from sidlake.pipelines.recipe import Recipe
from sidlake.pipelines.settings.sources import SourceConfig, Store
from sidlake.warehouse.places.location import locate

__all__ = ["listed_sources", "snapshot", "tables_of"]

_ROWS = 50_000


def listed_sources(recipe: Recipe, folder: Path, copies: Path | None = None) -> dict[str, SourceFiles]:
    """Return the files of each source; of tables and queries, a snapshot in `folder`, of objects copies in `copies`.

    Raises:
        SourceError: a source is missing or cannot be read. RecipeError: a database without a query, or a query without a database.
    """
    listed = {}
    for name, source in recipe.sources.items():
        where = recipe.source_place(name)
        store = store_of(where, source)
        if store is None:
            _refuse(name, source, query=source.query is None, version=source.version is None)
            in_store = where.startswith("s3://")
            listed[name] = (
                copied(source, copies or folder, name) if in_store else find_files(recipe.source_path(name), source.format, name)
            )
            continue
        target = folder / f"{name}.parquet"
        folder.mkdir(parents=True, exist_ok=True)
        snapshot(where, source, store, target, name=name)
        listed[name] = SourceFiles({"": target})
    return listed


def snapshot(where: str, source: SourceConfig, store: Store, target: Path, *, name: str) -> None:
    """Write the rows of a table or query to `target`, Parquet.

    Raises:
        SourceError: the database or table is not there, cannot be read, or holds what Parquet does not.
        RecipeError: a database without a query, or a Delta table with one.
    """
    _refuse(name, source, query=(source.query is None) == (store == "delta"), version=store == "delta" or source.version is None)
    if "://" not in where and store != "postgres" and not Path(where).exists():
        msg = f"source {name}: no such {store} {where}; the recipe's paths start at the recipe's folder"
        raise SourceError(msg, path=where)
    try:
        batches = _READ[store](where, source)
        first = next(batches)
        with pq.ParquetWriter(target, first.schema) as writer:
            for batch in chain([first], batches):
                writer.write_batch(batch)
    except (DeltaError, duckdb.Error, sqlite3.Error, pa.ArrowException, OSError, ValueError) as error:
        msg = f"source {name}: {store} {where} cannot be read: {' '.join(str(error).split())[:300]}"
        raise SourceError(msg, path=where, store=store) from error


def tables_of(path: Path, store: Store) -> list[str | None]:
    """Return the tables and views of a database's file, by name; of a Delta table None, for itself.

    Raises:
        SourceError: the database cannot be read.
    """
    if store not in ("duckdb", "sqlite"):
        return [None]
    try:
        if store == "sqlite":
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                found = connection.execute(
                    "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite#_%' ESCAPE '#'"
                )
                return sorted(name for (name,) in found)
        with duckdb.connect(str(path), read_only=True) as connection:
            names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY 1"
            return [name for (name,) in connection.execute(names).fetchall()]
    except (duckdb.Error, sqlite3.Error) as error:
        msg = f"source {path.name}: {store} {path} cannot be read: {' '.join(str(error).split())[:300]}"
        raise SourceError(msg, path=str(path), store=store) from error


def _refuse(name: str, source: SourceConfig, *, query: bool, version: bool) -> None:
    if not query:
        what = f"query {source.query!r} is for databases" if source.query else "a database needs a query: query = 'select ...'"
        raise RecipeError(f"source {name}: {what} (format = 'duckdb', 'sqlite' or 'postgres')")
    if not version:
        raise RecipeError(f"source {name}: version {source.version} is for Delta tables (format = 'delta')")


def _delta(where: str, source: SourceConfig) -> Iterator[pa.RecordBatch]:
    place = locate(where)
    table = DeltaTable(where, version=source.version, storage_options=place.options)
    data = table.to_pyarrow_dataset()
    yield pa.RecordBatch.from_pylist([], data.schema)
    yield from data.to_batches()


def _duckdb(where: str, source: SourceConfig) -> Iterator[pa.RecordBatch]:
    with duckdb.connect(where, read_only=True) as connection:
        reader = connection.sql(source.query or "").to_arrow_reader(_ROWS)
        yield pa.RecordBatch.from_pylist([], reader.schema)
        yield from reader


def _postgres(where: str, source: SourceConfig) -> Iterator[pa.RecordBatch]:
    yield from postgres_batches(where, source.query or "")


def _sqlite(where: str, source: SourceConfig) -> Iterator[pa.RecordBatch]:
    with closing(sqlite3.connect(f"{Path(where).absolute().as_uri()}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(source.query or "")
        if cursor.description is None:
            msg = "the query returns no rows: a SELECT is needed"
            raise ValueError(msg)
        names = [str(column[0]) for column in cursor.description]
        rows = iter(lambda: list(islice(cursor, _ROWS)), [])
        first = next(rows, [])
        held = [[row[at] for row in first if row[at] is not None] for at in range(len(names))]
        binary = [bool(values) and all(isinstance(value, bytes) for value in values) for values in held]
        schema = pa.schema([(name, pa.binary() if is_bytes else pa.string()) for name, is_bytes in zip(names, binary, strict=True)])
        for chunk in chain([first], rows):
            columns = [_values([row[at] for row in chunk], is_bytes=is_bytes) for at, is_bytes in enumerate(binary)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _values(values: Sequence[Any], *, is_bytes: bool) -> pa.Array:
    if is_bytes:
        return pa.array(
            [value if value is None or isinstance(value, bytes) else str(value).encode() for value in values], pa.binary()
        )
    texts = [None if value is None else value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return pa.array(texts, pa.string())


_READ = {"delta": _delta, "duckdb": _duckdb, "sqlite": _sqlite, "postgres": _postgres}
