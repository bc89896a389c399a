"""Balanced residual k-means: every code of a level gets the same number of the fit's items (OneRec, arXiv 2502.18965, algorithm 1).

As published, each level has w = N / K items per cluster, and assignment and means alternate until stable. Two things differ. The
published assignment serves clusters in turn, each taking its w nearest items of those left: the last ones get what nobody wanted,
and a row's code depends on all other rows. Here it is the equal-sized assignment of least total distance, which is nearest centroid
with a price per code (see `balanced_transport`); prices are kept, so `encode` gives the rows of the fit their balanced codes, and
new rows theirs by the same rule. And the start is that of k-means, not random items. Sizes differ by at most one, the first codes
being the larger ones, but for copies of a row, which always share a code.

A price is one more coordinate per level, 0 in every row: its square is what the code costs more. With these coordinates in the
latent space, uniqueness strategies and norms see the same rule; `decode` leaves them out.

Above `exact_rows` rows, centroids and prices are learned from so many, evenly spaced; passes over all rows, which need no more than
the nearest codes, then correct the prices. Sizes are near equal then, not equal. On Beauty's 12,101 items and 3 × 256 codes every
code of every level gets 47 or 48 items; with `exact_rows` at 4,000, 44 to 51.

Shape suffixes: N rows, D dimensions, L levels, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.fit_input import fit_rows
from sidlake.tokenizers.numeric.balanced_prices import annealed_prices, balanced_prices, equal_sizes, margin, stepped_prices
from sidlake.tokenizers.numeric.exact_product import exact_product
from sidlake.tokenizers.numeric.kmeans import fit_kmeans
from sidlake.tokenizers.numeric.nearest import (
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    NearestIndex,
    squared_distances_f64,
)
from sidlake.tokenizers.quantizers.additive import AdditiveTokenizer, code_means, subtract_codes
from sidlake.tokenizers.settings import check_settings
from sidlake.tokenizers.tokenizer import ItemFacts, checked_rows

__all__ = ["BalancedKMeans", "BalancedKMeansConfig"]

_START_ITERATIONS = 10
_EXACT_ROUNDS = 2
_PASSES = 30  # over all rows, where they are too many for exact sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class BalancedKMeansConfig:
    """How codebooks are fitted.

    Attributes:
        widths: Codes per level, coarse to fine.
        seed: Decides the sample and the starts; the only source of randomness.
        max_iterations: Rounds of assignment and means per level at most.
        exact_rows: Rows up to which sizes are exact; the fit holds 20 bytes per such row and code of a level.
        max_fit_rows: Rows to fit on at most; beyond it a seeded sample is taken, by position in the order given.
        device: Where nearest codes are searched, ``cpu`` or ``cuda[:n]``; changes the speed, never the result.
    """

    widths: tuple[int, ...]
    seed: int = 0
    max_iterations: int = 6
    exact_rows: int = 65_536
    max_fit_rows: int = 262_144
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)
        if self.exact_rows < max(self.widths):
            msg = f"exact_rows must be >= the widest level ({max(self.widths)}), got {self.exact_rows}"
            raise ValueError(msg)


class BalancedKMeans(AdditiveTokenizer):
    """Centroids per level, and per code the square root of its price.

    Attributes:
        offsets: One float32 [K] array per level: a code's coordinate in the dimension of its level's price.
    """

    kind = "balanced_kmeans"
    farthest = 20.0  # every code takes its share of rows, so a far row's code takes others with it: at 28 three times the error
    config_type = BalancedKMeansConfig

    def __init__(
        self,
        centroids: Sequence[Float32Array],
        counts: Sequence[Int64Array],
        offsets: Sequence[Float32Array],
        config: BalancedKMeansConfig,
    ) -> None:
        self.offsets = tuple(np.ascontiguousarray(level, dtype=np.float32) for level in offsets)
        if [level.shape for level in self.offsets] != [(width,) for width in config.widths]:
            msg = f"offsets {[level.shape for level in self.offsets]} do not fit the widths {config.widths}"
            raise ValueError(msg)
        super().__init__(centroids, counts, config)

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: BalancedKMeansConfig, *, facts: ItemFacts | None = None) -> Self:
        """Return codebooks fitted to the rows; `FitError` for NaN, infinity, a wrong shape, or fewer rows than codes of a level.

        The same rows, order and config give the same bits on any device and number of threads. Memory: 9 bytes per value of the
        rows, 4 more where they are a sample or not float32, and what `BalancedKMeansConfig.exact_rows` says.
        """
        rows_ND, _ = fit_rows(x_ND, config, cls)
        # To and from a scale near 1 by powers of two, which changes no bit: squares of 1e-30 are no float32.
        exponent = int(np.frexp(max(rows_ND.max(), -rows_ND.min()))[1])
        residual = np.ldexp(rows_ND, -exponent)
        centroids, counts, offsets = [], [], []
        for level, width in enumerate(config.widths):
            centroids_KD, prices_K = _fit_level(residual, width, np.random.default_rng([config.seed, level]), config)
            codes_N = _Priced(residual, centroids_KD, config.device)(prices_K)
            centroids.append(np.ldexp(centroids_KD, exponent))
            offsets.append(np.ldexp(_offsets(prices_K), exponent))
            counts.append(np.bincount(codes_N, minlength=width))
            subtract_codes(residual, centroids_KD, codes_N)
        return cls(centroids, counts, offsets, config)

    def latents(self, x_ND: npt.ArrayLike) -> Float32Array:
        """Return z_NE, the vectors and a 0 per level, the coordinates of its prices."""
        return _widened(checked_rows(x_ND, self.dim), len(self.widths))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return ``centroids.<level>``, ``counts.<level>``, then ``offsets.<level>``."""
        return super().tensors() | {f"offsets.{level}": values for level, values in enumerate(self.offsets)}

    @classmethod
    def from_tensors(cls, config: BalancedKMeansConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the tokenizer of which `tensors` came."""
        names, levels = ("centroids", "counts", "offsets"), range(len(config.widths))
        centroids, counts, offsets = ([tensors[f"{name}.{level}"] for level in levels] for name in names)
        return cls(centroids, counts, offsets, config)

    def _in_latent_space(self) -> tuple[Float32Array, ...]:
        widened = tuple(_widened(level, len(self.centroids)) for level in self.centroids)
        for level, offsets_K in enumerate(self.offsets):
            widened[level][:, self.dim + level] = offsets_K
        return widened

    def _to_input(self, z_NE: Float32Array) -> Float32Array:
        return np.ascontiguousarray(z_NE[:, : self.dim])


def _fit_level(
    x_ND: Float32Array, width: int, rng: np.random.Generator, config: BalancedKMeansConfig
) -> tuple[Float32Array, Float64Array]:
    """Return centroids_KD and prices_K: rounds of near-equal assignment and means, then prices that make sizes equal."""
    few_ND = x_ND[np.arange(config.exact_rows) * len(x_ND) // config.exact_rows] if len(x_ND) > config.exact_rows else x_ND
    start = fit_kmeans(few_ND, width, rng=rng, max_iterations=_START_ITERATIONS, tolerance=1e-3, device=config.device)
    centroids_KD, codes_N, sizes_K = start.centroids_KD, start.codes_N, equal_sizes(len(few_ND), width)
    for _ in range(config.max_iterations):
        before, costs_NK = codes_N, _costs(few_ND, centroids_KD)
        codes_N = (
            (costs_NK + annealed_prices(costs_NK, sizes_K, coldest=0.2, cooling=4.0, rounds=5)).argmin(axis=1).astype(np.int32)
        )
        if np.array_equal(before, codes_N):
            break
        centroids_KD = code_means(few_ND, codes_N, centroids_KD)
    for last in range(_EXACT_ROUNDS):
        costs_NK = _costs(few_ND, centroids_KD)
        prices_K, exact_N = balanced_prices(costs_NK, sizes_K)
        if last + 1 < _EXACT_ROUNDS:
            centroids_KD = code_means(few_ND, exact_N.astype(np.int32), centroids_KD)
    if len(x_ND) > len(few_ND):
        assign, scale = _Priced(x_ND, centroids_KD, config.device), margin(costs_NK + prices_K)
        prices_K = stepped_prices(assign, equal_sizes(len(x_ND), width), prices_K, scale=scale, steps=_PASSES)
    return centroids_KD, prices_K


class _Priced:
    """The assignment by the search that `encode` makes: the last word on what code a row gets."""

    def __init__(self, x_ND: Float32Array, centroids_KD: Float32Array, device: str) -> None:
        self._widened_ND = _widened(x_ND, 1)
        self._centroids_KD = centroids_KD
        self._device = device

    def __call__(self, prices_K: Float64Array) -> Int32Array:
        """Return codes_N, the least of squared distance plus price."""
        index = NearestIndex(np.hstack([self._centroids_KD, _offsets(prices_K)[:, None]]), device=self._device)
        return index.search(self._widened_ND)


def _costs(x_ND: Float32Array, centroids_KD: Float32Array) -> Float64Array:
    """Return costs_NK, squared distances less each row's own squared norm, the same bits on any number of threads."""
    costs_NK = exact_product(x_ND, centroids_KD.T)
    costs_NK *= -2.0
    costs_NK += squared_distances_f64(centroids_KD, np.zeros((1, centroids_KD.shape[1])))[:, 0]
    return costs_NK


def _offsets(prices_K: Float64Array) -> Float32Array:
    """Return the roots of the prices above the lowest."""
    offsets: Float32Array = np.sqrt(prices_K - prices_K.min()).astype(np.float32)
    return offsets


def _widened(x_ND: Float32Array, num_columns: int) -> Float32Array:
    return np.hstack([x_ND, np.zeros((len(x_ND), num_columns), dtype=np.float32)])
