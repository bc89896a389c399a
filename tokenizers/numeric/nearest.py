"""The exactly nearest code, the same whatever the chunking, batch size, number of threads or device.

A float32 matrix product is fast, but its last bits depend on the library, the threads and the rows beside a row. So it only
screens: a rigorous bound on its rounding error tells which codes can be nearest, and where more than one can, float64 distances
decide, summed in one stated order (`_fold_sum`). Exact ties go to the lowest code. Squared Euclidean distance only; no
approximate search.

Bound. With u = 2**-24 and gamma_n = n u / (1 - n u), a float32 dot product of D terms, in any order and with or without fused
multiply-add, is off by at most gamma_D |x||c| (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1). The score
fl(|c|²) - 2 fl(x·c) is then off by at most 2 (gamma_D + 2u) |x||c| + 3u |c|²; two scores further apart than twice that are in
order. Wide codebooks take fewer multiply-adds by the bounds of `pruned`.

Shape suffixes: N rows, D dimensions, K codes, P pairs of a row and a code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.threads import over_blocks, product_with

if TYPE_CHECKING:
    import torch

    from sidlake.tokenizers.numeric.nearest_pruned import PrunedBook

__all__ = ["NearestIndex", "ResidualIndex", "all_finite", "nearest_codes", "paired_squared_distances", "squared_distances_f64"]

_U32 = 2.0**-24
_U64 = 2.0**-53
_SCORES_PER_CHUNK = 2**21  # 8 MiB of float32 scores: inside the L2 and L3 caches of the CPUs of today
_BLOCK_ROWS = 512
_FUSED_CODES = 2048  # of all levels together; their products with each other then take 16 MiB at most
_SCORES_PER_BLOCK = 2**22  # 16 MiB of float32 scores
_WORTH_PRUNING = 2**36  # multiply-adds with one codebook at which turning it costs less than it saves
_SAMPLE_ROWS = 64  # that decide whether and how a codebook is pruned
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
    from sidlake.tokenizers.numeric import (
        nearest_loops as compiled,  # here, because Numba takes a second that readers need not spend
    )

    result = np.empty(len(rows_P))
    compiled.paired(x_ND, np.asarray(rows_P, dtype=np.int64), centroids_KD, np.asarray(codes_P, dtype=np.int64), result)
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
        self.largest_norm = float(norms.max())
        with np.errstate(over="ignore"):  # an infinite score is settled in float64 like any other doubt
            self.squared_norms_K = np.square(norms).astype(np.float32)
        self._first_K = _first_equal(self.centroids_KD)
        self.is_first_K = self._first_K == np.arange(len(self._first_K))
        self._on_device: tuple[torch.Tensor, torch.Tensor] | None = None
        self._stack: _Stack | None = None

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
        if self.device == "cpu":
            allowed = None if allowed_NK is None else np.ascontiguousarray(allowed_NK)
            self._stack = self._stack or _Stack([self])
            return _search_stacks([self._stack], x, allowed_NK=allowed, block=chunk)[0][:, 0]
        step = chunk or max(64, _SCORES_PER_CHUNK // len(self.centroids_KD))
        result = np.empty(len(x), dtype=np.int32)
        for start in range(0, len(x), step):
            part = slice(start, start + step)
            result[part] = self._search_chunk(x[part], None if allowed_NK is None else allowed_NK[part])
        return result

    def _search_chunk(self, x_ND: Float32Array, allowed_NK: BoolArray | None) -> Int64Array:
        if allowed_NK is None and not self.is_first_K.all():
            allowed_NK = np.broadcast_to(self.is_first_K, (len(x_ND), len(self.is_first_K)))
        slack_N = self._slack(x_ND)
        best_N, rows_P, codes_P = self._screen_torch(x_ND, allowed_NK, slack_N)
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
        largest = self.largest_norm * 1.01 + 1e-15
        one_score = 2 * (gamma + 2 * _U32) * norms_N * largest + 3 * _U32 * largest**2
        in_float64 = (num_dims + 8) * _U64 * (norms_N + largest) ** 2
        slack_N: Float64Array = 2.02 * (one_score + in_float64)
        slack_N[(norms_N + largest) ** 2 > 1e37] = np.inf
        return slack_N

    def _screen_torch(self, x_ND: Float32Array, allowed_NK: BoolArray | None, slack_N: Float64Array) -> _Screened:
        import torch  # here, because it takes three seconds that searches on the CPU need not spend

        if self._on_device is None:
            twice, norms = (
                torch.from_numpy(np.ascontiguousarray(-2.0 * self.centroids_KD.T)),
                torch.from_numpy(self.squared_norms_K),
            )
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
        if self.is_first_K.all():
            return rows_P, codes_P
        _, kept = np.unique(rows_P * len(self._first_K) + self._first_K[codes_P], return_index=True)
        kept.sort()
        return rows_P[kept], codes_P[kept]


class ResidualIndex:
    """Codebooks made ready for residual search: level by level the nearest centroid to what the levels before leave.

    Each level subtracts its centroid in float32. On the CPU narrow levels share one product: what a level leaves is never formed,
    because its scores are those of the row itself plus twice the products of the centroids (`2 c·c'`). The codes are the same.
    """

    def __init__(self, centroids: Sequence[npt.ArrayLike], *, device: str = "cpu") -> None:
        self.levels = [NearestIndex(level, device=device) for level in centroids]
        self.device = device
        fused = len(self.levels) > 1 and sum(len(level.centroids_KD) for level in self.levels) <= _FUSED_CODES
        self._stacks = [_Stack(self.levels)] if fused else [_Stack([level]) for level in self.levels]

    def search(self, x_ND: npt.ArrayLike, *, norms: bool = True) -> tuple[Int32Array, Float64Array]:
        """Return codes_NL, ties to the lowest code, and norms_N of what the last level leaves, float64 (zeros without `norms`).

        Both depend on the row and the centroids alone, bit for bit. `ValueError` for a wrong dimension. Values must be finite:
        `tokenizer.checked_rows` sees to that.
        """
        x = np.ascontiguousarray(x_ND, dtype=np.float32)
        _check_dims(x, self.levels[0].centroids_KD)
        if self.device == "cpu":
            return _search_stacks(self._stacks, x, norms=norms)
        codes, residual = np.empty((len(x), len(self.levels)), dtype=np.int32), x
        for level, index in enumerate(self.levels):
            codes[:, level] = index.search(residual)
            if level + 1 < len(self.levels):
                residual = residual - index.centroids_KD[codes[:, level]]
        if not norms:
            return codes, np.zeros(len(x))
        return codes, np.sqrt(paired_squared_distances(residual, np.arange(len(x)), index.centroids_KD, codes[:, -1]))


class _Stack:
    """Levels that are searched together, as the arrays that `compiled.decide` reads."""

    def __init__(self, levels: Sequence[NearestIndex]) -> None:
        self.books_KD = np.concatenate([level.centroids_KD for level in levels])
        self.starts_L = np.cumsum([0, *(len(level.centroids_KD) for level in levels)])
        self.twice_DK: Float32Array = np.ascontiguousarray(np.float32(-2.0) * self.books_KD.T)
        self.largest_L = np.array([level.largest_norm for level in levels])
        self.squared_norms_K = np.concatenate([level.squared_norms_K for level in levels])
        self.first_K = np.concatenate([level.is_first_K for level in levels])
        self.norms_of_first_K = np.where(self.first_K, self.squared_norms_K, np.float32(np.inf))
        books_64 = self.books_KD.astype(np.float64)
        with np.errstate(over="ignore"):
            self.gram_KK = (2.0 * books_64 @ books_64.T).astype(np.float32) if len(levels) > 1 else np.zeros((1, 1), np.float32)
        self.pruned: PrunedBook | None = None
        self.pruning_tried = len(levels) > 1

    def prune(self, sample_ND: Float32Array) -> None:
        """Prune the search from now on where the sample says that it pays: no code depends on it."""
        from sidlake.tokenizers.numeric import nearest_pruned as pruned  # here, because it takes Numba

        turned = pruned.Turned(self.books_KD)
        lead = pruned.cheapest_lead(turned, self.norms_of_first_K, sample_ND)
        if lead is not None:
            norms_K, usable_K = self.norms_of_first_K, self.first_K
            self.pruned = pruned.PrunedBook(self.books_KD, turned, lead, squared_norms_K=norms_K, usable_K=usable_K)
        self.pruning_tried = True


def _prune(stacks: Sequence[_Stack], x_ND: Float32Array) -> None:
    """Prune the stacks that so many rows make it worth trying for, with some of the rows and what each level leaves of them."""
    worth = [not stack.pruning_tried and len(x_ND) * stack.books_KD.size >= _WORTH_PRUNING for stack in stacks]
    sample_SD = x_ND[:: max(1, len(x_ND) // _SAMPLE_ROWS)]
    for number, stack in enumerate(stacks):
        if not any(worth[number:]):
            return
        if worth[number]:
            stack.prune(sample_SD)
        codes_SL, _ = _search_stacks([stack], sample_SD)
        with np.errstate(over="ignore"):
            sample_SD = sample_SD - stack.books_KD[codes_SL[:, 0]]


def _search_stacks(
    stacks: Sequence[_Stack],
    x_ND: Float32Array,
    *,
    allowed_NK: BoolArray | None = None,
    norms: bool = False,
    block: int | None = None,
) -> tuple[Int32Array, Float64Array]:
    """Return codes_NL and, with `norms`, norms_N, on the CPU; `allowed_NK` is for a single level."""
    from sidlake.tokenizers.numeric import (
        nearest_loops as compiled,  # here, because Numba takes a second that readers need not spend
    )

    if allowed_NK is None:
        _prune(stacks, x_ND)
    pruned = [stack.pruned if allowed_NK is None else None for stack in stacks]
    num_dims = x_ND.shape[1]
    widest = max(book.width if book else len(stack.books_KD) for book, stack in zip(pruned, stacks, strict=True))
    block = block or min(_BLOCK_ROWS, max(64, _SCORES_PER_BLOCK // widest))
    multiply_adds = len(x_ND) * num_dims * sum(len(stack.books_KD) for stack in stacks)
    columns = np.cumsum([0, *(len(stack.starts_L) - 1 for stack in stacks)])
    codes_NL, squared_N = np.empty((len(x_ND), columns[-1]), dtype=np.int32), np.zeros(len(x_ND))

    def worker() -> Callable[[int, int], None]:
        products = [product_with(stack.twice_DK, multiply_adds=multiply_adds) for stack in stacks]
        searches = [book.search(block, multiply_adds=multiply_adds) if book else None for book in pruned]
        work_BD, norms_B = np.empty((block, num_dims), np.float32), np.empty(block, np.float32)
        scores = np.empty(block * widest, np.float32)

        def work(start: int, stop: int) -> None:
            rows_BD = work_BD[: stop - start]
            compiled.take(x_ND[start:stop], rows_BD, norms_B)
            for number, (stack, product) in enumerate(zip(stacks, products, strict=True)):
                codes_BL = codes_NL[start:stop, columns[number] : columns[number + 1]]
                if number:
                    compiled.subtract(rows_BD, stacks[number - 1].books_KD, codes_NL[start:stop, columns[number] - 1], norms_B)
                if (search := searches[number]) is not None:
                    codes_BL[:, 0] = search(rows_BD, norms_B, scores)
                    continue
                scores_BK = scores[: len(rows_BD) * len(stack.books_KD)].reshape(len(rows_BD), -1)
                with np.errstate(over="ignore", invalid="ignore"):  # rows that could overflow are settled in float64
                    product(rows_BD, scores_BK)
                usable_RK, norms_K = stack.first_K[None], stack.norms_of_first_K
                if allowed_NK is not None:
                    usable_RK, norms_K = allowed_NK[start:stop], stack.squared_norms_K
                    np.copyto(scores_BK, np.inf, where=~usable_RK)
                compiled.decide(
                    *(scores_BK, rows_BD, norms_B, stack.books_KD, stack.starts_L, norms_K),
                    *(stack.gram_KK, usable_RK, stack.largest_L, codes_BL),
                )
            if norms:
                compiled.last_distances(rows_BD, stack.books_KD, stack.starts_L, codes_BL, squared_N[start:stop])

        return work

    over_blocks(len(x_ND), block, worker, multiply_adds=multiply_adds)
    return codes_NL, np.sqrt(squared_N)


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


def all_finite(x_ND: Float32Array) -> bool:
    """Return whether no value is NaN or infinite: a product with ones shows it, unless that overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums_N = x_ND @ np.ones(x_ND.shape[1], dtype=np.float32)
    return bool(np.isfinite(sums_N).all() or np.isfinite(x_ND).all())


def _as_matrix(values: npt.ArrayLike, name: str) -> Float32Array:
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    if matrix.ndim != 2 or matrix.shape[1] < 1 or (name == "centroids" and len(matrix) < 1):
        msg = f"{name} must have shape [rows, dimensions], got {matrix.shape}"
        raise ValueError(msg)
    if not all_finite(matrix):
        bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        msg = f"{name} has {len(bad)} rows with NaN or infinity, the first is row {bad[0]}: remove them first"
        raise ValueError(msg)
    return matrix


def _check_dims(x_ND: Float32Array, centroids_KD: Float32Array) -> None:
    if x_ND.shape[1] != centroids_KD.shape[1]:
        msg = f"x has {x_ND.shape[1]} dimensions, the centroids have {centroids_KD.shape[1]}"
        raise ValueError(msg)
