"""The prefix trie of all published SIDs, as arrays: which codes may follow a prefix, and which item a SID is.

Compressed sparse rows, one set of arrays per level: a node's children are a contiguous range of the next level, in order of code.
A beam search asks `allowed_mask` or `allowed_next` for what may come next and moves on with `step`; both take whole batches. A
level is always that of the codes asked for, and nodes are those of the level above (at level 0 the root, node 0). The same arrays
are the table ``sid_trie``. Not done here: variable-length SIDs, and several items under one SID.

Shape suffixes: N items, L levels, B beams, K codes of a level, C children of all beams together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sidlake.errors import ArtifactError
from sidlake.tokenizers.numeric.nearest import BoolArray, Int32Array, Int64Array

__all__ = ["Trie", "build_trie"]

_SCHEMA = pa.schema(
    [
        pa.field("level", pa.int32(), nullable=False),
        pa.field("node", pa.int64(), nullable=False),
        pa.field("code", pa.int32(), nullable=False),
        pa.field("child_start", pa.int64(), nullable=False),
        pa.field("child_end", pa.int64(), nullable=False),
        pa.field("item_id", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trie:
    """Nodes of each level, ordered by prefix.

    Attributes:
        codes: Per level int32, the code on the edge into each node.
        child_start: Per level int64, each node's first child in the next level; at leaves 0.
        child_end: Per level int64, one past its last child; equal to `child_start` at leaves.
        item_ids: The item of each leaf.
    """

    codes: tuple[Int32Array, ...]
    child_start: tuple[Int64Array, ...]
    child_end: tuple[Int64Array, ...]
    item_ids: tuple[str, ...]

    @property
    def num_levels(self) -> int:
        """Codes per SID."""
        return len(self.codes)

    def _ranges(self, nodes_B: Int64Array, level: int) -> tuple[Int64Array, Int64Array]:
        if not 0 <= level < self.num_levels:
            msg = f"level must be in [0, {self.num_levels}), got {level}"
            raise ValueError(msg)
        if level == 0:
            return np.zeros_like(nodes_B), np.full_like(nodes_B, len(self.codes[0]))
        return self.child_start[level - 1][nodes_B], self.child_end[level - 1][nodes_B]

    def children(self, node: int, level: int) -> tuple[Int32Array, int]:
        """Return the codes of `level` that may follow `node`, ascending, and the first child's node; the others follow it."""
        start, end = (int(value[0]) for value in self._ranges(np.array([node], dtype=np.int64), level))
        return self.codes[level][start:end], start

    def lookup(self, codes: Sequence[int]) -> str | None:
        """Return the item whose SID this is, or None."""
        if len(codes) != self.num_levels:
            return None
        node = 0
        for level, code in enumerate(codes):
            children, first = self.children(node, level)
            position = int(np.searchsorted(children, code))
            if position == len(children) or children[position] != code:
                return None
            node = first + position
        return self.item_ids[node]

    def allowed_next(self, nodes_B: npt.ArrayLike, level: int) -> tuple[Int32Array, Int64Array, Int64Array]:
        """Return codes_C, nodes_C and offsets of B + 1: beam b may go on with ``codes_C[offsets[b]:offsets[b + 1]]``."""
        start, end = self._ranges(np.asarray(nodes_B, dtype=np.int64), level)
        offsets = np.concatenate([[0], np.cumsum(end - start)]).astype(np.int64)
        nodes = np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], end - start)
        return self.codes[level][nodes], nodes, offsets

    def allowed_mask(self, nodes_B: npt.ArrayLike, level: int, *, width: int) -> BoolArray:
        """Return bool_BK, True where beam b may go on with code k of the level's `width` codes."""
        codes, _, offsets = self.allowed_next(nodes_B, level)
        mask = np.zeros((len(offsets) - 1, width), dtype=bool)
        mask[np.repeat(np.arange(len(mask)), np.diff(offsets)), codes] = True
        return mask

    def step(self, nodes_B: npt.ArrayLike, codes_B: npt.ArrayLike, level: int) -> Int64Array:
        """Return nodes_B of `level` reached by each beam's code, -1 where the code is not allowed."""
        wanted = np.asarray(codes_B, dtype=np.int64)
        low, end = self._ranges(np.asarray(nodes_B, dtype=np.int64), level)
        high = end.copy()
        last = len(self.codes[level]) - 1
        while (low < high).any():  # all beams' binary searches at once
            middle = (low + high) // 2
            go_right = (low < high) & (self.codes[level][np.minimum(middle, last)] < wanted)
            high = np.where((low < high) & ~go_right, middle, high)
            low = np.where(go_right, middle + 1, low)
        found = (low < end) & (self.codes[level][np.minimum(low, last)] == wanted)
        return np.where(found, low, -1)

    def to_table(self) -> pa.Table:
        """Return the rows of the table ``sid_trie``, by level, then node."""
        sizes = [len(level) for level in self.codes]
        no_items = pa.nulls(sum(sizes[:-1]), pa.string())
        columns = [
            np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            np.concatenate([np.arange(size, dtype=np.int64) for size in sizes]),
            np.concatenate(self.codes),
            np.concatenate(self.child_start),
            np.concatenate(self.child_end),
            pa.chunked_array([no_items, pa.array(self.item_ids, pa.string())]),
        ]
        return pa.Table.from_arrays([*columns[:5], columns[5]], schema=_SCHEMA)

    @classmethod
    def from_table(cls, table: pa.Table) -> Trie:
        """Return the trie that `to_table` wrote, rows in any order; `ArtifactError` where the rows do not make one."""
        table = table.select(_SCHEMA.names).cast(_SCHEMA).sort_by([("level", "ascending"), ("node", "ascending")])
        level_T, node_T, code_T, start_T, end_T = (table.column(index).to_numpy() for index in range(5))
        sizes = np.bincount(level_T) if len(level_T) else np.zeros(0, dtype=np.int64)
        bounds = [slice(int(end - size), int(end)) for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
        trie = cls(
            codes=tuple(code_T[part] for part in bounds),
            child_start=tuple(start_T[part] for part in bounds),
            child_end=tuple(end_T[part] for part in bounds),
            item_ids=tuple(table.column("item_id").to_pylist()[bounds[-1]]) if bounds else (),
        )
        numbered = all(np.array_equal(node_T[part], np.arange(len(node_T[part]))) for part in bounds)
        if not numbered or not trie._is_whole():
            msg = f"{table.num_rows} rows of sid_trie do not make a trie: levels, node numbers or child ranges have gaps"
            raise ArtifactError(msg, rows=table.num_rows)
        return trie

    def _is_whole(self) -> bool:
        """Return whether each level's child ranges tile the next level, leaves have items, and siblings' codes ascend."""
        if not self.codes or not all(self.item_ids) or (self.child_start[-1] != self.child_end[-1]).any():
            return False
        first = np.zeros(1, dtype=np.int64)
        for level, codes in enumerate(self.codes):
            falls = np.flatnonzero(np.diff(codes) <= 0) + 1
            if not len(codes) or not np.isin(falls, first).all():
                return False
            first, end = self.child_start[level], self.child_end[level]
            inner = level + 1 < self.num_levels
            if inner and (
                first[0] != 0 or (first >= end).any() or (first[1:] != end[:-1]).any() or end[-1] != len(self.codes[level + 1])
            ):
                return False
        return True


def build_trie(codes_NL: npt.ArrayLike, item_ids: Sequence[str]) -> Trie:
    """Return the trie of these SIDs; `ValueError` where there are none, where two are equal, or where an item_id is empty.

    >>> trie = build_trie([[0, 1], [0, 3], [2, 1]], ["p", "q", "r"])
    >>> trie.lookup([0, 3]), trie.lookup([2, 3]), trie.children(0, 1)[0].tolist()
    ('q', None, [1, 3])
    """
    codes = np.asarray(codes_NL, dtype=np.int32)
    if codes.ndim != 2 or codes.size == 0 or len(codes) != len(item_ids) or not all(item_ids):
        msg = f"a trie needs codes of shape [items, levels] and an item_id each, got {codes.shape} and {len(item_ids)} item_ids"
        raise ValueError(msg)
    order = np.lexsort(codes.T[::-1])
    codes = codes[order]
    differs_NL = np.logical_or.accumulate(np.diff(codes, axis=0) != 0, axis=1)
    if not differs_NL[:, -1].all():
        row = int(np.flatnonzero(~differs_NL[:, -1])[0])
        msg = f"items {item_ids[order[row]]!r} and {item_ids[order[row + 1]]!r} share the SID {codes[row].tolist()}"
        raise ValueError(msg)
    # Row n starts a node of level l where it differs from row n - 1 in some code up to l.
    first_rows = [np.concatenate([[0], np.flatnonzero(differs_NL[:, level]) + 1]) for level in range(codes.shape[1])]
    starts = [np.searchsorted(below, above) for above, below in itertools.pairwise(first_rows)]
    leaves = np.zeros(len(codes), dtype=np.int64)
    return Trie(
        codes=tuple(np.ascontiguousarray(codes[rows, level]) for level, rows in enumerate(first_rows)),
        child_start=(*(start.astype(np.int64) for start in starts), leaves),
        child_end=(*(np.append(start[1:], len(below)) for start, below in zip(starts, first_rows[1:], strict=True)), leaves),
        item_ids=tuple(item_ids[row] for row in order.tolist()),
    )
