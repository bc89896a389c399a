"""One level of k-means: greedy k-means++ start, Lloyd iterations, first on a sample, dead codes revived at the farthest points.

The same rows and seed give the same centroids, bit for bit, on any number of threads and on CPU or CUDA, because nothing that
decides depends on rounding in a library: codes are exact (`nearest`), sums run in float64 in a stated order (`sums_by_code`), and
the start works on whole numbers whose products float64 holds exactly (`_as_integers`).

The start draws candidates in blocks, so that distances are matrix products: a block is drawn from one distribution, and a
candidate is kept with the probability ratio of the present distribution to that one, which makes it a draw from the present one.
Each kept seed is the best of a few draws (greedy k-means++; Arthur & Vassilvitskii 2007, section 6). Not done: mini-batches,
whole fits repeated from several starts.

Shape suffixes: N rows, D dimensions, K codes, S rows sampled for the start, W seeds wanted of a block, T trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.nearest import (
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    ResidualIndex,
    paired_squared_distances,
    squared_distances_f64,
)

__all__ = ["KMeans", "fit_kmeans", "sums_by_code"]

_SEED_ROWS_PER_CODE = 32
_MAX_SEED_ROWS = 65_536
_NUM_STARTS = 3
_COARSE_ROWS_PER_CODE = 64
_MAX_DISTANCES = 2**24  # 128 MiB of float64
_SUM_ROWS = 16_384  # part of the stated order of summation: changing it changes the last bits of every codebook
_MAX_REVIVALS_AFTER = 8
_MIN_POOL_ROWS = 16_384

_Distances = Callable[[Int64Array], Float64Array]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KMeans:
    """A fitted level: its centroids, each row's code, rows per code, and the Lloyd iterations that it took."""

    centroids_KD: Float32Array
    codes_N: Int32Array
    counts_K: Int64Array
    num_iterations: int


def fit_kmeans(
    x_ND: Float32Array,
    num_codes: int,
    *,
    rng: np.random.Generator,
    max_iterations: int,
    tolerance: float,
    device: str = "cpu",
    start_KD: Float32Array | None = None,
) -> KMeans:
    """Return `num_codes` centroids of the rows, in float32; needs at least `num_codes` finite rows.

    With `start_KD` the iterations start from these centroids instead of greedy k-means++; copies of one are revived elsewhere.

    With more than 128 rows per code, 32 % of `max_iterations` run on a quarter of the rows (64 per code at least), then 8 % on
    all. Both stop when the centroids' summed squared shift is at most `tolerance` × the mean variance per dimension (the rule of
    scikit-learn). With fewer distinct rows than codes the codes left over copy code 0: no row ever gets them. Memory: 2 bytes per
    value of `x_ND` beside it, and 250 MB at most for the start.
    """
    num_iterations, num_sampled = 0, max(_COARSE_ROWS_PER_CODE * num_codes, len(x_ND) // 4)
    many = num_sampled <= len(x_ND) // 2
    rows_per_code = _SEED_ROWS_PER_CODE // 2 if many else _SEED_ROWS_PER_CODE
    centroids = _best_start(x_ND, num_codes, rng, rows_per_code=rows_per_code) if start_KD is None else start_KD
    limit = tolerance * _mean_variance(x_ND)
    if many:
        sampled = x_ND[_sample(len(x_ND), num_sampled, rng)]
        centroids, num_iterations = _iterate(sampled, centroids, math.ceil(max_iterations * 0.32), limit, device)
        max_iterations = math.ceil(max_iterations * 0.08)
    centroids, num_fine = _iterate(x_ND, centroids, max_iterations, limit, device)
    codes = _nearest(x_ND, centroids, device)
    for _ in range(_MAX_REVIVALS_AFTER):
        if _revive(centroids, x_ND, codes, centroids) == 0:
            break
        codes = _nearest(x_ND, centroids, device)
    counts = np.bincount(codes, minlength=num_codes).astype(np.int64)
    centroids[counts == 0] = centroids[0]
    codes = codes if counts.all() else _nearest(x_ND, centroids, device)
    return KMeans(
        centroids_KD=centroids,
        codes_N=codes,
        counts_K=np.bincount(codes, minlength=num_codes).astype(np.int64),
        num_iterations=num_iterations + num_fine,
    )


def _iterate(
    x_ND: Float32Array, centroids_KD: Float32Array, max_iterations: int, limit: float, device: str
) -> tuple[Float32Array, int]:
    """Return the centroids after Lloyd iterations, and how many: the last one moved them by `limit` at most, or it was the last."""
    for iteration in range(1, max_iterations + 1):
        codes = _nearest(x_ND, centroids_KD, device)
        updated = _means(x_ND, codes, centroids_KD)
        num_revived = _revive(updated, x_ND, codes, centroids_KD)
        shift = float(np.square(updated.astype(np.float64) - centroids_KD).sum())
        centroids_KD = updated
        if num_revived == 0 and shift <= limit:
            return centroids_KD, iteration
    return centroids_KD, max_iterations


def _nearest(x_ND: Float32Array, centroids_KD: Float32Array, device: str) -> Int32Array:
    return ResidualIndex([centroids_KD], device=device).search(x_ND, norms=False)[0][:, 0]


def _means(x_ND: Float32Array, codes_N: Int32Array, previous_KD: Float32Array) -> Float32Array:
    """Return the mean of each code's rows, and the previous centroid of codes without rows."""
    num_codes = len(previous_KD)
    counts = np.bincount(codes_N, minlength=num_codes)
    sums = sums_by_code(x_ND, codes_N, num_codes)
    means: Float32Array = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], previous_KD).astype(np.float32)
    return means


