"""The content hash of a release: its rows as a multiset, whatever the files, row order, compression, time or place.

``v2-`` and the hex SHA-256 of the UTF-8 text: a line ``sidlake release content 2``, then for each table that the release has and
that counts (`_LEFT_OUT`), in the order of their names, a line ``NAME ROWS SUM``: the number of its rows in decimal, and the sum of
their hashes in 128 hex digits. `hashing.row_sums` says what a row's hash is, so that anybody can compute it anew. Columns that say
when something was written are left out, and of SIDs and codebooks the rows of other generations. A file's rows add to the sum
wherever they lie, so a file that was summed before need not be read again.
Releases of before have the 64 hex digits of `hashing.sorted_rows`; what verifies a release does it in the release's own way.
Not done here: hashing inputs or configuration; those are columns of `releases`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from operator import add

import pyarrow as pa
import pyarrow.compute as pc

from sidlake.errors import StorageError
from sidlake.warehouse.hashing.row_sums import RowSum, sum_of_rows
from sidlake.warehouse.hashing.sorted_rows import sorted_hash
from sidlake.warehouse.hashing.verified_files import Verified
from sidlake.warehouse.places.parquet_files import batches_of
from sidlake.warehouse.tables import Warehouse

__all__ = ["content_hash"]

_VERSION, _SORTED = re.compile(r"v2-[0-9a-f]{64}"), re.compile(r"[0-9a-f]{64}")
_LEFT_OUT: dict[str, set[str]] = {
    "codebooks": set(),
    "interactions": set(),
    "items": {"updated_at"},
    "retired_sids": {"assigned_at", "retired_at"},
    "semantic_ids": {"assigned_at"},
    "sid_quality": set(),
    "sid_trie": set(),
    "user_sequences": set(),
}
"""The tables that count, each with the columns that do not."""
_OF_GENERATION = {"codebooks", "semantic_ids"}
_THREADS = 4


def content_hash(
    warehouse: Warehouse,
    tables: Mapping[str, int],
    generation: str,
    *,
    like: str | None = None,
    verified: Verified | None = None,
) -> str:
    """Return the hash of the rows of `tables` at these versions; of `semantic_ids` and `codebooks`, the generation's rows.

    Where a release's hash is given as `like`, it is computed in the way in which that one was. Files whose sum is known to
    `verified` are not read again, the others' sums are left there. Raises `StorageError` when a file cannot be read, or `like`
    was made in a way that is not known.
    """
    if like is not None and _SORTED.fullmatch(like):
        return sorted_hash(warehouse, tables, generation)
    if like is not None and not _VERSION.fullmatch(like):
        msg = f"the content hash {like[:80]!r} was made in a way that is not known here; use the version of sidlake that made it"
        raise StorageError(msg)
    verified, lines = verified or Verified(warehouse), ["sidlake release content 2"]
    with ThreadPoolExecutor(_THREADS) as pool:
        for table in sorted(_LEFT_OUT.keys() & tables.keys()):
            files = sorted(verified.sizes(table, tables[table]))
            read = partial(_known_sum, warehouse, verified, table, tables[table], generation)
            found = reduce(add, pool.map(read, files), RowSum())
            lines.append(f"{table} {found.num_rows} {found.total:0128x}")
    return "v2-" + hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _known_sum(warehouse: Warehouse, verified: Verified, table: str, version: int, generation: str, file: str) -> RowSum:
    of = generation if table in _OF_GENERATION else ""
    found = verified.sum_of(table, version, file, of)
    if found is None:
        found = _file_sum(warehouse, table, warehouse.schema(table, version=version), generation, file)
        verified.keep_sum(table, version, file, of, found)
    return found


def _file_sum(warehouse: Warehouse, table: str, schema: pa.Schema, generation: str, file: str) -> RowSum:
    columns = [name for name in schema.names if name not in _LEFT_OUT[table] and not _of_level(table, name)]
    batches = batches_of(warehouse.location, table, warehouse.table_url(table), schema, [file], columns=columns)
    return sum_of_rows(_rows_of(generation, batches) if table in _OF_GENERATION else batches)


def _of_level(table: str, column: str) -> bool:
    """Return whether it is one of the columns of codes: they say what `codes` says, and are as many as the longest generation's."""
    return table == "semantic_ids" and column.startswith("code_")


def _rows_of(generation: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch.filter(pc.equal(batch.column("generation"), generation))
