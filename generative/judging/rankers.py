"""Rankers for the judge out of whatever scores all items, and the order of a list where scores are equal.

Shape suffixes: B users, N items, K recommendations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sidlake.generative.judging.judge import CUTOFFS, Judge, Ranker
from sidlake.generative.sequences import Histories

__all__ = ["leave_out_seen", "ranker_of", "top_items"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


def top_items(scores_BN: Float32s, *, k: int) -> Int64s:
    """Return the `k` best items per row, best first, (B, min(k, N)); ties go to the lower index, -inf becomes -1 (no item).

    >>> top_items(np.array([[0.1, 0.9, 0.9]], dtype=np.float32), k=2).tolist()
    [[1, 2]]
    """
    num_rows, num_items = scores_BN.shape
    k = min(k, num_items)
    limit_B1 = np.partition(scores_BN, num_items - k, axis=1)[:, num_items - k, None]
    above_BN = scores_BN > limit_B1
    equal_BN = scores_BN == limit_B1
    # of those equal to the last place, the lowest numbers, so that a row has exactly k
    crowded_B = (equal_BN.sum(axis=1) + above_BN.sum(axis=1)) > k
    room_B1 = k - above_BN[crowded_B].sum(axis=1, keepdims=True)
    equal_BN[crowded_B] &= equal_BN[crowded_B].cumsum(axis=1) <= room_B1
    items_BK = np.nonzero(above_BN | equal_BN)[1].reshape(num_rows, k)
    values_BK = np.take_along_axis(scores_BN, items_BK, axis=1)
    order_BK = np.argsort(-values_BK, axis=1, kind="stable")
    items_BK = np.take_along_axis(items_BK, order_BK, axis=1)
    return np.where(np.take_along_axis(values_BK, order_BK, axis=1) == -np.inf, -1, items_BK)


def leave_out_seen(scores_BN: Float32s, users: Histories) -> None:
    """Set the scores of the items of each user's history to -inf, in place."""
    lengths_B = users.ends_U - users.starts_U
    scores_BN[np.repeat(np.arange(len(users)), lengths_B), users.flat_items()] = -np.inf


def ranker_of(scores: Callable[[Histories], Float32s]) -> Ranker:
    """Return the ranker that orders all items by `scores`, which gives (B, N) float32 for a batch of users."""

    def ranked(users: Histories, rule: Judge) -> Int64s:
        scores_BN = scores(users)
        if rule == "left_out":
            leave_out_seen(scores_BN, users)
        return top_items(scores_BN, k=max(CUTOFFS))

    return ranked
