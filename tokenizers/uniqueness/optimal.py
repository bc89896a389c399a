"""Unique codes at the least cost inside each prefix: a minimum-cost assignment of its items to its free last-level codes.

`collisions` lets the nearest item keep its code and serves the others in turn; here all items of a crowded prefix share its free
codes so that their squared distances sum to the minimum, published SIDs apart. What finds no code (more items than codes) is
reassigned. One prefix at a time: `scipy.optimize.linear_sum_assignment` on exact float64 distances, items in the order of distance
to their raw code, then item hash, codes ascending, so that equal optima are decided the same way for any order of rows.

Measured on Beauty (12,101 items, 3×256): see docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from sidlake.tokenizers.numeric.increments import Implicit
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int32Array
from sidlake.tokenizers.uniqueness.crowded_prefixes import contests, finish
from sidlake.tokenizers.uniqueness.reassign import Assignment, VectorsOf

__all__ = ["optimal_codes"]


def optimal_codes(
    raw_codes_NL: Int32Array,
    norms_N: Float64Array,
    hashes_N: npt.NDArray[np.uint64],
    centroids: Sequence[Float32Array] | Implicit,
    vectors_of: VectorsOf,
    occupied_codes_ML: Int32Array | None = None,
) -> Assignment:
    """Return unique SIDs, of least summed squared distance within every prefix; arguments and errors of `assign_unique`."""
    raw, prefixes = contests(
        raw_codes_NL, norms_N, hashes_N, centroids=centroids, vectors_of=vectors_of, occupied_codes_ML=occupied_codes_ML
    )
    placed: dict[int, int] = {}
    for contest in prefixes:
        items, codes = linear_sum_assignment(contest.squared_CF)
        placed |= zip(contest.rows[items].tolist(), contest.free[codes].tolist(), strict=True)
    return finish(raw, placed, centroids=centroids, vectors_of=vectors_of, occupied_codes_ML=occupied_codes_ML)
