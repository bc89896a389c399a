"""The exactly nearest code, the same whatever the chunking, batch size, number of threads or device.

A float32 matrix product is fast, but its last bits depend on the library, the threads and the rows beside a row. So it only
screens: a rigorous bound on its rounding error tells which codes can be nearest, and where more than one can, float64 distances
decide, summed in one stated order (`_fold_sum`). Exact ties go to the lowest code. Squared Euclidean distance only; no
approximate search.

Bound. With u = 2**-24 and gamma_n = n u / (1 - n u), a float32 dot product of D terms, in any order and with or without fused
multiply-add, is off by at most gamma_D |x||c| (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1). The score
fl(|c|²) - 2 fl(x·c) is then off by at most 2 (gamma_D + 2u) |x||c| + 3u |c|²; two scores further apart than twice that are in
order.

Shape suffixes: N rows, D dimensions, K codes, P pairs of a row and a code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

__all__ = ["NearestIndex", "nearest_codes", "paired_squared_distances", "squared_distances_f64"]

_U32 = 2.0**-24
_U64 = 2.0**-53
_SCORES_PER_CHUNK = 2**21  # 8 MiB of float32 scores: inside the L2 and L3 caches of the CPUs of today
_TERMS_PER_BLOCK = 2**18  # 2 MiB of float64 terms

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_Screened = tuple[Int64Array, Int64Array, Int64Array]


def nearest_codes(x_ND: npt.ArrayLike, centroids_KD: npt.ArrayLike, *, chunk: int | None = None, device: str = "cpu") -> Int32Array:
    """Return codes_N, the index of the centroid nearest to each row; exact ties go to the lowest index.

    Equal to ``squared_distances_f64(x, centroids).argmin(1)`` bit for bit, on any device and for any `chunk`.

    >>> nearest_codes([[0.9, 0.0], [0.5, 0.0]], [[0.0, 0.0], [1.0, 0.0]]).tolist()
    [1, 0]
    """
    return NearestIndex(centroids_KD, device=device).search(x_ND, chunk=chunk)


def squared_distances_f64(x_ND: npt.ArrayLike, centroids_KD: npt.ArrayLike) -> Float64Array:
    """Return squared_NK in float64; each entry depends on its own row and centroid alone, bit for bit.

    >>> squared_distances_f64([[1.0, 2.0]], [[1.0, 0.0], [4.0, 6.0]]).tolist()
    [[4.0, 25.0]]
    """
    x, centroids = _as_matrix(x_ND, "x"), _as_matrix(centroids_KD, "centroids")
    _check_dims(x, centroids)
    result = np.empty((len(x), len(centroids)))
    block = max(1, _TERMS_PER_BLOCK // centroids.size)
    centroids_64 = centroids.astype(np.float64)
    for start in range(0, len(x), block):
        terms = x[start : start + block, None, :].astype(np.float64) - centroids_64
        np.multiply(terms, terms, out=terms)
        result[start : start + block] = _fold_sum(terms)
    return result


def paired_squared_distances(
    x_ND: Float32Array, rows_P: Int64Array, centroids_KD: Float32Array, codes_P: npt.NDArray[np.integer]
) -> Float64Array:
    """Return squared_P between ``x[rows]`` and ``centroids[codes]``: the bits that `squared_distances_f64` gives."""
    result = np.empty(len(rows_P))
    block = max(1, _TERMS_PER_BLOCK // x_ND.shape[1])
    for start in range(0, len(rows_P), block):
        part = slice(start, start + block)
        terms = x_ND[rows_P[part]].astype(np.float64) - centroids_KD[codes_P[part]]
        np.multiply(terms, terms, out=terms)
        result[part] = _fold_sum(terms)
    return result


class NearestIndex:
    """Centroids made ready for exact nearest-code search: worth keeping when many small searches share them.

    `search` gives the same codes on every device. On CUDA the float32 products run with TF32 switched off for their duration, and
    the few undecided rows are settled on the CPU.
    """

    def __init__(self, centroids_KD: npt.ArrayLike, *, device: str = "cpu") -> None:
        self.centroids_KD = _as_matrix(centroids_KD, "centroids")
        self.device = device
        norms = np.sqrt(squared_distances_f64(self.centroids_KD, np.zeros((1, self.centroids_KD.shape[1])))[:, 0])
        self._largest_norm = float(norms.max())
        with np.errstate(over="ignore"):  # an infinite score is settled in float64 like any other doubt
            self._squared_norms_K = np.square(norms).astype(np.float32)
        self._twice_DK = np.ascontiguousarray(-2.0 * self.centroids_KD.T)
        self._first_K = _first_equal(self.centroids_KD)
        self._is_first_K = self._first_K == np.arange(len(self._first_K))
        self._on_device: tuple[torch.Tensor, torch.Tensor] | None = None

    def search(self, x_ND: npt.ArrayLike, *, allowed_NK: BoolArray | None = None, chunk: int | None = None) -> Int32Array:
        """Return codes_N, the nearest code of each row among those that `allowed_NK` (all, if None) permits.

        Raises `ValueError` for a wrong dimension, a value that is not finite, or a row with no permitted code.
        """
        x = _as_matrix(x_ND, "x")
        _check_dims(x, self.centroids_KD)
        if allowed_NK is not None and (allowed_NK.shape != (len(x), len(self.centroids_KD)) or not allowed_NK.any(axis=1).all()):
            msg = f"allowed must be bool [{len(x)}, {len(self.centroids_KD)}] with a permitted code in every row"
            raise ValueError(msg)
        if chunk is not None and chunk < 1:
            msg = f"chunk must be >= 1, got {chunk}"
            raise ValueError(msg)
        step = chunk or max(64, _SCORES_PER_CHUNK // len(self.centroids_KD))
        result = np.empty(len(x), dtype=np.int32)
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            result[part] = self._search_chunk(x[part], None if allowed_NK is None else allowed_NK[part])
        return result

    def _search_chunk(self, x_ND: Float32Array, allowed_NK: BoolArray | None) -> Int64Array:
        if allowed_NK is None and not self._is_first_K.all():
            allowed_NK = np.broadcast_to(self._is_first_K, (len(x_ND), len(self._is_first_K)))
        slack_N = self._slack(x_ND)
        screen = self._screen_numpy if self.device == "cpu" else self._screen_torch
        best_N, rows_P, codes_P = screen(x_ND, allowed_NK, slack_N)
        if len(rows_P):
            rows_P, codes_P = self._without_copies(rows_P, codes_P)
            squared_P = paired_squared_distances(x_ND, rows_P, self.centroids_KD, codes_P)
            starts = np.flatnonzero(np.diff(rows_P, prepend=-1))
            lowest = np.minimum.reduceat(squared_P, starts)
            is_lowest = squared_P == np.repeat(lowest, np.diff(starts, append=len(rows_P)))
            # Pairs come sorted by row, then code: writing them backwards leaves each row with its lowest tied code.
            best_N[rows_P[is_lowest][::-1]] = codes_P[is_lowest][::-1]
        return best_N

    def _slack(self, x_ND: Float32Array) -> Float64Array:
        """Return slack_N: scores further apart than this are in their true order. inf where float32 could overflow."""
        num_dims = x_ND.shape[1]
        gamma = num_dims * _U32 / (1 - num_dims * _U32)
        # 1.01 covers the rounding of this very sum; the constant covers underflow of terms below 2**-126.
        norms_N = np.sqrt(np.einsum("nd,nd->n", x_ND, x_ND).astype(np.float64)) * 1.01 + 1e-15
        largest = self._largest_norm * 1.01 + 1e-15
        one_score = 2 * (gamma + 2 * _U32) * norms_N * largest + 3 * _U32 * largest**2
        in_float64 = (num_dims + 8) * _U64 * (norms_N + largest) ** 2
        slack_N: Float64Array = 2.02 * (one_score + in_float64)
        slack_N[(norms_N + largest) ** 2 > 1e37] = np.inf
        return slack_N

    def _screen_numpy(self, x_ND: Float32Array, allowed_NK: BoolArray | None, slack_N: Float64Array) -> _Screened:
        with np.errstate(over="ignore", invalid="ignore"):
            scores_NK = x_ND @ self._twice_DK
            scores_NK += self._squared_norms_K
            if allowed_NK is not None:
                np.copyto(scores_NK, np.inf, where=~allowed_NK)
            best_N = scores_NK.argmin(axis=1).astype(np.int64)
            limit_N = scores_NK[np.arange(len(x_ND)), best_N] + slack_N
            near_NK = scores_NK <= np.nextafter(limit_N.astype(np.float32), np.float32(np.inf))[:, None]
        undecided = np.flatnonzero((np.count_nonzero(near_NK, axis=1) > 1) | ~np.isfinite(slack_N))
        near_UK = near_NK[undecided] | ~np.isfinite(slack_N[undecided])[:, None]
        if allowed_NK is not None:
            near_UK &= allowed_NK[undecided]
        rows_P, codes_P = near_UK.nonzero()
        return best_N, undecided[rows_P], codes_P

    def _screen_torch(self, x_ND: Float32Array, allowed_NK: BoolArray | None, slack_N: Float64Array) -> _Screened:
        import torch  # here, because it takes three seconds that searches on the CPU need not spend

        if self._on_device is None:
            twice, norms = torch.from_numpy(self._twice_DK), torch.from_numpy(self._squared_norms_K)
            self._on_device = (twice.to(self.device), norms.to(self.device))
        twice_DK, squared_norms_K = self._on_device
        with _full_precision():
            scores_NK = torch.from_numpy(x_ND).to(self.device) @ twice_DK
        scores_NK += squared_norms_K
        allowed = None if allowed_NK is None else torch.from_numpy(np.ascontiguousarray(allowed_NK)).to(self.device)
        if allowed is not None:
            scores_NK.masked_fill_(~allowed, float("inf"))
        lowest_N, best_N = scores_NK.min(dim=1)
        slack = torch.from_numpy(slack_N).to(self.device)
        limit_N = (lowest_N + slack).to(torch.float32)
        near_NK = scores_NK <= torch.nextafter(limit_N, torch.full_like(limit_N, float("inf")))[:, None]
        undecided = ((near_NK.sum(dim=1) > 1) | ~torch.isfinite(slack)).nonzero()[:, 0]
        near_UK = near_NK[undecided] | ~torch.isfinite(slack[undecided])[:, None]
        if allowed is not None:
            near_UK &= allowed[undecided]
        rows_P, codes_P = near_UK.nonzero(as_tuple=True)
        return best_N.cpu().numpy(), undecided[rows_P].cpu().numpy(), codes_P.cpu().numpy()

    def _without_copies(self, rows_P: Int64Array, codes_P: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return the pairs without later copies of a centroid that the row already has: equal distance, higher code."""
        if self._is_first_K.all():
            return rows_P, codes_P
        _, kept = np.unique(rows_P * len(self._first_K) + self._first_K[codes_P], return_index=True)
        kept.sort()
        return rows_P[kept], codes_P[kept]


