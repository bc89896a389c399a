"""What a tokenizer's codes add to a latent, ready for nearest-code search: shared by a level, or made per prefix.

Both kinds answer for many rows at once, each row under a prefix of its own, and a row's answer depends on that row alone.

Shape suffixes: C rows of a latent space of D dimensions, L levels, P codes of a prefix, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from sidlake.tokenizers.numeric.nearest import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    NearestIndex,
    paired_squared_distances,
)

__all__ = ["Implicit", "Levels"]

_MAX_INDEXES = 256  # prefixes whose candidates are kept
_VALUES_PER_PART = 2**16  # 0.25 MiB of float32, 0.5 MiB of float64: what is worked on stays in the L2 cache


class Levels:
    """What codes add where it depends on the level alone."""

    prefixes_at_once: int | None = None  # any number

    def __init__(self, centroids: Sequence[Float32Array]) -> None:
        self.widths = tuple(len(level) for level in centroids)
        self.dim = centroids[0].shape[1]
        self._indexes = [NearestIndex(level) for level in centroids]

    def index(self, prefix: Sequence[int]) -> NearestIndex:
        """Return the codes of the level after `prefix`, ready for search."""
        return self._indexes[len(prefix)]

    def search(self, residual_CD: Float32Array, prefixes_CP: Int32Array, allowed_CK: BoolArray) -> Int32Array:
        """Return codes_C of the level after the prefixes, the nearest that are allowed."""
        return self._indexes[prefixes_CP.shape[1]].search(residual_CD, allowed_NK=allowed_CK)

    def step(self, residual_CD: Float32Array, level: int, codes_CL: Int32Array) -> Float32Array:
        """Return what code ``codes_CL[:, level]`` leaves of the residuals."""
        left: Float32Array = residual_CD - self._indexes[level].centroids_KD[codes_CL[:, level]]
        return left

    def last_norms(self, residual_CD: Float32Array, codes_CL: Int32Array) -> Float64Array:
        """Return the norms of what the last codes leave of the residuals before the last level."""
        squared_C, rows = np.empty(len(residual_CD)), np.arange(_rows_per_part(self.dim))
        for part in _parts(len(residual_CD), self.dim):
            x, codes = residual_CD[part], codes_CL[part, -1]
            squared_C[part] = paired_squared_distances(x, rows[: len(x)], self._indexes[-1].centroids_KD, codes)
        return np.sqrt(squared_C)


class Implicit:
    """What codes add where it depends on the codes before them: made per prefix, when it is asked for.

    Slower than levels that share their codes: the resolver computes the candidates of each colliding prefix.
    """

    def __init__(self, increments: Callable[[Sequence[int]], Float32Array], widths: tuple[int, ...], dim: int) -> None:
        self.widths = widths
        self.dim = dim
        self.prefixes_at_once: int | None = max(1, _MAX_INDEXES // len(widths))  # they and the prefixes before them are kept
        self._increments = increments
        self._indexes: dict[tuple[int, ...], NearestIndex] = {}

    def index(self, prefix: Sequence[int]) -> NearestIndex:
        """Return the codes after `prefix`, ready for search."""
        key = tuple(int(code) for code in prefix)
        if key not in self._indexes:
            if len(self._indexes) >= _MAX_INDEXES:
                self._indexes.clear()
            self._indexes[key] = NearestIndex(self._increments(key))
        return self._indexes[key]

    def search(self, residual_CD: Float32Array, prefixes_CP: Int32Array, allowed_CK: BoolArray) -> Int32Array:
        """Return codes_C of the level after the prefixes, the nearest that are allowed."""
        found = np.empty(len(residual_CD), dtype=np.int32)
        for prefix, rows in _by_prefix(prefixes_CP):
            found[rows] = self.index(prefix).search(residual_CD[rows], allowed_NK=allowed_CK[rows])
        return found

    def step(self, residual_CD: Float32Array, level: int, codes_CL: Int32Array) -> Float32Array:
        """Return what code ``codes_CL[:, level]`` leaves of the residuals."""
        left = np.empty_like(residual_CD)
        for prefix, rows in _by_prefix(codes_CL[:, :level]):
            left[rows] = residual_CD[rows] - self.index(prefix).centroids_KD[codes_CL[rows, level]]
        return left

    def last_norms(self, residual_CD: Float32Array, codes_CL: Int32Array) -> Float64Array:
        """Return the norms of what the last codes leave of the residuals before the last level."""
        squared_C = np.empty(len(residual_CD))
        for prefix, rows in _by_prefix(codes_CL[:, :-1]):
            squared_C[rows] = paired_squared_distances(residual_CD, rows, self.index(prefix).centroids_KD, codes_CL[rows, -1])
        return np.sqrt(squared_C)


def _by_prefix(prefixes_CP: Int32Array) -> Iterator[tuple[tuple[int, ...], Int64Array]]:
    """Yield the distinct prefixes with their rows, in the order in which they first occur."""
    rows_of: dict[tuple[int, ...], list[int]] = {}
    for row, prefix in enumerate(prefixes_CP.tolist()):  # 0.3 us per row, beside the candidates of every prefix
        rows_of.setdefault(tuple(prefix), []).append(row)
    for prefix, rows in rows_of.items():
        yield prefix, np.array(rows, dtype=np.int64)


def _rows_per_part(dim: int) -> int:
    return max(1, _VALUES_PER_PART // dim)


def _parts(num_rows: int, dim: int) -> Iterator[slice]:
    """Yield slices of so many rows that their values stay in the cache."""
    step = _rows_per_part(dim)
    for start in range(0, num_rows, step):
        yield slice(start, start + step)
