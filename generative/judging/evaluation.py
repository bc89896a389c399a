"""Item-level Recall@K and NDCG@K for one held-out item per user.

The protocol is leave-one-out over the full catalogue, with no sampled negatives: the last item of a user is the test target, the
one before it the validation target. Items are compared, never SIDs, so colliding SIDs could not inflate a figure. Customers of a
shop buy items again, so items seen before stay among the candidates unless the caller excludes them, for the model and the
baselines alike.

Shape suffixes: U users, K recommendations, best first, padded with -1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["ndcg_at_k", "ranks_of", "recall_at_k"]

Int64s = npt.NDArray[np.int64]


def ranks_of(target_U: Int64s, ranked_UK: Int64s) -> Int64s:
    """Return the rank of each target among its row, 1 is best, 0 where it is absent; (U,) int64.

    >>> ranks_of(np.array([7, 7]), np.array([[5, 7], [5, 6]])).tolist()
    [2, 0]
    """
    if ranked_UK.ndim != 2 or target_U.shape != ranked_UK.shape[:1]:
        msg = f"targets {target_U.shape} and rankings {ranked_UK.shape} must be (users,) and (users, K)"
        raise ValueError(msg)
    if (target_U < 0).any():
        msg = "a target is negative, but -1 marks an absent recommendation; every user needs a held-out item"
        raise ValueError(msg)
    hit_UK = ranked_UK == target_U[:, None]
    return np.where(hit_UK.any(axis=1), hit_UK.argmax(axis=1) + 1, 0).astype(np.int64)


def recall_at_k(ranks_U: Int64s, *, k: int) -> float:
    """Return the share of users whose target is among the first `k`; ranks as `ranks_of` gives them, from at least k places.

    >>> recall_at_k(np.array([1, 3, 0, 2]), k=2)
    0.5
    """
    return float(_hits(ranks_U, k).mean())


def ndcg_at_k(ranks_U: Int64s, *, k: int) -> float:
    """Return the mean of 1 / log2(rank + 1) over users, 0 where the target is not among the first `k` (one target: the ideal is 1).

    >>> ndcg_at_k(np.array([1, 3, 0, 4]), k=3)
    0.375
    """
    gains_U = np.where(_hits(ranks_U, k), 1.0 / np.log2(np.maximum(ranks_U, 1) + 1.0), 0.0)
    return float(gains_U.mean())


def _hits(ranks_U: Int64s, k: int) -> npt.NDArray[np.bool_]:
    if k < 1 or not len(ranks_U):
        msg = f"k must be at least 1 and there must be users, got k={k}, users={len(ranks_U)}"
        raise ValueError(msg)
    return (ranks_U > 0) & (ranks_U <= k)