def sums_by_code(x_ND: Float32Array, codes_N: Int32Array, num_codes: int) -> Float64Array:
    """Return each code's sum of rows in float64: rows ascending within blocks of `_SUM_ROWS`, blocks ascending."""
    from sidlake.tokenizers.numeric import (
        nearest_loops as compiled,  # here, because Numba takes a second that readers need not spend
    )

    sums = np.zeros((num_codes, x_ND.shape[1]))
    for start in range(0, len(x_ND), _SUM_ROWS):
        block = np.zeros_like(sums)
        compiled.add_rows(x_ND[start : start + _SUM_ROWS], codes_N[start : start + _SUM_ROWS], block)
        sums += block
    return sums


def _mean_variance(x_ND: Float32Array) -> float:
    """Return the variance per dimension, averaged, from float64 sums in the order of `sums_by_code`."""
    one_code = np.zeros(len(x_ND), dtype=np.int32)
    mean = (sums_by_code(x_ND, one_code, 1) / len(x_ND)).astype(np.float32)
    squared = paired_squared_distances(x_ND, np.arange(len(x_ND)), mean, one_code)
    return math.fsum(squared.tolist()) / x_ND.size


def _revive(target_KD: Float32Array, x_ND: Float32Array, codes_N: Int32Array, centroids_KD: Float32Array) -> int:
    """Move codes without rows in `target_KD` to the rows farthest from their centroid; return how many were moved.

    Farthest first, each next row the farthest from its centroid and from those already taken; ties go to the earlier row. Ends
    early when every row left coincides with a centroid. Looks at all rows up to 16,384, beyond that at so many, half of them the
    farthest and half spread evenly over the others: the very farthest alone tend to be one cluster.
    """
    dead = np.flatnonzero(np.bincount(codes_N, minlength=len(target_KD)) == 0)
    if not len(dead):
        return 0
    squared = paired_squared_distances(x_ND, np.arange(len(x_ND)), centroids_KD, codes_N)
    ranked = np.argsort(-squared, kind="stable")
    size = min(max(_MIN_POOL_ROWS, 2 * len(dead)), len(ranked))
    half = size // 2
    others = half + np.arange(size - half) * (len(ranked) - half) // (size - half)
    pool = np.concatenate([ranked[:half], ranked[others]])
    x_pool, squared_pool = x_ND[pool], squared[pool]
    for revived, code in enumerate(dead):
        farthest = int(squared_pool.argmax())
        if squared_pool[farthest] == 0:
            return revived
        target_KD[code] = x_pool[farthest]
        np.minimum(squared_pool, squared_distances_f64(x_pool, x_pool[farthest : farthest + 1])[:, 0], out=squared_pool)
    return len(dead)


