"""A release's training sequences for any training job: a `torch.utils.data.IterableDataset` that resumes to the exact row.

Rows are shared out between ranks and the workers of each (`row_ranges`). A shard reads its row groups in an order that
(seed, epoch) gives, fills a block of `block_rows` rows and gives them in an order that (seed, epoch, shard, block) gives: memory is
a block and a row group, whatever the size of the release. Which row comes when depends on nothing else, so that `state_dict` is a
few numbers.

Inside torchdata's `StatefulDataLoader` every worker keeps its own state, and a loader restored from `state_dict` gives the batch
after the last one given. As with torch's `DistributedSampler`, `set_epoch` changes the order: call it before each epoch.
Not done here: batching and padding (a `collate_fn`, which knows the model), and giving every rank as many rows as the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa
import torch
from torch import distributed
from torch.utils.data import IterableDataset, get_worker_info

from sidlake.errors import ArtifactError, ContractError
from sidlake.generative.streaming.row_ranges import ranges_of
from sidlake.generative.streaming.sequence_files import SequenceFiles, SequenceRow

__all__ = ["SequenceStream", "StreamState"]


class StreamState(TypedDict):
    """Where a shard stands: `given` rows of `epoch`. The rest must match on resuming."""

    release: str
    content_hash: str
    split: str
    seed: int
    block_rows: int
    shard: int
    num_shards: int
    epoch: int
    given: int


class SequenceStream(IterableDataset[SequenceRow]):
    """Yields every `SequenceRow` of `split` once an epoch, over all ranks and workers together.

    `rank` and `world_size` are those of torch.distributed where it runs, else 0 and 1. `block_rows` of 1 leaves rows in the order
    of the files. A row group that two shards share is read by both. Resuming reads what was given before and gives it to nobody.

    Raises `NotFoundError` for a release without sequences, `ContractError` where ranks read different releases or settings (a
    collective call, where torch.distributed runs), and `ValueError` for a rank outside the world.
    """

    def __init__(
        self,
        warehouse: str,
        *,
        release: str = "current",
        split: str = "train",
        seed: int = 0,
        block_rows: int = 16384,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__()
        running = distributed.is_available() and distributed.is_initialized()
        self._world = world_size if world_size is not None else distributed.get_world_size() if running else 1
        self._rank = rank if rank is not None else distributed.get_rank() if running else 0
        if not 0 <= self._rank < self._world or block_rows < 1:
            msg = f"rank must be in [0, {self._world}) and block_rows at least 1, got {self._rank} and {block_rows}"
            raise ValueError(msg)
        self._files = SequenceFiles(warehouse, release, split=split)
        self._seed, self._block_rows = seed, block_rows
        # shared, so that `set_epoch` reaches workers that live on
        self._epoch: torch.Tensor = torch.zeros(1, dtype=torch.long).share_memory_()  # type: ignore[no-untyped-call]
        self._given = self._resumed = 0
        if running:
            self._agree()

    @property
    def release(self) -> str:
        """Return the id of the release that is read."""
        return self._files.release

    def set_epoch(self, epoch: int) -> None:
        """Give the rows in the order of `epoch` from the next iteration on; in all workers."""
        self._epoch[0] = epoch

    def __iter__(self) -> Iterator[SequenceRow]:
        shard, num_shards = self._shard()
        epoch, skipped = int(self._epoch[0]), self._resumed
        self._given, self._resumed = skipped, 0  # an iteration that was broken off does not go on in the next one
        for block in self._blocks(epoch, shard, num_shards):
            kept = block.slice(skipped)
            skipped -= block.num_rows - kept.num_rows
            for row in _rows(kept):
                self._given += 1
                yield row
        self._given = 0

    def state_dict(self) -> StreamState:
        """Return where this shard stands, as JSON-ready values; within a worker, the worker's."""
        return self._state(given=self._given)

    def load_state_dict(self, state: StreamState) -> None:
        """Go on where `state` was taken.

        Raises `ArtifactError` where it is not whole, and `ContractError` where it is of another release, split, seed or sharding.
        """
        own = self._state(given=0)
        wrong = [name for name, value in own.items() if not isinstance(state.get(name), type(value))]
        if wrong:
            msg = f"the state of a sequence stream lacks {', '.join(wrong)}: it was cut short; go on from an earlier checkpoint"
            raise ArtifactError(msg, lacks=wrong)
        fixed = {name: (state[name], value) for name, value in own.items() if name not in ("epoch", "given")}  # type: ignore[literal-required]
        differing = [f"{name} {theirs!r} against {ours!r}" for name, (theirs, ours) in fixed.items() if theirs != ours]
        if differing:
            msg = f"the state is of another stream: {'; '.join(differing)}; resume with the release and settings it was taken with"
            raise ContractError(msg, differing=differing)
        self.set_epoch(state["epoch"])
        self._given = self._resumed = state["given"]

    def _state(self, *, given: int) -> StreamState:
        shard, num_shards = self._shard()
        return StreamState(
            release=self._files.release, content_hash=self._files.content_hash, split=self._files.split, seed=self._seed,
            block_rows=self._block_rows, shard=shard, num_shards=num_shards, epoch=int(self._epoch[0]), given=given,
        )  # fmt: skip

    def _shard(self) -> tuple[int, int]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        return self._rank * workers + number, self._world * workers

    def _blocks(self, epoch: int, shard: int, num_shards: int) -> Iterator[pa.Table]:
        """Yield the shard's rows in blocks, each shuffled within."""
        order = None if self._block_rows == 1 else np.random.default_rng([self._seed, epoch])
        ranges = ranges_of(self._files.group_rows, shard=shard, num_shards=num_shards, order=order)
        for number, block in enumerate(_regrouped(self._files.tables(ranges), self._block_rows)):
            places = np.random.default_rng([self._seed, epoch, shard, number]).permutation(block.num_rows)
            yield block.take(pa.array(places))

    def _agree(self) -> None:
        """Raise `ContractError` on every rank where one of them reads something else."""
        own = {name: value for name, value in self._state(given=0).items() if name != "shard"}
        of_ranks: list[dict[str, object] | None] = [None] * distributed.get_world_size()
        distributed.all_gather_object(of_ranks, own)
        other = next((rank for rank, state in enumerate(of_ranks) if state != of_ranks[0]), None)
        if other is not None:
            first, second = cast("dict[str, object]", of_ranks[0]), cast("dict[str, object]", of_ranks[other])
            told = "; ".join(f"{name} {first[name]!r} and {second[name]!r}" for name in first if first[name] != second[name])
            msg = f"ranks 0 and {other} read different sequences: {told}; name one release, or a pin, in all of them"
            raise ContractError(msg, ranks=[0, other])


def _regrouped(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of `rows` rows, the last one smaller."""
    held: list[pa.Table] = []
    num_held = 0
    for table in tables:
        held.append(table)
        num_held += table.num_rows
        if num_held < rows:
            continue
        joined = pa.concat_tables(held)
        whole = num_held // rows * rows
        yield from (joined.slice(start, rows) for start in range(0, whole, rows))
        held, num_held = [joined.slice(whole)], num_held - whole
    if num_held:
        yield pa.concat_tables(held)


def _rows(table: pa.Table) -> Iterator[SequenceRow]:
    for batch in table.to_batches(max_chunksize=256):
        yield from cast("list[SequenceRow]", batch.to_pylist())
