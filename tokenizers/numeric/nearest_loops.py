"""The loops that NumPy has no single pass for, compiled by Numba; `nearest` says what they are for and why they are right.

None of them may round otherwise than written: no fast-math, no fused multiply-add, so that every machine gives the same bits. The
one exception is `_squared_norm`, whose result only enters error bounds. All release the GIL. Compiled at first use, in about five
seconds, and cached on disk after that.

Shape suffixes: B rows of a block, D dimensions, K codes, P pairs of a row and a code.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["add_rows", "decide", "last_distances", "paired", "search_beams", "squared_distance", "subtract", "take"]

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_U32 = 2.0**-24
_U64 = 2.0**-53
_INFINITY_BITS = np.int32(0x7F800000)


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _squared_norm(row_D: Float32Array) -> np.float32:
    """Return the squared norm in float32, off by a relative D * 2**-24 at most."""
    total = np.float32(0.0)
    for d in range(row_D.shape[0]):
        total += row_D[d] * row_D[d]
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy")
def squared_distance(row_D: Float32Array, centroid_D: Float32Array, terms_D: Float64Array) -> float:
    """Return the squared distance in float64, adding upper half to lower half until one term is left: `nearest._fold_sum`."""
    width = row_D.shape[0]
    for d in range(width):
        gap = np.float64(row_D[d]) - np.float64(centroid_D[d])
        terms_D[d] = gap * gap
    while width > 1:
        half = (width + 1) // 2
        for d in range(width - half):
            terms_D[d] += terms_D[half + d]
        width = half
    return terms_D[0]  # type: ignore[no-any-return]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def paired(
    x_ND: Float32Array, rows_P: Int64Array, centroids_KD: Float32Array, codes_P: Int64Array, squared_P: Float64Array
) -> None:
    """Write the float64 squared distance of ``x[rows[p]]`` and ``centroids[codes[p]]`` into squared_P."""
    terms_D = np.empty(x_ND.shape[1], dtype=np.float64)
    for p in range(rows_P.shape[0]):
        squared_P[p] = squared_distance(x_ND[rows_P[p]], centroids_KD[codes_P[p]], terms_D)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def take(x_BD: Float32Array, work_BD: Float32Array, norms_B: Float32Array) -> None:
    """Copy the rows into work_BD and write their squared norms."""
    for b in range(x_BD.shape[0]):
        for d in range(x_BD.shape[1]):
            work_BD[b, d] = x_BD[b, d]
        norms_B[b] = _squared_norm(work_BD[b])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def subtract(work_BD: Float32Array, centroids_KD: Float32Array, codes_B: Int32Array, norms_B: Float32Array) -> None:
    """Subtract each row's centroid from it, in float32, and write the squared norms of what is left."""
    for b in range(work_BD.shape[0]):
        row_D, centroid_D = work_BD[b], centroids_KD[codes_B[b]]
        for d in range(row_D.shape[0]):
            row_D[d] -= centroid_D[d]
        norms_B[b] = _squared_norm(row_D)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _add(scores_K: Float32Array, more_K: Float32Array) -> None:
    for k in range(scores_K.shape[0]):
        scores_K[k] += more_K[k]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _lowest(scores_K: Float32Array, squared_norms_K: Float32Array, offset: np.float32) -> np.float32:
    """Return the lowest score. Compared as whole numbers, whose order is that of floats not below 0: that much compiles to SIMD."""
    lowest = _INFINITY_BITS
    for k in range(scores_K.shape[0]):
        lowest = min(lowest, np.float32(scores_K[k] + (squared_norms_K[k] + offset)).view(np.int32))
    return np.int32(lowest).view(np.float32)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _within(
    scores_K: Float32Array, squared_norms_K: Float32Array, offset: np.float32, limit: np.float32
) -> tuple[np.int32, np.int32]:
    """Return how many scores are at most `limit`, and the sum of their codes: of one, its code."""
    count, codes = np.int32(0), np.int32(0)
    for k in range(scores_K.shape[0]):
        near = np.int32(scores_K[k] + (squared_norms_K[k] + offset) <= limit)
        count += near
        codes += near * np.int32(k)
    return count, codes


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _left_over(
    row_D: Float32Array, books_KD: Float32Array, starts_L: Int64Array, codes_L: Int32Array, depth: int, out_D: Float32Array
) -> None:
    """Write what the first `depth` codes leave of the row, in float32 steps."""
    for d in range(row_D.shape[0]):
        out_D[d] = row_D[d]
    for level in range(depth):
        centroid_D = books_KD[starts_L[level] + codes_L[level]]
        for d in range(out_D.shape[0]):
            out_D[d] -= centroid_D[d]


