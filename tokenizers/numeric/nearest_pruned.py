"""Exact nearest codes of a wide codebook with part of the multiply-adds: leading directions for all codes, the rest for a few.

Rows x and centroids c are turned so that the first dimensions hold most of the centroids' length. A product of these `lead`
dimensions bounds every score from below, with Cauchy and Schwarz for the rest: x·c <= y·c' of the lead + |y rest||c' rest|. The
code that looks best is completed, and what is bounded above it cannot be nearest. The codes left are completed in pieces of 64
dimensions, each piece dropping more of them, and where rounding leaves more than one, float64 distances decide as in `nearest`:
the codes are the same bit for bit, whichever `lead`. Deliberately not done: anything approximate, or a choice that a result shows.
The products may fuse and reorder; `squared_distance` may not, and Numba keeps a copy of it here: touch this file when it changes.

Bound. R holds the directions as float32 columns, ‖R Rᵀ - I‖ <= d is measured, and y = fl(x R), c' = fl(c R), the latter from
float64. With u and gamma_D as in `nearest`, ‖y - x R‖ <= gamma_D |x|‖R‖_F, for each column's dot product is off by at most
gamma_D |x||r|, and ‖c' - c R‖ <= 2u |c|. So x·c and y·c' differ by at most t |x||c|, t = 1.03 (d + gamma_D ‖R‖_F + 2u), as long as
turning changes no length by a hundredth (`_MOST_TURNING`). A completed score then is off by at most 2 (gamma_D + t + 4u) |x||c|
plus 4 (P + 6) u (|x| + |c|)² for its P pieces and the offset; two such scores, or a completed one and a bound, that are
further apart than twice that are in order. Norms of rests are rounded up.

Shape suffixes: B rows of a block, D dimensions, E turned dimensions (whole pieces), K codes (whole groups), L leading dimensions,
P pieces of S dimensions, J groups of G codes, C codes still in question, N rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.nearest_loops import squared_distance
from sidlake.tokenizers.numeric.threads import product_with

__all__ = ["PrunedBook", "Turned", "cheapest_lead"]

_GROUP = 32  # codes that are compared at once
_PIECE = 64  # dimensions by which scores are completed
_U32 = 2.0**-24
_U64 = 2.0**-53
_MOST_TURNING = 0.005
_STEP = 32  # dimensions between the leads that are tried
# Measured on one core, in multiply-adds of a product: what a code costs that the leading product leaves, and three more passes.
_PER_CODE_LEFT = 2000
_PER_CODE = 20
_GAIN = 0.9  # of the whole product's cost: above it, not worth the memory

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
BoolArray = npt.NDArray[np.bool_]
Search = Callable[[Float32Array, Float32Array, Float32Array], Int32Array]
"""Returns codes_B of rows_BD with these squared norms; the third argument is room for a block's scores."""


class Turned:
    """A codebook in the principal directions of its own centroids, the longest first."""

    def __init__(self, book_KD: Float32Array) -> None:
        num_dims = book_KD.shape[1]
        largest = float(np.abs(book_KD).max()) or 1.0
        scaled_KD = book_KD / np.float32(largest)  # the directions are the same, and squares do not overflow
        _, directions_DD = np.linalg.eigh((scaled_KD.T @ scaled_KD).astype(np.float64))
        self.directions_DD: Float32Array = np.ascontiguousarray(directions_DD[:, ::-1], dtype=np.float32)
        exact_DD = self.directions_DD.astype(np.float64)
        with np.errstate(over="ignore"):
            self.book_KD: Float32Array = (book_KD.astype(np.float64) @ exact_DD).astype(np.float32)
        gamma = num_dims * _U32 / (1 - num_dims * _U32)
        defect = float(np.linalg.norm(exact_DD @ exact_DD.T - np.eye(num_dims))) + 1e-9
        self.turning = 1.03 * (defect + gamma * float(np.linalg.norm(exact_DD)) + 2 * _U32)