def _best_start(x_ND: Float32Array, num_codes: int, rng: np.random.Generator, *, rows_per_code: int) -> Float32Array:
    """Return `num_codes` rows as starting centroids: the best of `_NUM_STARTS` starts; where distinct rows run out, copies of one.

    Three, because a start may miss a cluster for good: on 64 well separated clusters one start's final inertia was 1.06 ×
    scikit-learn's on average and 1.40 × at worst, the best of three 0.90 × and 1.00 × (12 data sets).
    """
    rows = _sample(len(x_ND), min(max(rows_per_code * num_codes, 4096), _MAX_SEED_ROWS), rng)
    x_SD = _as_integers(x_ND[rows])
    distances = _distances_from(x_SD)
    starts = [_Start(distances, int(rng.integers(len(rows)))) for _ in range(_NUM_STARTS)]
    num_trials = 2 + int(math.log(num_codes))
    most = max(1, _MAX_DISTANCES // (len(rows) * num_trials * _NUM_STARTS))
    while growing := [start for start in starts if len(start.seeds) < num_codes and start.weights_S.any()]:
        drawn = [start.draw(min(most, num_codes - len(start.seeds)), num_trials, rng) for start in growing]
        # One product for all starts: the time goes into reading x_SD.
        distances_TS = distances(np.concatenate([rows_WT.ravel() for rows_WT in drawn]))
        for start, rows_WT in zip(growing, drawn, strict=True):
            start.keep(rows_WT, distances_TS[: rows_WT.size], rng)
            distances_TS = distances_TS[rows_WT.size :]
    seeds = min(starts, key=lambda start: float(start.weights_S.sum())).seeds
    return np.ascontiguousarray(x_ND[rows[seeds + [seeds[0]] * (num_codes - len(seeds))]])


class _Start:
    """Seeds chosen so far and, per sampled row, the squared distance to the nearest of them."""

    def __init__(self, distances: _Distances, first: int) -> None:
        self.seeds = [first]
        self.weights_S = distances(np.array(self.seeds))[0]

    def draw(self, most: int, num_trials: int, rng: np.random.Generator) -> Int64Array:
        """Return rows_WT: for each of up to `most` new seeds, trials drawn in proportion to `weights_S`."""
        shape = (max(1, min(most, len(self.seeds) // 16)), num_trials)
        cumulative = np.cumsum(self.weights_S)
        drawn = np.searchsorted(cumulative, rng.random(shape) * cumulative[-1], side="right")
        rows_WT: Int64Array = np.minimum(drawn, np.flatnonzero(self.weights_S)[-1])
        return rows_WT

    def keep(self, rows_WT: Int64Array, distances_TS: Float64Array, rng: np.random.Generator) -> None:
        """Add the best trial of each new seed, unless an earlier one of this block has made it an unlikely draw."""
        num_trials = rows_WT.shape[1]
        before = self.weights_S.copy()
        np.minimum(distances_TS, before, out=distances_TS)
        best = distances_TS.sum(axis=1).reshape(rows_WT.shape).argmin(axis=1)
        for group, trial in enumerate(best.tolist()):
            row = int(rows_WT[group, trial])
            if rng.random() * before[row] < self.weights_S[row]:
                self.seeds.append(row)
                np.minimum(self.weights_S, distances_TS[group * num_trials + trial], out=self.weights_S)


def _distances_from(x_SD: Float64Array) -> _Distances:
    """Return what gives squared_TS from rows to all rows, from one table where that takes 128 MiB at most."""
    norms_S = np.einsum("sd,sd->s", x_SD, x_SD)
    if len(x_SD) ** 2 > _MAX_DISTANCES:
        return lambda rows_T: _integer_distances(x_SD, norms_S, rows_T)
    table_SS: Float64Array = x_SD @ np.ascontiguousarray(x_SD.T)  # not `x_SD.T`: NumPy mirrors a symmetric product slowly
    table_SS *= -2.0
    table_SS += norms_S
    table_SS += norms_S[:, None]
    return lambda rows_T: np.take(table_SS, rows_T, axis=0)


def _integer_distances(x_SD: Float64Array, norms_S: Float64Array, rows: npt.ArrayLike) -> Float64Array:
    """Return squared_TS from `rows` to all rows: exact whole numbers, see `_as_integers`."""
    chosen = np.asarray(rows)
    squared_TS: Float64Array = x_SD[chosen] @ x_SD.T
    squared_TS *= -2.0
    squared_TS += norms_S
    squared_TS += norms_S[chosen, None]
    return squared_TS


def _as_integers(x_SD: Float32Array) -> Float64Array:
    """Return the rows scaled and rounded to whole numbers so small that all their squared distances sum to less than 2**53.

    Every product and sum below is then exact in float64, in any order: 14 bits for 16,384 rows of 384 dimensions. Rows that fall
    together are one row to the start; should that leave a code without rows, `_revive` finds it some.
    """
    bits = (51 - math.ceil(math.log2(x_SD.size))) // 2
    largest = float(np.abs(x_SD).max())
    if largest == 0:
        return x_SD.astype(np.float64)
    return np.rint(np.ldexp(x_SD.astype(np.float64), bits - math.frexp(largest)[1]))


def _sample(num_rows: int, wanted: int, rng: np.random.Generator) -> Int64Array:
    if num_rows <= wanted:
        return np.arange(num_rows)
    return np.sort(rng.choice(num_rows, size=wanted, replace=False))
