"""Residual k-means: vector → codes, coarse to fine, each level coding what the levels before left over.

Residuals are true residuals, never normalised, so the sum of a SID's centroids is a reconstruction of the vector (GRID normalises
before each level, which gives that up; RQ-Kmeans of OneRec does as here). A row's codes depend on that row and the codebooks
alone: no batch mates, no device, no thread count. Fitting gives the same codebooks for the same rows in the same order; pass
`order_N` to make it independent of how the rows happen to lie.

A warm start begins each level where the generation before left it: at the means, in the new vectors, of the rows that had each
code. Not at the centroids of that generation: behaviour and fusion are learned anew, so the same numbers lie elsewhere in another
space. Not done here: making SIDs unique (see `collisions`), storing (see `codebook`).

Shape suffixes: N rows, D dimensions, L levels, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.fit_input import as_rows, check_fit, check_values
from sidlake.tokenizers.numeric.kmeans import fit_kmeans, sums_by_code
from sidlake.tokenizers.numeric.nearest import Float32Array, Float64Array, Int32Array, Int64Array
from sidlake.tokenizers.quantizers.additive import AdditiveTokenizer, subtract_codes
from sidlake.tokenizers.settings import check_settings
from sidlake.tokenizers.tokenizer import ItemFacts, checked_rows

__all__ = ["ResidualKMeans", "ResidualKMeansConfig", "default_widths"]

_MAX_DEFAULT_WIDTH = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidualKMeansConfig:
    """How codebooks are fitted.

    Attributes:
        widths: Codes per level, coarse to fine.
        seed: Decides the sample and the starts; the only source of randomness.
        max_iterations: Lloyd iterations per level at most; `kmeans.fit_kmeans` says on which rows.
        tolerance: Stop a level when its centroids' summed squared shift is at most this share of the mean variance per dimension.
        max_fit_rows: Rows to fit on at most; beyond it a seeded sample is taken, by position in the stated order.
        device: Where distances are computed, ``cpu`` or ``cuda[:n]``; changes the speed, never the result, so artifacts omit it.
    """

    widths: tuple[int, ...]
    seed: int = 0
    max_iterations: int = 25
    tolerance: float = 1e-4
    max_fit_rows: int = 262_144
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)


def default_widths(num_items: int) -> tuple[int, int, int]:
    """Return three equal widths: the power of two nearest to ``2 * sqrt(num_items)``, at most 8192 and at most `num_items`.

    At least four SIDs per item from two items to 137 billion; a single item gets (1, 1, 1).

    >>> default_widths(4_631), default_widths(12_101), default_widths(1)
    ((128, 128, 128), (256, 256, 256), (1, 1, 1))
    """
    if num_items < 1:
        msg = f"num_items must be >= 1, got {num_items}"
        raise ValueError(msg)
    # floor(log2(2 sqrt(n)) + 1/2) in whole numbers, so that no platform's log2 decides at the borders.
    width = min(2 ** ((num_items.bit_length() + 2) // 2), _MAX_DEFAULT_WIDTH, num_items)
    return (width, width, width)


class ResidualKMeans(AdditiveTokenizer):
    """Fitted codebooks of one dimension: `encode` maps vectors to codes, `decode` sums centroids back to vectors."""

    kind = "residual_kmeans"
    warm_starts = True
    config_type = ResidualKMeansConfig

    def __init__(self, centroids: Sequence[Float32Array], counts: Sequence[Int64Array], config: ResidualKMeansConfig) -> None:
        super().__init__(centroids, counts, config)
        dims = [level.shape[1] for level in self.centroids]
        if len(set(dims)) != 1:
            msg = f"centroids must have one dimension at all levels, got {dims}"
            raise ValueError(msg)

    @classmethod
    def fit(
        cls,
        x_ND: npt.ArrayLike,
        config: ResidualKMeansConfig,
        *,
        facts: ItemFacts | None = None,
        order_N: npt.ArrayLike | None = None,
    ) -> Self:
        """Return codebooks fitted to the rows; `FitError` for NaN, infinity, a wrong shape, or fewer rows than codes of a level.

        `order_N` is the order in which to take the rows, such as ``np.argsort(item_hashes(ids))``: with it, shuffling the rows
        (and their ids) changes nothing. The same rows, order and config give the same bits on any device and number of threads.
        With ``facts.former_codes_NL`` the levels start from them; a level in which no row has a former code starts cold.
        Memory: 6 bytes per value of the rows fitted, at most `max_fit_rows` of them, and 250 MB at most for the start.
        """
        residual, order = _fit_rows(x_ND, config, order_N, cls)
        former_NL = _former_codes(facts, len(as_rows(x_ND)), len(config.widths))
        centroids, counts = [], []
        for level, width in enumerate(config.widths):
            fitted = fit_kmeans(
                residual,
                width,
                rng=np.random.default_rng([config.seed, level]),
                max_iterations=config.max_iterations,
                tolerance=config.tolerance,
                device=config.device,
                start_KD=None if former_NL is None else _warm_start(residual, former_NL[order, level], width),
            )
            centroids.append(fitted.centroids_KD)
            counts.append(fitted.counts_K)
            subtract_codes(residual, fitted.centroids_KD, fitted.codes_N)
        return cls(centroids, counts, config)

    def encode_with_norms(
        self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu"
    ) -> tuple[Int32Array, Float64Array]:
        """Return codes_NL, at each level the nearest centroid (ties to the lowest code), and the norms_N of what they leave over.

        `ValueError` for a wrong dimension or a value that is not finite. Both depend on the row alone, bit for bit.
        """
        return self._index_on(device).search(checked_rows(x_ND, self.dim))

    def encode(self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu") -> Int32Array:
        """Return the codes of `encode_with_norms`, a little sooner."""
        return self._index_on(device).search(checked_rows(x_ND, self.dim), norms=False)[0]


def _former_codes(facts: ItemFacts | None, num_rows: int, num_levels: int) -> Int32Array | None:
    former_NL = None if facts is None else facts.former_codes_NL
    if former_NL is not None and former_NL.shape != (num_rows, num_levels):
        msg = f"former codes must have shape {(num_rows, num_levels)}, one row per vector, got {former_NL.shape}"
        raise ValueError(msg)
    return former_NL


def _warm_start(x_ND: Float32Array, former_N: Int32Array, width: int) -> Float32Array | None:
    """Return the mean of the rows of each former code, and copies of one for codes without; None where no row has a code."""
    codes_N = np.where((former_N >= 0) & (former_N < width), former_N, width).astype(np.int32)
    counts_K = np.bincount(codes_N, minlength=width + 1)[:width]
    if not counts_K.any():
        return None
    means_KD = (sums_by_code(x_ND, codes_N, width + 1)[:width] / np.maximum(counts_K, 1)[:, None]).astype(np.float32)
    means_KD[counts_K == 0] = means_KD[counts_K.argmax()]
    return means_KD


def _fit_rows(
    x_ND: npt.ArrayLike, config: ResidualKMeansConfig, order_N: npt.ArrayLike | None, kind: type[ResidualKMeans]
) -> tuple[Float32Array, npt.NDArray[np.integer[Any]]]:
    """Return a copy of the rows to fit on, in the stated order, checked, and their numbers in that order."""
    x = check_fit(x_ND, config, kind)
    order = np.arange(len(x)) if order_N is None else np.asarray(order_N)
    if order.shape != (len(x),) or not np.array_equal(np.sort(order), np.arange(len(x))):
        msg = f"order must be a permutation of the {len(x)} rows, got shape {order.shape}"
        raise ValueError(msg)
    if len(x) > config.max_fit_rows:
        sample = np.random.default_rng([config.seed, len(config.widths)]).choice(len(x), size=config.max_fit_rows, replace=False)
        order = order[np.sort(sample)]
    rows = np.ascontiguousarray(x[order], dtype=np.float32)
    check_values(rows, order, kind)
    return rows, order
