"""The Beam engine: the same transforms as `engine.LocalEngine`, with row groups spread over a runner's workers.

An element is a reference (file, row group), not data: what is shuffled is a few bytes, and a worker reads what it transforms.
Workers write Parquet; the caller commits. Locally the runner is the FnApiRunner by name: DirectRunner is Prism on a machine
that can download it and something else on one that cannot. Never the DaskRunner: with Beam 2.77 it loses elements without an
error (measured; see docs/decisions/0006-engines.md). Files must be reachable by all workers under the same path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from sidlake.errors import StorageError
from sidlake.pipelines.engines import Transform, transform_row_group
from sidlake.pipelines.progress import Progress

__all__ = ["BeamEngine"]

_REFUSED = ("DaskRunner",)


@dataclass(frozen=True, kw_only=True, slots=True)
class BeamEngine:
    """Runs transforms as a Beam pipeline.

    Attributes:
        runner: a Beam runner's name; FlinkRunner, SparkRunner and DataflowRunner take their settings from `options`.
        num_workers: workers of the local runner; others have their own flags.
        running_mode: of the local runner: in_memory, multi_threading or multi_processing.
        options: further Beam flags, such as ``--flink_master=...``.
    """

    runner: str = "FnApiRunner"
    num_workers: int = 1
    running_mode: str = "in_memory"
    options: tuple[str, ...] = ()
    name: str = "beam"

    def __post_init__(self) -> None:
        if self.runner in _REFUSED:
            msg = f"runner {self.runner} loses elements silently (Beam 2.77); use FnApiRunner, FlinkRunner or SparkRunner"
            raise ValueError(msg)
        if self.num_workers < 1:
            msg = f"num_workers must be >= 1, got {self.num_workers}"
            raise ValueError(msg)

    def run(self, transform: Transform, source: Path, target: Path, *, label: str, progress: Progress) -> list[Path]:
        """Return the files written, one per row group, in row-group order.

        Raises:
            StorageError: the runner reported success but a row group's file is missing.
        """
        with pq.ParquetFile(source) as parquet:
            groups = list(range(parquet.num_row_groups))
        if not groups:
            return []
        progress.say(f"  {label}: {len(groups)} row groups on {self.runner}, {self.num_workers} workers ({self.running_mode})")
        with beam.Pipeline(options=self._options()) as pipeline:
            (
                pipeline
                | "row groups" >> beam.Create(groups)
                | "spread" >> beam.Reshuffle()
                | label >> beam.ParDo(_TransformRowGroup(transform, str(source), str(target)))
            )
        files = [target / f"part-{group:06d}.parquet" for group in groups]
        missing = [file.name for file in files if not file.exists()]
        if missing:
            msg = f"runner {self.runner} finished without {len(missing)} of {len(files)} files in {target}, the first {missing[0]}"
            raise StorageError(msg, missing=missing)
        return files

    def _options(self) -> PipelineOptions:
        options = PipelineOptions(["--runner", self.runner, *self.options])
        if self.runner == "FnApiRunner":
            direct = options.view_as(DirectOptions)
            direct.direct_num_workers, direct.direct_running_mode = self.num_workers, self.running_mode
        return options


class _TransformRowGroup(beam.DoFn):
    """Reads a row group, applies the transform, writes its file; running it twice writes the same file."""

    def __init__(self, transform: Transform, source: str, target: str) -> None:
        self._transform, self._source, self._target = transform, source, target

    def setup(self) -> None:
        self._transform.setup()

    def process(self, element: int) -> Iterator[int]:
        _, rows = transform_row_group(self._transform, Path(self._source), element, Path(self._target))
        yield rows
