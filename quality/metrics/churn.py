"""How many items changed codes between two releases, as written and after the best relabelling of codes.

Codebooks fitted again number their codes anew: every item changes although nothing moved. The best relabelling of a level maps its
codes before to codes after, one to one, so that as many items as possible keep theirs (assignment problem, solved exactly by SciPy;
Kuhn 1955). What is left is churn that no renaming explains, and what trained models must learn again. Two unrelated levels agree on
a share of items too, once relabelled: more so with few items per code.

One relabelling serves a whole level, as codebooks shared by all prefixes ask; trees that number the children of each prefix anew
are not matched prefix by prefix. Not done here: finding the items of both releases, which are the caller's rows.

Shapes: N items of both releases, L levels, K codes before, M codes after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

__all__ = ["ChurnCounter", "CodeOverlap", "LevelChurn", "churn"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelChurn:
    """Shares of items whose code at `level` changed, and whose prefix up to it did; with relabelling and without."""

    level: int
    changed: float
    prefix_changed: float
    changed_relabelled: float
    prefix_changed_relabelled: float


class CodeOverlap:
    """Accumulates how many items have each pair of codes before and after, level by level: what a relabelling needs.

    Memory: 8·K·M bytes per level, and as much again while one is solved; 8,192 codes take half a gigabyte a level.
    """

    def __init__(self, widths_before: Sequence[int], widths_after: Sequence[int]) -> None:
        if len(widths_before) != len(widths_after) or not len(widths_before):
            levels = f"{len(widths_before)} and {len(widths_after)} levels"
            msg = f"releases must have as many levels, at least 1, got {levels}; compare the first ones they share"
            raise ValueError(msg)
        self._overlaps = [
            np.zeros((int(before), int(after)), dtype=np.int64) for before, after in zip(widths_before, widths_after, strict=True)
        ]

    def update(self, before_NL: npt.NDArray[np.integer[Any]], after_NL: npt.NDArray[np.integer[Any]]) -> None:
        """Add a batch of items, row by row the same ones. Raises ValueError where shapes differ or a code is outside its level."""
        _check(before_NL, after_NL, len(self._overlaps))
        for level, overlap in enumerate(self._overlaps):
            before_N, after_N = before_NL[:, level].astype(np.int64), after_NL[:, level].astype(np.int64)
            for codes_N, width in zip((before_N, after_N), overlap.shape, strict=True):
                if len(codes_N) and not 0 <= codes_N.min() <= codes_N.max() < width:
                    msg = f"level {level}: codes range over [{codes_N.min()}, {codes_N.max()}], allowed [0, {width - 1}]"
                    raise ValueError(msg)
            overlap += np.bincount(before_N * overlap.shape[1] + after_N, minlength=overlap.size).reshape(overlap.shape)

    def best_relabelling(self) -> tuple[Int64Array, ...]:
        """Return, per level, the new name of each code before (K,), −1 where M < K leaves it without; deterministic."""
        found = []
        for overlap in self._overlaps:
            before, after = linear_sum_assignment(overlap, maximize=True)
            names_K = np.full(len(overlap), -1, dtype=np.int64)
            names_K[before] = after
            found.append(names_K)
        return tuple(found)


class ChurnCounter:
    """Accumulates the churn of batches of items under a relabelling found before. Memory: O(L) beside a batch."""

    def __init__(self, relabelling: Sequence[Int64Array]) -> None:
        self._relabelling = tuple(relabelling)
        self._changed = np.zeros((4, len(self._relabelling)), dtype=np.int64)
        self._num_items = 0

    def update(self, before_NL: npt.NDArray[np.integer[Any]], after_NL: npt.NDArray[np.integer[Any]]) -> None:
        """Add a batch of items, row by row the same ones."""
        _check(before_NL, after_NL, len(self._relabelling))
        self._num_items += len(before_NL)
        prefix_2N = np.zeros((2, len(before_NL)), dtype=np.bool_)
        for level, names_K in enumerate(self._relabelling):
            before_N, after_N = before_NL[:, level], after_NL[:, level]
            changed_2N = np.stack([before_N != after_N, names_K[before_N] != after_N])
            prefix_2N |= changed_2N
            self._changed[:, level] += np.concatenate([changed_2N, prefix_2N]).sum(axis=1)

    def finalize(self) -> tuple[LevelChurn, ...]:
        """Return the churn of each level, coarse to fine; raises ValueError without items."""
        if not self._num_items:
            msg = "the churn of 0 items is undefined; two releases without a common item cannot be compared"
            raise ValueError(msg)
        share_4L = (self._changed / self._num_items).tolist()
        return tuple(
            LevelChurn(
                level=level, changed=plain, changed_relabelled=relabelled, prefix_changed=prefix, prefix_changed_relabelled=both
            )
            for level, (plain, relabelled, prefix, both) in enumerate(zip(*share_4L, strict=True))
        )


def churn(
    before_NL: npt.NDArray[np.integer[Any]],
    after_NL: npt.NDArray[np.integer[Any]],
    widths_before: Sequence[int],
    widths_after: Sequence[int],
) -> tuple[LevelChurn, ...]:
    """Return the churn of two releases held in memory, rows being the same items.

    >>> (level,) = churn(np.array([[0], [0], [1]]), np.array([[1], [1], [1]]), [2], [2])
    >>> round(level.changed, 3), round(level.changed_relabelled, 3)
    (0.667, 0.333)
    """
    overlap = CodeOverlap(widths_before, widths_after)
    overlap.update(before_NL, after_NL)
    counter = ChurnCounter(overlap.best_relabelling())
    counter.update(before_NL, after_NL)
    return counter.finalize()


def _check(before_NL: npt.NDArray[np.integer[Any]], after_NL: npt.NDArray[np.integer[Any]], num_levels: int) -> None:
    if before_NL.shape != after_NL.shape or before_NL.ndim != 2 or before_NL.shape[1] != num_levels:
        msg = f"codes before and after must both have shape (items, {num_levels}), got {before_NL.shape} and {after_NL.shape}"
        raise ValueError(msg)
