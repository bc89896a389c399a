"""How items share semantic IDs: collision counts and FORGE's Gini coefficient.

Everything here looks at whole SIDs (all levels) and at occupied SIDs only. On published codes each SID holds one item, so the rate
is 0 and the Gini coefficient is 0 by construction: both say something on the *raw* codes, before collisions are resolved.
Not done here: how evenly a level's codes are used (see `utilisation`) and resolving collisions (see the tokenizers).

Shapes: N items, L levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.metrics.prefixes import observed_widths, pack, prefix_starts, sort_words

__all__ = ["CollisionStats", "collision_stats", "gini", "group_sizes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CollisionStats:
    """Counts of items per occupied SID.

    `collision_rate` is 1 − num_unique/num_items; `uniquely_identified_share` is the share of items alone on their SID;
    `group_size_histogram` holds (size, number of SIDs of that size), ascending.
    """

    num_items: int
    num_unique: int
    collision_rate: float
    uniquely_identified_share: float
    largest_group: int
    group_size_histogram: tuple[tuple[int, int], ...]


def group_sizes(codes_NL: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int64]:
    """Return the number of items of each occupied SID, in lexicographic order of the SIDs.

    Memory: about 16 + L bytes per item up to 64 bits a SID.

    >>> group_sizes(np.array([[1, 2], [0, 7], [1, 2]]))
    array([1, 2])
    """
    if codes_NL.ndim != 2 or codes_NL.shape[1] == 0:
        msg = f"codes must have shape (items, levels >= 1), got {codes_NL.shape}"
        raise ValueError(msg)
    if codes_NL.shape[0] == 0:
        return np.zeros(0, dtype=np.int64)
    lowest_L = codes_NL.min(axis=0)
    from_zero_NL = codes_NL - lowest_L.astype(np.int64) if lowest_L.min() < 0 else codes_NL
    widths = observed_widths(from_zero_NL)
    *_, starts_N = prefix_starts(sort_words(pack(from_zero_NL, widths)), widths)
    return np.diff(np.flatnonzero(starts_N), append=len(codes_NL)).astype(np.int64)


def collision_stats(codes_NL: npt.NDArray[np.integer[Any]]) -> CollisionStats:
    """Return how many items share a SID; independent of the order of rows. Raises ValueError without items.

    >>> collision_stats(np.array([[1, 2], [0, 7], [1, 2]])).group_size_histogram
    ((1, 1), (2, 1))
    """
    sizes = group_sizes(codes_NL)
    if not len(sizes):
        msg = "collision statistics of 0 items are undefined; pass at least 1 item"
        raise ValueError(msg)
    values, counts = np.unique(sizes, return_counts=True)
    return CollisionStats(
        num_items=len(codes_NL),
        num_unique=len(sizes),
        collision_rate=1.0 - len(sizes) / len(codes_NL),
        uniquely_identified_share=int(np.count_nonzero(sizes == 1)) / len(codes_NL),
        largest_group=int(sizes.max()),
        group_size_histogram=tuple(zip(values.tolist(), counts.tolist(), strict=True)),
    )


def gini(counts: npt.ArrayLike) -> float:
    """Return the Gini coefficient of the items per occupied SID, in [0, 1): 0 when every occupied SID holds as many items.

    G = (N+1)/N − 2·Σᵢ (N+1−i)·xᵢ / (N·Σx), x ascending over the N occupied SIDs, i from 1 (FORGE, arXiv 2509.20904,
    `SID_generation/scripts/gini_coefficient.md`). Zeros are unoccupied SIDs and do not enter. Raises ValueError on a negative count
    or when nothing is occupied.

    >>> round(gini([3, 2, 1, 1, 1]), 12), gini([4, 4, 4])
    (0.25, 0.0)
    """
    sizes = np.asarray(counts, dtype=np.float64)
    if sizes.ndim != 1 or np.any(~np.isfinite(sizes)) or np.any(sizes < 0):
        msg = f"counts must be a one-dimensional array of finite numbers >= 0, got shape {sizes.shape}"
        raise ValueError(msg)
    ascending = np.sort(sizes[sizes > 0])
    num = len(ascending)
    if num == 0:
        msg = "the Gini coefficient needs at least 1 occupied SID, got 0"
        raise ValueError(msg)
    weighted = math.fsum((np.arange(num, 0, -1, dtype=np.float64) * ascending).tolist())
    return max(0.0, (num + 1) / num - 2.0 * weighted / (num * math.fsum(ascending.tolist())))
