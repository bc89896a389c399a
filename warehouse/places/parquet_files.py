"""The Parquet files of one version of a table, for Arrow and for Polars, with the contract's columns.

Files are read by path, not through deltalake's own file system: its Python callbacks on Arrow's threads now and then abort the
interpreter at exit ("terminate called without an active exception", deltalake 1.6.6 with pyarrow 25), and `polars.scan_delta` and
`DeltaTable.file_uris` percent-encode a blank in the path. Opening reads nothing; a missing or broken file shows when it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads

from sidlake.warehouse.contracts import PARTITIONED_BY
from sidlake.warehouse.places.location import LocalFolder, ObjectStore
from sidlake.warehouse.places.storage import storage_errors

__all__ = ["batches_of", "dataset_of", "frame_of"]


def dataset_of(place: LocalFolder | ObjectStore, table: str, url: str, schema: pa.Schema, files: Sequence[str]) -> pads.Dataset:
    """Return the rows of `files`, which lie below `url`, as `schema` has them; nulls in columns that a file lacks."""
    by = PARTITIONED_BY.get(table, [])
    return pads.dataset(
        [place.arrow_path(file) for file in files],
        schema=schema,
        format="parquet",
        filesystem=place.filesystem,
        partitioning=pads.partitioning(pa.schema([schema.field(name) for name in by]), flavor="hive") if by else None,
        partition_base_dir=place.arrow_path(url),
    )


def batches_of(
    place: LocalFolder | ObjectStore,
    table: str,
    url: str,
    schema: pa.Schema,
    files: Sequence[str],
    *,
    columns: Sequence[str],
    size: int = 65536,
) -> Iterator[pa.RecordBatch]:
    """Yield `columns` of the rows of `files`, as `schema` has them, at most `size` in a batch; `StorageError` if reading fails."""
    wanted = pa.schema([schema.field(name) for name in columns])
    with storage_errors(url):
        scanner = dataset_of(place, table, url, schema, files).scanner(
            columns=wanted.names, batch_size=size, batch_readahead=2, fragment_readahead=1
        )
        for batch in scanner.to_batches():
            if batch.num_rows:
                yield batch.cast(wanted)


def frame_of(place: LocalFolder | ObjectStore, table: str, schema: pa.Schema, files: Sequence[str]) -> pl.LazyFrame:
    """Return a lazy frame over `files` with the columns of `schema`; nulls in those that a file lacks."""
    frame = pl.DataFrame(schema.empty_table())
    if not files:
        return frame.lazy()
    partition_by = PARTITIONED_BY.get(table, [])
    return pl.scan_parquet(
        list(files),
        glob=False,
        schema={name: kind for name, kind in frame.schema.items() if name not in partition_by},
        hive_partitioning=bool(partition_by),
        hive_schema={name: frame.schema[name] for name in partition_by} or None,
        missing_columns="insert",
        storage_options=place.scan_options,
    ).select(schema.names)
