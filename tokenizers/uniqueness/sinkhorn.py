"""Unique codes by entropic optimal transport over the last level, with a finish that proves unique.

Up to 20 rounds: items that collide are spread over the last level's codes so that each code serves equally many of them (Sinkhorn,
entropy 0.003 of the distances scaled to [-1, 1], 50 iterations, as LC-Rec's code has them), and each takes the code it got most of.
`sinkhorn_groups` is the published method, of LC-Rec and LETTER: the items of one SID are spread by themselves, as if no other item
were there. `sinkhorn_codes` spreads all that collide in one plan, whatever their prefixes: it asks for equal use of codes over all
of them and not within one SID, so it moves fewer items less far and leaves more (docs/decisions/0011-uniqueness-strategies.md).
Both reassign what collides after the last round; the published method leaves it as it is (11 duplicates in LETTER's Beauty index).
An item moves although it was the nearest of its code: that is the method, and it costs more than `reassign`.

LC-Rec: Zheng et al. 2024, arXiv 2311.09049; LETTER: Wang et al. 2024, arXiv 2405.07314. Shapes: C items that collide, G groups of
them, K codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.increments import Implicit, Levels
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int32Array, Int64Array, squared_distances_f64
from sidlake.tokenizers.uniqueness.crowded_prefixes import RawCodes, finish
from sidlake.tokenizers.uniqueness.reassign import Assignment, VectorsOf, check_codes, prefix_ids

__all__ = ["sinkhorn_codes", "sinkhorn_groups", "transport_plan"]

_ROUNDS = 20
_EPSILON = 0.003
_ITERATIONS = 50
_MAX_ROWS = 16_384  # rows spread together: 32 MiB of costs at 256 codes


def sinkhorn_codes(
    raw_codes_NL: Int32Array,
    norms_N: Float64Array,
    hashes_N: npt.NDArray[np.uint64],
    centroids: Sequence[Float32Array] | Implicit,
    vectors_of: VectorsOf,
    occupied_codes_ML: Int32Array | None = None,
) -> Assignment:
    """Return unique SIDs, all colliding items spread by one plan; arguments and errors of `assign_unique`."""

    def spread(by_hash: Int64Array, codes_NL: Int32Array, space: Levels | Implicit) -> None:
        for block in np.array_split(by_hash, -(-len(by_hash) // _MAX_ROWS)):
            codes_NL[block, -1] = transport_plan(_costs(block, codes_NL, space, vectors_of)).argmax(axis=1)

    return _unique(spread, raw_codes_NL, norms_N, hashes_N, centroids, vectors_of, occupied_codes_ML)


def sinkhorn_groups(
    raw_codes_NL: Int32Array,
    norms_N: Float64Array,
    hashes_N: npt.NDArray[np.uint64],
    centroids: Sequence[Float32Array] | Implicit,
    vectors_of: VectorsOf,
    occupied_codes_ML: Int32Array | None = None,
) -> Assignment:
    """Return unique SIDs, the items of each SID spread by a plan of their own; arguments and errors of `assign_unique`."""

    def spread(by_hash: Int64Array, codes_NL: Int32Array, space: Levels | Implicit) -> None:
        leaf_C = prefix_ids(codes_NL[by_hash], space.widths) * space.widths[-1] + codes_NL[by_hash, -1]
        grouped = by_hash[np.argsort(leaf_C, kind="stable")]
        _, sizes = np.unique(leaf_C, return_counts=True)
        starts = np.cumsum(sizes) - sizes
        for size in np.unique(
            sizes[sizes > 1]
        ).tolist():  # groups of one size together; whom a published item stands alone against, waits
            most = max(1, _MAX_ROWS // size)
            firsts = starts[sizes == size]
            for some in np.array_split(firsts, -(-len(firsts) // most)):
                rows = grouped[(some[:, None] + np.arange(size)).ravel()]
                costs_GCK = _costs(rows, codes_NL, space, vectors_of).reshape(len(some), size, -1)
                codes_NL[rows, -1] = transport_plan(costs_GCK).argmax(axis=2).ravel()

    return _unique(spread, raw_codes_NL, norms_N, hashes_N, centroids, vectors_of, occupied_codes_ML)


def _unique(
    spread: Callable[[Int64Array, Int32Array, Levels | Implicit], None],
    raw_codes_NL: Int32Array,
    norms_N: Float64Array,
    hashes_N: npt.NDArray[np.uint64],
    centroids: Sequence[Float32Array] | Implicit,
    vectors_of: VectorsOf,
    occupied_codes_ML: Int32Array | None,
) -> Assignment:
    """Return unique SIDs after rounds of `spread`, which gives colliding rows, in the order of their hashes, other last codes."""
    space: Levels | Implicit = centroids if isinstance(centroids, Implicit) else Levels(centroids)
    occupied = np.empty((0, len(space.widths)), np.int32) if occupied_codes_ML is None else occupied_codes_ML
    check_codes(raw_codes_NL, norms_N, hashes_N, occupied, space.widths)
    codes_NL = raw_codes_NL.astype(np.int32, copy=True)
    touched_N = np.zeros(len(codes_NL), dtype=bool)
    for _ in range(_ROUNDS):
        rows = _colliding(codes_NL, occupied, space.widths)
        if not len(rows):
            break
        touched_N[rows] = True
        spread(rows[np.lexsort((rows, hashes_N[rows]))], codes_NL, space)
    touched_N[_colliding(codes_NL, occupied, space.widths)] = True
    settled = np.setdiff1d(np.flatnonzero(touched_N), _colliding(codes_NL, occupied, space.widths))
    placed = dict(zip(settled.tolist(), codes_NL[settled, -1].tolist(), strict=True))
    raw = RawCodes(codes_NL=raw_codes_NL, norms_N=norms_N, hashes_N=hashes_N, contested=np.flatnonzero(touched_N))
    return finish(raw, placed, centroids=centroids, vectors_of=vectors_of, occupied_codes_ML=occupied_codes_ML)


def transport_plan(cost_CK: Float64Array, *, epsilon: float = _EPSILON, iterations: int = _ITERATIONS) -> Float64Array:
    """Return plan_CK, rows summing to 1/C and columns to nearly 1/K, for costs scaled to [-1, 1] about their middle.

    Of costs [G, C, K] a plan for each of G.

    >>> transport_plan(np.array([[0.0, 1.0], [1.0, 0.0]])).round(3).tolist()
    [[0.5, 0.0], [0.0, 0.5]]
    """
    low, high = cost_CK.min(axis=(-2, -1), keepdims=True), cost_CK.max(axis=(-2, -1), keepdims=True)
    scaled = (cost_CK - (high + low) / 2) / np.maximum((high - low) / 2, np.finfo(np.float64).tiny)
    log_plan = -scaled / epsilon
    for _ in range(iterations):  # in logarithms: exp(-1/0.003) is no number
        log_plan -= _log_sum(log_plan, axis=-2) + np.log(cost_CK.shape[-1])
        log_plan -= _log_sum(log_plan, axis=-1) + np.log(cost_CK.shape[-2])
    plan: Float64Array = np.exp(log_plan)
    return plan


def _colliding(codes_NL: Int32Array, occupied_ML: Int32Array, widths: tuple[int, ...]) -> Int64Array:
    """Return the rows whose SID another row or a published item has, ascending."""
    everyone = np.concatenate([codes_NL, occupied_ML])
    leaf_T = prefix_ids(everyone, widths) * widths[-1] + everyone[:, -1]
    _, inverse, counts = np.unique(leaf_T, return_inverse=True, return_counts=True)
    return np.flatnonzero(counts[inverse[: len(codes_NL)]] > 1)


def _costs(rows: Int64Array, codes_NL: Int32Array, space: Levels | Implicit, vectors_of: VectorsOf) -> Float64Array:
    """Return squared_CK, the distances of the rows' last residuals to every last-level code under their prefix."""
    ascending = np.argsort(rows)
    residual = np.empty((len(rows), space.dim), dtype=np.float32)
    residual[ascending] = vectors_of(rows[ascending])
    for level in range(len(space.widths) - 1):
        residual = space.step(residual, level, codes_NL[rows])
    if isinstance(space, Levels):
        return squared_distances_f64(residual, space.index([0] * (len(space.widths) - 1)).centroids_KD)
    own = [space.index(prefix).centroids_KD for prefix in codes_NL[rows, :-1].tolist()]
    return np.concatenate([squared_distances_f64(row[None], candidates) for row, candidates in zip(residual, own, strict=True)])


def _log_sum(values: Float64Array, *, axis: int) -> Float64Array:
    highest = values.max(axis=axis, keepdims=True)
    result: Float64Array = highest + np.log(np.exp(values - highest).sum(axis=axis, keepdims=True))
    return result
