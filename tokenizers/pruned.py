"""Exact nearest codes of a wide codebook with part of the multiply-adds: leading directions for all codes, the rest for a few.

Rows x and centroids c are turned so that the first dimensions hold most of the centroids' length. A product of these `lead`
dimensions bounds every score from below, with Cauchy and Schwarz for the rest: x·c <= y·c' of the lead + |y rest||c' rest|. The
code that looks best is completed, and what is bounded above it cannot be nearest. The codes left are completed in pieces of 64
dimensions, each piece dropping more of them, and where rounding leaves more than one, float64 distances decide as in `nearest`:
the codes are the same bit for bit, whichever `lead`. Deliberately not done: anything approximate, or a choice that a result shows.

Bound. R holds the directions as float32 columns, ‖R Rᵀ - I‖ <= d is measured, and y = fl(x R), c' = fl(c R), the latter from
float64. With u and gamma_D as in `nearest`, ‖y - x R‖ <= gamma_D |x|‖R‖_F, for each column's dot product is off by at most
gamma_D |x||r|, and ‖c' - c R‖ <= 2u |c|. So x·c and y·c' differ by at most t |x||c|, t = 1.03 (d + gamma_D ‖R‖_F + 2u), as long as
turning changes no length by a hundredth (`_MOST_TURNING`). A completed score then is off by at most 2 (gamma_D + t + 4u) |x||c|
plus 4 (P + 6) u (|x| + |c|)² for its P pieces and the offset; two such scores, or a completed one and a bound, that are
further apart than twice that are in order. Norms of rests are rounded up.

Shape suffixes: B rows of a block, D dimensions, E turned dimensions (whole pieces), K codes (whole groups), L leading dimensions,
P pieces of S dimensions, N rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.blocks import product_with
from sidlake.tokenizers.compiled import GROUP, PIECE, decide_pruned

__all__ = ["PrunedBook", "Turned", "cheapest_lead"]

_U32 = 2.0**-24
_MOST_TURNING = 0.005
_STEP = 32  # dimensions between the leads that are tried
# Measured on one core, in multiply-adds of a product: what a code costs that the leading product leaves, and three more passes.
_PER_CODE_LEFT = 2000
_PER_CODE = 20
_GAIN = 0.9  # of the whole product's cost: above it, not worth the memory

Float32Array = npt.NDArray[np.float32]
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
    """A turned codebook cut after `lead` dimensions, as the arrays that `compiled.decide_pruned` reads.

    `squared_norms_K`: infinity where `usable_K`, one entry per code, says that no row may use the code.
    """

    def __init__(
        self, book_KD: Float32Array, turned: Turned, lead: int, *, squared_norms_K: Float32Array, usable_K: BoolArray
    ) -> None:
        num_codes, num_dims = book_KD.shape
        self.width, pieces = -(-num_codes // GROUP) * GROUP, -(-(num_dims - lead) // PIECE)
        self._book_KD, self._usable_K = book_KD, usable_K
        self._largest = float(np.linalg.norm(book_KD.astype(np.float64), axis=1).max())
        self._turning = turned.turning
        self._squared_norms_K = np.full(self.width, np.inf, dtype=np.float32)
        self._squared_norms_K[:num_codes] = squared_norms_K
        turned_KE = np.zeros((self.width, lead + pieces * PIECE), dtype=np.float32)
        turned_KE[:num_codes, :num_dims] = turned.book_KD
        with np.errstate(over="ignore"):  # infinite: then no row is searched by bounds
            self._twice_LK = np.ascontiguousarray(np.float32(-2.0) * turned_KE[:, :lead].T)
        rest_KE = turned_KE[:, lead:]
        self._book_PKS = np.ascontiguousarray(rest_KE.reshape(self.width, pieces, PIECE).swapaxes(0, 1))
        self._rests_PK = np.zeros((pieces + 1, self.width), dtype=np.float32)
        for piece in range(pieces):
            self._rests_PK[piece] = np.linalg.norm(rest_KE[:, piece * PIECE :].astype(np.float64), axis=1) * 1.00001
        self._lead_DL = np.ascontiguousarray(turned.directions_DD[:, :lead])
        self._rest_DE = np.zeros((num_dims, pieces * PIECE), dtype=np.float32)
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
            rest_BPS = rest_BE[:rows].reshape(rows, -1, PIECE)
            codes_B = np.empty(rows, dtype=np.int32)
            decide_pruned(
                *(scores_BK, rest_BPS, rows_BD, norms_B, self._book_KD, self._book_PKS, self._squared_norms_K),
                *(self._rests_PK, self._usable_K, self._largest, self._turning, codes_B),
            )
            return codes_B

        return search