def cheapest_lead(turned: Turned, squared_norms_K: Float32Array, sample_ND: Float32Array) -> int | None:
    """Return how many leading dimensions cost least for rows like these, a multiple of 32; None where the whole product does.

    `squared_norms_K`: infinity where a code may not be used.
    """
    num_codes, num_dims = turned.book_KD.shape
    if turned.turning > _MOST_TURNING:
        return None
    costs: dict[int | None, float] = {None: _GAIN * num_codes * num_dims}
    with np.errstate(over="ignore", invalid="ignore"):  # rows that could overflow are settled in float64
        y_ND = sample_ND @ turned.directions_DD
        scores_NK = squared_norms_K - 2 * (y_ND @ turned.book_KD.T)
        partial_NK = np.broadcast_to(squared_norms_K, scores_NK.shape).copy()
        for lead in range(_STEP, num_dims, _STEP):
            part = slice(lead - _STEP, lead)
            partial_NK -= (2 * y_ND[:, part]) @ turned.book_KD[:, part].T
            looks_best_N = partial_NK.argmin(axis=1)
            best_N = np.take_along_axis(scores_NK, looks_best_N[:, None], axis=1)
            rests_N, rests_K = np.linalg.norm(y_ND[:, lead:], axis=1), np.linalg.norm(turned.book_KD[:, lead:], axis=1)
            left = np.count_nonzero(partial_NK - np.outer(2 * rests_N, rests_K) <= best_N) / len(sample_ND)
            costs[lead] = num_codes * (lead + _PER_CODE) + num_dims**2 + _PER_CODE_LEFT * left
    return min(costs, key=lambda lead: costs[lead])


