"""Semantic IDs from anywhere: which item has which codes, and nothing of how they were made.

Every metric that needs codes alone accepts one; metrics that need vectors use its codebooks, or codebooks refitted to a reference
(see `refit`). A published table often ends in a level that only tells items of one SID apart (TIGER's and GRID's digit): its
authors' figures leave it out, and it says nothing of an item. `ends_in_deduplication` recognises such a level, `first_levels` takes
it off, and the assignment remembers what was taken. Not done here: reading files (see the pipelines) and judging.

Shapes: N items, L levels, K codes of a level, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sidlake.errors import ContractError

__all__ = ["Assignment", "ends_in_deduplication"]

_EXAMPLES = 3


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Assignment:
    """The codes of N items. Memory: 4·L bytes per item and its identifier.

    Attributes:
        name: what tables call it.
        item_ids: Arrow string array of N different identifiers.
        codes_NL: int32, row i belongs to ``item_ids[i]``; of level l in ``[0, widths[l])``.
        widths: codes that each level could use, used or not.
        codebooks: one [K, D] array per level whose sum reconstructs an item, or None where the table came without.
        source: where it came from, for people.
        stripped: what was taken off the published codes, one sentence each.

    Raises `ContractError` where identifiers are null or repeat, or a code is outside its level, and ValueError for wrong shapes.
    """

    name: str
    item_ids: pa.Array
    codes_NL: npt.NDArray[np.int32]
    widths: tuple[int, ...]
    codebooks: tuple[npt.NDArray[np.floating[Any]], ...] | None = None
    source: str = ""
    stripped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.codes_NL.shape
        if self.codes_NL.ndim != 2 or self.codes_NL.dtype != np.int32 or shape != (len(self.item_ids), len(self.widths)):
            wanted = f"({len(self.item_ids)} items, {len(self.widths)} widths)"
            msg = f"assignment {self.name!r}: codes must be int32 of shape {wanted}, got {self.codes_NL.dtype} {shape}"
            raise ValueError(msg)
        if not shape[0] or not shape[1]:
            msg = f"assignment {self.name!r}: needs at least 1 item and 1 level, got {shape[0]} and {shape[1]}"
            raise ContractError(msg, shape=shape)
        self._check_item_ids()
        self._check_codes()
        self._check_codebooks()

    @property
    def num_items(self) -> int:
        """N."""
        return len(self.codes_NL)

    @property
    def num_levels(self) -> int:
        """L."""
        return len(self.widths)

    def aligned_to(self, item_ids: pa.Array | pa.ChunkedArray) -> Assignment:
        """Return the same assignment with the rows of exactly these items, in their order.

        Raises `ContractError` where one side names items that the other lacks: a figure of half the items compares with nothing.
        """
        wanted = _as_array(item_ids)
        rows = pc.index_in(wanted, value_set=self.item_ids)
        missing = wanted.filter(pc.is_null(rows))
        unknown = self.item_ids.filter(pc.invert(pc.is_in(self.item_ids, value_set=wanted)))
        if len(missing) or len(unknown):
            lacks = f"{len(missing)} of {len(wanted)} items have no codes{_such_as(missing)}"
            more = f"{len(unknown)} of its {self.num_items} items are unknown here{_such_as(unknown)}"
            msg = f"assignment {self.name!r}: {lacks}, and {more}; both must name the same items by the same identifiers"
            raise ContractError(msg, missing=len(missing), unknown=len(unknown))
        return replace(self, item_ids=wanted, codes_NL=self.codes_NL[rows.to_numpy(zero_copy_only=False)])

    def first_levels(self, num_levels: int, *, why: str) -> Assignment:
        """Return the assignment without the levels from `num_levels` on, and note that and `why` in `stripped`.

        Codebooks that add up do so for a prefix too. Raises ValueError unless 1 <= num_levels <= L.
        """
        if not 1 <= num_levels <= self.num_levels:
            msg = f"assignment {self.name!r} has {self.num_levels} levels; asked for the first {num_levels}"
            raise ValueError(msg)
        if num_levels == self.num_levels:
            return self
        return replace(
            self,
            codes_NL=np.ascontiguousarray(self.codes_NL[:, :num_levels]),
            widths=self.widths[:num_levels],
            codebooks=None if self.codebooks is None else self.codebooks[:num_levels],
            stripped=(*self.stripped, f"the last {self.num_levels - num_levels} of {self.num_levels} levels: {why}"),
        )

    def _check_item_ids(self) -> None:
        if not pa.types.is_string(self.item_ids.type):
            msg = f"assignment {self.name!r}: item_ids must be an Arrow string array, got {self.item_ids.type}"
            raise ValueError(msg)
        if self.item_ids.null_count:
            msg = f"assignment {self.name!r}: {self.item_ids.null_count} items have no identifier; drop or name them"
            raise ContractError(msg, nulls=self.item_ids.null_count)
        different = pc.count_distinct(self.item_ids).as_py()
        if different != len(self.item_ids):
            counted = self.item_ids.value_counts()
            repeated = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
            msg = f"assignment {self.name!r}: {len(repeated)} items have more than one SID{_such_as(repeated)}; keep one each"
            raise ContractError(msg, repeated=len(repeated))

    def _check_codes(self) -> None:
        outside = (self.codes_NL < 0) | (self.codes_NL >= np.array(self.widths, dtype=np.int64))
        if outside.any():
            row, level = (int(index) for index in np.argwhere(outside)[0])
            what = f"item {self.item_ids[row].as_py()!r} has code {self.codes_NL[row, level]} at level {level}"
            msg = f"assignment {self.name!r}: {what}, allowed is [0, {self.widths[level]}); {int(outside.sum())} codes are outside"
            raise ContractError(msg, item_id=self.item_ids[row].as_py(), level=level, outside=int(outside.sum()))

    def _check_codebooks(self) -> None:
        if self.codebooks is None:
            return
        shapes = [level.shape for level in self.codebooks]
        if [shape[:1] for shape in shapes] != [(width,) for width in self.widths] or len({shape[1:] for shape in shapes}) != 1:
            msg = f"assignment {self.name!r}: codebooks of shapes {shapes} do not fit the widths {self.widths}"
            raise ValueError(msg)


def ends_in_deduplication(codes_NL: npt.NDArray[np.integer[Any]]) -> bool:
    """Return whether the last level only numbers the items of one SID, from 0, or from 1 and 0 for an item alone, as GRID does.

    Where no two items share a prefix the level tells nothing apart and the answer is False; so it is with a single level.

    >>> ends_in_deduplication(np.array([[5, 0], [5, 1], [7, 0]])), ends_in_deduplication(np.array([[5, 0], [5, 9], [7, 4]]))
    (True, False)
    """
    if codes_NL.ndim != 2 or codes_NL.shape[1] < 2 or not len(codes_NL):
        return False
    sorted_NL = codes_NL[np.lexsort(codes_NL.T[::-1])]
    first_N = np.concatenate([[True], np.any(sorted_NL[1:, :-1] != sorted_NL[:-1, :-1], axis=1)])
    starts = np.flatnonzero(first_N)
    sizes = np.diff(np.concatenate([starts, [len(codes_NL)]]))
    rank_N = np.arange(len(codes_NL)) - np.repeat(starts, sizes)
    from_one_N = rank_N + (np.repeat(sizes, sizes) > 1)
    last_N = sorted_NL[:, -1]
    return bool(sizes.max() > 1 and (np.array_equal(last_N, rank_N) or np.array_equal(last_N, from_one_N)))


def _as_array(item_ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = item_ids.combine_chunks() if isinstance(item_ids, pa.ChunkedArray) else item_ids
    return array.cast(pa.string())


def _such_as(item_ids: Sequence[object]) -> str:
    return f" (such as {', '.join(repr(str(item)) for item in item_ids[:_EXAMPLES])})" if len(item_ids) else ""