@contextmanager
def _full_precision() -> Iterator[None]:
    """Switch off TF32 in CUDA's float32 matrix products: the bound holds for IEEE float32 alone."""
    import torch

    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _fold_sum(terms: Float64Array) -> Float64Array:
    """Return the sum over the last axis, by adding its upper half to its lower half until one is left; overwrites `terms`.

    Each step is elementwise, so a row's sum never depends on other rows, on blocking, or on how a library sums.
    """
    width = terms.shape[-1]
    while width > 1:
        half = (width + 1) // 2
        terms[..., : width - half] += terms[..., half:width]
        width = half
    return terms[..., 0]


def _first_equal(centroids_KD: Float32Array) -> Int64Array:
    """Return first_K, the lowest code whose centroid has the same bytes (dead codes are copies)."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(row.tobytes(), code) for code, row in enumerate(centroids_KD)], dtype=np.int64)


def _as_matrix(values: npt.ArrayLike, name: str) -> Float32Array:
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] < 1 or (name == "centroids" and len(matrix) < 1):
        msg = f"{name} must have shape [rows, dimensions], got {matrix.shape}"
        raise ValueError(msg)
    if not np.isfinite(matrix).all():
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        msg = f"{name} has {len(bad)} rows with NaN or infinity, the first is row {bad[0]}: remove them first"
        raise ValueError(msg)
    return matrix


def _check_dims(x_ND: Float32Array, centroids_KD: Float32Array) -> None:
    if x_ND.shape[1] != centroids_KD.shape[1]:
        msg = f"x has {x_ND.shape[1]} dimensions, the centroids have {centroids_KD.shape[1]}"
        raise ValueError(msg)
