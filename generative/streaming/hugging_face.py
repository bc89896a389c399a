"""A release's sequences as a Hugging Face `datasets.IterableDataset`, read from the warehouse's own files: nothing is copied.

Its shards are row groups, so that `datasets.distributed.split_dataset_by_node` and the workers of a DataLoader share them out; it
shuffles within a buffer (`shuffle(seed, buffer_size)`) and resumes (`state_dict`) as any such dataset does. `datasets` comes with
``pip install 'sidlake[training]'``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from sidlake.generative.streaming.row_ranges import RowRange
from sidlake.generative.streaming.sequence_files import SequenceFiles, SequenceRow

if TYPE_CHECKING:
    from datasets import IterableDataset

__all__ = ["hugging_face_sequences"]


def hugging_face_sequences(warehouse: str, *, release: str = "current", split: str = "train") -> IterableDataset:
    """Return the rows of `split` (user_id, item_ids, codes, target), in the order of the files.

    Raises `NotFoundError` for a release without sequences, as `SequenceStream` does.
    """
    from datasets import Features, IterableDataset, List, Value

    files = SequenceFiles(warehouse, release, split=split)
    features = Features(
        {"user_id": Value("string"), "item_ids": List(Value("string")), "codes": List(Value("int32")), "target": Value("string")}
    )
    groups = list(range(len(files.group_rows)))
    return IterableDataset.from_generator(_rows, features=features, gen_kwargs={"groups": groups, "files": files})


def _rows(groups: list[int], files: SequenceFiles) -> Iterator[SequenceRow]:
    for table in files.tables(RowRange(group, 0, files.group_rows[group]) for group in groups):
        for batch in table.to_batches(max_chunksize=256):
            yield from cast("list[SequenceRow]", batch.to_pylist())
