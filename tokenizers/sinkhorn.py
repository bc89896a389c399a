"""Unique codes by entropic optimal transport over the last level, as LC-Rec and LETTER do, with a finish that proves unique.

Up to 20 rounds: the items of a crowded prefix are spread evenly over its free codes (Sinkhorn, entropy 0.003 of the normalised
distances, 50 iterations, as LC-Rec's code has them), each takes the code it got most of, and of several at one code the nearest
stays. The published method leaves what collides after the last round as it is (11 duplicates in LETTER's Beauty index); here it is
reassigned. LC-Rec: Zheng et al. 2024, arXiv 2311.09049; LETTER: Wang et al. 2024, arXiv 2405.07314.

Shapes: C items of a prefix, F free codes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.collisions import Assignment, VectorsOf
from sidlake.tokenizers.contests import Contest, contests, finish
from sidlake.tokenizers.increments import Implicit
from sidlake.tokenizers.nearest import Float32Array, Float64Array, Int32Array

__all__ = ["sinkhorn_codes", "transport_plan"]

_ROUNDS = 20
_EPSILON = 0.003
_ITERATIONS = 50


def sinkhorn_codes(
    raw_codes_NL: Int32Array,
    norms_N: Float64Array,
    hashes_N: npt.NDArray[np.uint64],
    centroids: Sequence[Float32Array] | Implicit,
    vectors_of: VectorsOf,
    occupied_codes_ML: Int32Array | None = None,
) -> Assignment:
    """Return unique SIDs, crowded prefixes spread by transport; arguments and errors of `assign_unique`."""
    raw, prefixes = contests(
        raw_codes_NL, norms_N, hashes_N, centroids=centroids, vectors_of=vectors_of, occupied_codes_ML=occupied_codes_ML
    )
    placed: dict[int, int] = {}
    for contest in prefixes:
        placed |= _spread(contest)
    return finish(raw, placed, centroids=centroids, vectors_of=vectors_of, occupied_codes_ML=occupied_codes_ML)


def transport_plan(cost_CF: Float64Array, *, epsilon: float = _EPSILON, iterations: int = _ITERATIONS) -> Float64Array:
    """Return plan_CF, rows summing to 1/C and columns to nearly 1/F, for costs scaled to [-1, 1] about their middle.

    >>> transport_plan(np.array([[0.0, 1.0], [1.0, 0.0]])).round(3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    low, high = cost_CF.min(), cost_CF.max()
    scaled = (cost_CF - (high + low) / 2) / max((high - low) / 2, np.finfo(np.float64).tiny)
    log_plan = -scaled / epsilon
    for _ in range(iterations):  # in logarithms: exp(-1/0.003) is no number
        log_plan -= _log_sum(log_plan, axis=0) + np.log(cost_CF.shape[1])
        log_plan -= _log_sum(log_plan, axis=1) + np.log(cost_CF.shape[0])
    plan: Float64Array = np.exp(log_plan)
    return plan


def _spread(contest: Contest) -> dict[int, int]:
    """Return the codes of the contest's rows that found one of their own."""
    placed: dict[int, int] = {}
    rows, codes = np.arange(len(contest.rows)), np.arange(len(contest.free))
    for _ in range(_ROUNDS):
        if not len(rows) or not len(codes):
            break
        cost_CF = contest.squared_CF[np.ix_(rows, codes)]
        chosen = transport_plan(cost_CF).argmax(axis=1)
        order = np.lexsort((rows, cost_CF[np.arange(len(rows)), chosen], chosen))
        winners = order[np.diff(chosen[order], prepend=-1) != 0]
        placed |= zip(contest.rows[rows[winners]].tolist(), contest.free[codes[chosen[winners]]].tolist(), strict=True)
        rows, codes = np.delete(rows, winners), np.delete(codes, chosen[winners])
    return placed


def _log_sum(values: Float64Array, *, axis: int) -> Float64Array:
    highest = values.max(axis=axis, keepdims=True)
    result: Float64Array = highest + np.log(np.exp(values - highest).sum(axis=axis, keepdims=True))
    return result
