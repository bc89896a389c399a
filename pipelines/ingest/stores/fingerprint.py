"""What tells cheaply that a source may have changed: sizes and times of files and objects, the version of a Delta table.

A database behind a server tells nothing that costs less than its rows, so it counts as unchanged here: scheduled runs read it.
"""

from __future__ import annotations

from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from sidlake.errors import SourceError
from sidlake.pipelines.ingest.sources import source_files, store_of
from sidlake.pipelines.ingest.stores.objects import listed_objects
from sidlake.pipelines.recipe import Recipe, digest_of
from sidlake.warehouse.places.location import locate

__all__ = ["fingerprint"]


def fingerprint(recipe: Recipe) -> str:
    """Return a digest of the states of all sources, in hex; no row is read. `SourceError` where a source is not there."""
    return digest_of({name: _state(recipe, name) for name in recipe.sources})


def _state(recipe: Recipe, name: str) -> object:
    source, where = recipe.sources[name], recipe.source_place(name)
    store = store_of(where, source)
    if store == "postgres":
        return None
    if store == "delta":
        return source.version if source.version is not None else _version(where, name)
    if where.startswith("s3://"):
        return {key: [info.size, info.mtime_ns] for key, info in listed_objects(source, name).items()}
    files = source_files(recipe.source_path(name), None if store else source.format, name)
    states = {key: path.stat() for key, path in files.items()}
    # a database that is being written to has its newest pages in a second file
    beside = {f"{key}-log": path.with_name(path.name + end).stat() for key, path in files.items() for end in _logs(path, store)}
    return {key: [at.st_size, at.st_mtime_ns] for key, at in (states | beside).items()}


def _logs(path: Path, store: str | None) -> list[str]:
    return [
        end for end in {"sqlite": ["-wal"], "duckdb": [".wal"]}.get(store or "", []) if path.with_name(path.name + end).exists()
    ]


def _version(where: str, name: str) -> int:
    try:
        return int(DeltaTable(where, storage_options=locate(where).options, without_files=True).version())
    except (DeltaError, OSError) as error:
        msg = f"source {name}: no Delta table can be read at {where}: {' '.join(str(error).split())[:300]}"
        raise SourceError(msg, path=where) from error