@numba.njit(nogil=True, cache=True, error_model="numpy")
def last_distances(
    rows_BD: Float32Array, books_KD: Float32Array, starts_L: Int64Array, codes_BL: Int32Array, squared_B: Float64Array
) -> None:
    """Write the float64 squared distance of what all codes but the last leave of each row to the last code's centroid."""
    left_D, terms_D = np.empty(rows_BD.shape[1], dtype=np.float32), np.empty(rows_BD.shape[1], dtype=np.float64)
    last = codes_BL.shape[1] - 1
    for b in range(rows_BD.shape[0]):
        _left_over(rows_BD[b], books_KD, starts_L, codes_BL[b], last, left_D)
        squared_B[b] = squared_distance(left_D, books_KD[starts_L[last] + codes_BL[b, last]], terms_D)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def decide(
    scores_BK: Float32Array,
    rows_BD: Float32Array,
    norms_B: Float32Array,
    books_KD: Float32Array,
    starts_L: Int64Array,
    squared_norms_K: Float32Array,
    gram_KK: Float32Array,
    usable_RK: BoolArray,
    largest_L: Float64Array,
    codes_BL: Int32Array,
) -> int:
    """Write the codes of each row, level by level the nearest usable one; return how many codes took float64 distances.

    K counts the codes of all levels together; `starts_L` has one entry more than there are levels. scores_BK: -2 x·c in float32 (is
    overwritten), infinity where a row may not use one. norms_B: the rows' squared norms. squared_norms_K: |c|², infinity where
    no row may use the code. gram_KK: 2 c·c' (not read with one level). usable_RK: one row for all, or one per row. largest_L: the
    largest centroid's norm per level. The offset keeps scores from falling below 0; every rounding is in the bound of `nearest`.
    """
    num_dims, num_levels = rows_BD.shape[1], starts_L.shape[0] - 1
    left_D, terms_D = np.empty(num_dims, dtype=np.float32), np.empty(num_dims, dtype=np.float64)
    gamma = num_dims * _U32 / (1 - num_dims * _U32)
    num_settled = 0
    for b in range(rows_BD.shape[0]):
        usable_K = usable_RK[b if usable_RK.shape[0] > 1 else 0]
        norm = math.sqrt(np.float64(norms_B[b])) * 1.01 + 1e-15
        reach = norm
        for level in range(num_levels):
            first, end = starts_L[level], starts_L[level + 1]
            scores_J, norms_J = scores_BK[b, first:end], squared_norms_K[first:end]
            for before in range(level):
                _add(scores_J, gram_KK[starts_L[before] + codes_BL[b, before], first:end])
            offset = np.float32(1.05 * reach * reach)
            longest = largest_L[level] * 1.01 + 1e-15
            reach += longest
            safe = reach * reach <= 1e37  # else float32 might overflow
            limit, count, code = np.float32(np.inf), np.int32(0), np.int32(0)
            if safe:
                slack = 2 * (gamma + 2 * _U32) * norm * longest + ((16 + 4 * level) * _U32 + (num_dims + 8) * _U64) * reach * reach
                limit = np.float32(np.float64(_lowest(scores_J, norms_J, offset)) + 2.02 * slack)
                count, code = _within(scores_J, norms_J, offset, limit)
            if count != 1:
                num_settled += 1
                code, best = np.int32(-1), np.inf
                _left_over(rows_BD[b], books_KD, starts_L, codes_BL[b], level, left_D)
                for k in range(end - first):
                    if usable_K[first + k] and (not safe or scores_J[k] + (norms_J[k] + offset) <= limit):
                        squared = squared_distance(left_D, books_KD[first + k], terms_D)
                        if squared < best or code < 0:
                            code, best = np.int32(k), float(squared)
            codes_BL[b, level] = code
    return num_settled


@numba.njit(nogil=True, cache=True, error_model="numpy")
def add_rows(x_BD: Float32Array, codes_B: Int32Array, sums_KD: Float64Array) -> None:
    """Add each row to the sum of its code, rows ascending."""
    for b in range(x_BD.shape[0]):
        sum_D, row_D = sums_KD[codes_B[b]], x_BD[b]
        for d in range(row_D.shape[0]):
            sum_D[d] += np.float64(row_D[d])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def search_beams(scores_NK: Float64Array, gram_KK: Float64Array, starts_L: Int64Array, beam: int, codes_NL: Int32Array) -> None:
    """Write for each row the codes of least summed score among the `beam` best prefixes of each level; ties to the lowest codes.

    K counts the codes of all levels together. scores_NK: |c|² - 2 x·c; gram_KK: 2 c·c'.
    """
    num_levels = starts_L.shape[0] - 1
    costs, kept = np.empty(beam + 1), np.empty((beam + 1, num_levels), dtype=np.int32)
    new_costs, new_kept = np.empty(beam + 1), np.empty((beam + 1, num_levels), dtype=np.int32)
    for row in range(scores_NK.shape[0]):
        costs[0], num_kept = 0.0, 1
        for level in range(num_levels):
            first, end, found = starts_L[level], starts_L[level + 1], 0
            for prefix in range(num_kept):
                for code in range(end - first):
                    cost = costs[prefix] + scores_NK[row, first + code]
                    for before in range(level):
                        cost += gram_KK[starts_L[before] + kept[prefix, before], first + code]
                    if found == beam and cost >= new_costs[beam - 1]:
                        continue
                    place = min(found, beam - 1)
                    while place > 0 and cost < new_costs[place - 1]:
                        new_costs[place] = new_costs[place - 1]
                        new_kept[place] = new_kept[place - 1]
                        place -= 1
                    new_costs[place] = cost
                    new_kept[place] = kept[prefix]
                    new_kept[place, level] = code
                    found = min(found + 1, beam)
            num_kept = found
            for place in range(found):
                costs[place] = new_costs[place]
                kept[place] = new_kept[place]
        codes_NL[row] = kept[0]