class PrunedBook:
    """A turned codebook cut after `lead` dimensions, as the arrays that `decide` reads.

    `squared_norms_K`: infinity where `usable_K`, one entry per code, says that no row may use the code.
    """

    def __init__(
        self, book_KD: Float32Array, turned: Turned, lead: int, *, squared_norms_K: Float32Array, usable_K: BoolArray
    ) -> None:
        num_codes, num_dims = book_KD.shape
        self.width, pieces = -(-num_codes // _GROUP) * _GROUP, -(-(num_dims - lead) // _PIECE)
        self._book_KD, self._usable_K = book_KD, usable_K
        self._largest = float(np.linalg.norm(book_KD.astype(np.float64), axis=1).max())
        self._turning = turned.turning
        self._squared_norms_K = np.full(self.width, np.inf, dtype=np.float32)
        self._squared_norms_K[:num_codes] = squared_norms_K
        turned_KE = np.zeros((self.width, lead + pieces * _PIECE), dtype=np.float32)
        turned_KE[:num_codes, :num_dims] = turned.book_KD
        with np.errstate(over="ignore"):  # infinite: then no row is searched by bounds
            self._twice_LK = np.ascontiguousarray(np.float32(-2.0) * turned_KE[:, :lead].T)
        rest_KE = turned_KE[:, lead:]
        self._book_PKS = np.ascontiguousarray(rest_KE.reshape(self.width, pieces, _PIECE).swapaxes(0, 1))
        self._rests_PK = np.zeros((pieces + 1, self.width), dtype=np.float32)
        for piece in range(pieces):
            self._rests_PK[piece] = np.linalg.norm(rest_KE[:, piece * _PIECE :].astype(np.float64), axis=1) * 1.00001
        self._lead_DL = np.ascontiguousarray(turned.directions_DD[:, :lead])
        self._rest_DE = np.zeros((num_dims, pieces * _PIECE), dtype=np.float32)
        self._rest_DE[:, : num_dims - lead] = turned.directions_DD[:, lead:]

    def search(self, block: int, *, multiply_adds: int) -> Search:
        """Return what searches blocks of at most `block` rows, for one thread; `multiply_adds` chooses the product's library."""
        to_lead, to_rest, product = (
            product_with(right, multiply_adds=multiply_adds) for right in (self._lead_DL, self._rest_DE, self._twice_LK)
        )
        lead_BL = np.empty((block, self._lead_DL.shape[1]), np.float32)
        rest_BE = np.empty((block, self._rest_DE.shape[1]), np.float32)

        def search(rows_BD: Float32Array, norms_B: Float32Array, scores: Float32Array) -> Int32Array:
            rows = len(rows_BD)
            scores_BK = scores[: rows * self.width].reshape(rows, self.width)
            with np.errstate(over="ignore", invalid="ignore"):  # rows that could overflow are settled in float64
                to_lead(rows_BD, lead_BL[:rows])
                to_rest(rows_BD, rest_BE[:rows])
                product(lead_BL[:rows], scores_BK)
            rest_BPS = rest_BE[:rows].reshape(rows, -1, _PIECE)
            codes_B = np.empty(rows, dtype=np.int32)
            decide(
                *(scores_BK, rest_BPS, rows_BD, norms_B, self._book_KD, self._book_PKS, self._squared_norms_K),
                *(self._rests_PK, self._usable_K, self._largest, self._turning, codes_B),
            )
            return codes_B

        return search


@numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _piece_product(row_S: Float32Array, other_S: Float32Array) -> np.float32:
    """Return the dot product of two pieces in float32, its terms added in any order: only bounds and screens are made of it."""
    total = np.float32(0.0)
    for d in range(_PIECE):
        total += row_S[d] * other_S[d]
    return total


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _completed(score: np.float32, row_PS: Float32Array, book_PKS: Float32Array, code: np.int32, first: int) -> np.float32:
    """Return the score with the pieces from `first` on."""
    for p in range(first, row_PS.shape[0]):
        score -= np.float32(2.0) * _piece_product(row_PS[p], book_PKS[p, code])
    return score


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _looks_best(
    scores_JG: Float32Array, norms_JG: Float32Array, offset: np.float32, lowest_G: Float32Array, groups_G: Int32Array
) -> np.int32:
    """Return a code of the lowest score, found for each place in a group at once."""
    lowest_G[:] = np.float32(np.inf)
    groups_G[:] = 0
    for j in range(scores_JG.shape[0]):
        scores_G, norms_G = scores_JG[j], norms_JG[j]
        for g in range(_GROUP):
            score = scores_G[g] + (norms_G[g] + offset)
            lower = score < lowest_G[g]
            lowest_G[g] = score if lower else lowest_G[g]
            groups_G[g] = np.int32(j) if lower else groups_G[g]
    place = 0
    for g in range(_GROUP):
        if lowest_G[g] < lowest_G[place]:
            place = g
    return np.int32(groups_G[place] * _GROUP + place)


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _select(
    scores_JG: Float32Array,
    norms_JG: Float32Array,
    rests_JG: Float32Array,
    bits_G: Int32Array,
    bounds: tuple[np.float32, np.float32, np.float32],
    codes_C: Int32Array,
    scores_C: Float32Array,
) -> int:
    """Write the codes, ascending, whose score less `reach` times their rest is at most `limit`, and their scores; return how many.

    A group's codes are compared at once, each in a bit of its own, because a loop that stores does not compile to SIMD.
    """
    offset, reach, limit = bounds
    found = 0
    for j in range(scores_JG.shape[0]):
        scores_G, norms_G, rests_G = scores_JG[j], norms_JG[j], rests_JG[j]
        near = np.int32(0)
        for g in range(_GROUP):
            near |= bits_G[g] if scores_G[g] + (norms_G[g] + offset) - reach * rests_G[g] <= limit else np.int32(0)
        left = int(near) & 0xFFFFFFFF
        while left:
            lowest_bit = left & -left
            g = int(np.float64(lowest_bit).view(np.int64) >> 52) - 1023  # the exponent of a power of two is its place
            left ^= lowest_bit
            codes_C[found] = j * _GROUP + g
            scores_C[found] = scores_G[g] + (norms_G[g] + offset)
            found += 1
    return found


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _narrow(
    row_PS: Float32Array,
    book_PKS: Float32Array,
    rests_PK: Float32Array,
    reaches_P: Float32Array,
    slack: float,
    limit: np.float32,
    codes_C: Int32Array,
    scores_C: Float32Array,
    count: int,
) -> int:
    """Add piece after piece to the scores of `count` codes, dropping those that cannot be nearest; return how many stay."""
    for p in range(row_PS.shape[0]):
        if count == 1:
            break
        for c in range(count):  # by itself, so that one code's reads need not wait for another's comparison
            scores_C[c] -= np.float32(2.0) * _piece_product(row_PS[p], book_PKS[p, codes_C[c]])
        best = 0
        for c in range(count):
            if scores_C[c] < scores_C[best]:
                best = c
        limit = min(limit, np.float32(np.float64(_completed(scores_C[best], row_PS, book_PKS, codes_C[best], p + 1)) + slack))
        kept = 0
        for c in range(count):
            code, score = codes_C[c], scores_C[c]
            codes_C[kept] = code
            scores_C[kept] = score
            kept += int(score - reaches_P[p + 1] * rests_PK[p + 1, code] <= limit)
        count = kept
    return count


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _nearest_of(
    row_D: Float32Array, books_KD: Float32Array, usable_K: BoolArray, codes_C: Int32Array, terms_D: Float64Array
) -> np.int32:
    """Return the usable one of these codes, ascending, at the least float64 distance: the first of equals."""
    found, best = np.int32(-1), np.inf
    for code in codes_C:
        if usable_K[code]:
            squared = squared_distance(row_D, books_KD[code], terms_D)
            if squared < best or found < 0:
                found, best = code, float(squared)
    return found


@numba.njit(nogil=True, cache=True, error_model="numpy")
def decide(
    scores_BK: Float32Array,
    rests_BPS: Float32Array,
    rows_BD: Float32Array,
    norms_B: Float32Array,
    books_KD: Float32Array,
    book_PKS: Float32Array,
    squared_norms_K: Float32Array,
    rests_PK: Float32Array,
    usable_K: BoolArray,
    largest: float,
    turning: float,
    codes_B: Int32Array,
) -> int:
    """Write the code of each row, the nearest usable one; return how many codes the leading product left, all rows together.

    K is a whole number of groups, except in books_KD and usable_K. scores_BK: -2 y·c' of the leading dimensions. rests_BPS,
    book_PKS: what follows of the turned rows and centroids, in pieces. squared_norms_K: |c|², infinity where a code may not be
    used. rests_PK: at least the norms of the pieces from p on, one row more than there are pieces. largest: the largest centroid's
    norm. turning: what turning may change, of |x||c|. The module has the bound.
    """
    num_dims, num_pieces, num_groups = rows_BD.shape[1], book_PKS.shape[0], book_PKS.shape[1] // _GROUP
    codes_C, scores_C = np.empty(book_PKS.shape[1], dtype=np.int32), np.empty(book_PKS.shape[1], dtype=np.float32)
    reaches_P, terms_D = np.zeros(num_pieces + 1, dtype=np.float32), np.empty(num_dims, dtype=np.float64)
    norms_JG, rests_JG = squared_norms_K.reshape((num_groups, _GROUP)), rests_PK[0].reshape((num_groups, _GROUP))
    bits_G, groups_G, lowest_G = np.empty(_GROUP, np.int32), np.empty(_GROUP, np.int32), np.empty(_GROUP, np.float32)
    for g in range(_GROUP):
        bits_G[g] = np.int32(1 << g)
    gamma = num_dims * _U32 / (1 - num_dims * _U32)
    longest = largest * 1.01 + 1e-15
    num_left = 0
    for b in range(rows_BD.shape[0]):
        norm = math.sqrt(np.float64(norms_B[b])) * 1.01 + 1e-15
        reach, row_PS, count = norm + longest, rests_BPS[b], 0
        safe = reach * reach <= 1e37  # else float32 might overflow
        if safe:
            offset, squared = np.float32(1.05 * reach * reach), 0.0
            slack = 2 * (gamma + turning + 4 * _U32) * norm * longest
            slack = 2.02 * (slack + (4 * (num_pieces + 6) * _U32 + (num_dims + 8) * _U64) * reach * reach)
            for p in range(num_pieces - 1, -1, -1):
                squared += np.float64(_piece_product(row_PS[p], row_PS[p]))
                reaches_P[p] = np.float32(2.0001 * (math.sqrt(squared) + 1e-17))
            scores_JG = scores_BK[b].reshape((num_groups, _GROUP))
            guess = _looks_best(scores_JG, norms_JG, offset, lowest_G, groups_G)
            lowest = np.float32(scores_BK[b, guess] + (squared_norms_K[guess] + offset))
            limit = np.float32(np.float64(_completed(lowest, row_PS, book_PKS, guess, 0)) + slack)
            bounds = (offset, reaches_P[0], limit)
            count = _select(scores_JG, norms_JG, rests_JG, bits_G, bounds, codes_C, scores_C)
            num_left += count
            count = _narrow(row_PS, book_PKS, rests_PK, reaches_P, slack, limit, codes_C, scores_C, count)
        if count != 1:
            if not safe:
                count = books_KD.shape[0]
                for k in range(count):
                    codes_C[k] = k
            codes_C[0] = _nearest_of(rows_BD[b], books_KD, usable_K, codes_C[:count], terms_D)
        codes_B[b] = codes_C[0]
    return num_left
