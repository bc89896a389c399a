"""Engines: what runs a step's transform over Parquet row groups. The same transform runs here and on Beam (`beam_engine`).

A transform is a pure function from one Arrow table to another, plus `setup` for what is costly to load. An engine reads each row
group of the input file, applies the transform and writes one Parquet file per row group, named by its number: running a row group
twice gives the same file, so a retried or killed worker leaves nothing behind that matters. The caller commits all files at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from sidlake.pipelines.progress import Progress
from sidlake.whole_files import replacing

__all__ = ["Engine", "LocalEngine", "Transform", "stage", "transform_row_group"]


class Transform(Protocol):
    """A pure function over Arrow tables that can be pickled; `setup` loads models once per worker.

    The result must be a function of each row alone: engines cut the input wherever they like.
    """

    def setup(self) -> None:
        """Load what the transform needs; called once per worker before the first row group."""
        ...

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return one row, or none, for each row of `rows`."""
        ...


class Engine(Protocol):
    """Runs a transform over every row group of a Parquet file."""

    @property
    def name(self) -> str:
        """What the run's log calls it."""
        ...

    def run(self, transform: Transform, source: Path, target: Path, *, label: str, progress: Progress) -> list[Path]:
        """Write the transformed row groups of `source` into the folder `target` and return the files, in row-group order."""
        ...


class LocalEngine:
    """Row groups one after the other in this process; the transform uses the cores or the GPU. Memory: one row group."""

    name = "local"

    def run(self, transform: Transform, source: Path, target: Path, *, label: str, progress: Progress) -> list[Path]:
        """Return the files written, one per row group; see `Engine.run`."""
        with pq.ParquetFile(source) as parquet:
            num_groups, num_rows = parquet.num_row_groups, parquet.metadata.num_rows
        if num_groups == 0:
            return []
        transform.setup()
        files, done = [], 0
        with progress.track(label) as update:
            for group in range(num_groups):
                file, rows = transform_row_group(transform, source, group, target)
                files.append(file)
                done += rows
                update(done, num_rows)
        return files


def transform_row_group(transform: Transform, source: Path, group: int, target: Path) -> tuple[Path, int]:
    """Write one transformed row group; return its file and the number of rows read."""
    with pq.ParquetFile(source) as parquet:
        rows = parquet.read_row_group(group)
    file = target / f"part-{group:06d}.parquet"
    with replacing(file) as beside:
        pq.write_table(transform(rows), beside, compression="zstd")
    return file, len(rows)


def stage(rows: pa.Table, path: Path, *, rows_per_group: int) -> Path:
    """Write `rows` as an engine's input with row groups of `rows_per_group` and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, row_group_size=rows_per_group, compression="zstd")
    return path
