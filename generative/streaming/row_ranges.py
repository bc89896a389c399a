"""Who reads which rows of a table's files: row groups in a shuffled order, cut evenly between shards.

The row groups of an epoch, in the order that (seed, epoch) gives, are laid end to end; shard s of n reads the rows from ``s/n`` to
``(s+1)/n``. So every row has one reader, shards differ by one row at most, also where a release is one row group, and a shard
opens two groups at most that it shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["RowRange", "ranges_of"]


class RowRange(NamedTuple):
    """Rows ``start:stop`` of row group number `group`."""

    group: int
    start: int
    stop: int


def ranges_of(group_rows: Sequence[int], *, shard: int, num_shards: int, order: np.random.Generator | None) -> list[RowRange]:
    """Return what shard `shard` of `num_shards` reads of groups of so many rows; `order` shuffles the groups, None does not.

    >>> ranges_of([4, 2], shard=1, num_shards=2, order=None)
    [RowRange(group=0, start=3, stop=4), RowRange(group=1, start=0, stop=2)]
    """
    groups = list(range(len(group_rows))) if order is None else order.permutation(len(group_rows)).tolist()
    total = sum(group_rows)
    first, last = total * shard // num_shards, total * (shard + 1) // num_shards
    ranges, begin = [], 0
    for group in groups:
        rows = group_rows[group]
        start, stop = max(first - begin, 0), min(last - begin, rows)
        if start < stop:
            ranges.append(RowRange(group, start, stop))
        begin += rows
    return ranges
