"""What a tokenizer's codes add to a latent, ready for nearest-code search: shared by a level, or made per prefix.

Shape suffixes: C rows of a latent space of D dimensions, L levels, P = L - 1 codes of a prefix, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sidlake.tokenizers.nearest import BoolArray, Float32Array, Float64Array, Int32Array, NearestIndex, paired_squared_distances

__all__ = ["Implicit", "Levels"]

_MAX_INDEXES = 256  # prefixes whose candidates are kept


class Levels:
    """What codes add where it depends on the level alone."""

    def __init__(self, centroids: Sequence[Float32Array]) -> None:
        self.widths = tuple(len(level) for level in centroids)
        self.dim = centroids[0].shape[1]
        self._indexes = [NearestIndex(level) for level in centroids]

    def index(self, prefix: Sequence[int]) -> NearestIndex:
        """Return the codes of the level after `prefix`, ready for search."""
        return self._indexes[len(prefix)]

    def search_last(self, residual_CD: Float32Array, prefixes_CP: Int32Array, allowed_CK: BoolArray) -> Int32Array:
        """Return codes_C of the last level, the nearest that are allowed."""
        return self._indexes[-1].search(residual_CD, allowed_NK=allowed_CK)

    def step(self, residual_CD: Float32Array, level: int, codes_CL: Int32Array) -> Float32Array:
        """Return what code ``codes_CL[:, level]`` leaves of the residuals."""
        left: Float32Array = residual_CD - self._indexes[level].centroids_KD[codes_CL[:, level]]
        return left

    def last_norms(self, residual_CD: Float32Array, codes_CL: Int32Array) -> Float64Array:
        """Return the norms of what the last codes leave of the residuals before the last level."""
        rows = np.arange(len(residual_CD))
        return np.sqrt(paired_squared_distances(residual_CD, rows, self._indexes[-1].centroids_KD, codes_CL[:, -1]))


class Implicit:
    """What codes add where it depends on the codes before them: made per prefix, when it is asked for.

    Slower than levels that share their codes: the resolver computes the candidates of each colliding prefix.
    """

    def __init__(self, increments: Callable[[Sequence[int]], Float32Array], widths: tuple[int, ...], dim: int) -> None:
        self.widths = widths
        self.dim = dim
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

    def search_last(self, residual_CD: Float32Array, prefixes_CP: Int32Array, allowed_CK: BoolArray) -> Int32Array:
        """Return codes_C of the last level, the nearest that are allowed."""
        found = [
            self.index(prefix).search(residual_CD[row : row + 1], allowed_NK=allowed_CK[row : row + 1])[0]
            for row, prefix in enumerate(prefixes_CP.tolist())
        ]
        return np.array(found, dtype=np.int32)

    def step(self, residual_CD: Float32Array, level: int, codes_CL: Int32Array) -> Float32Array:
        """Return what code ``codes_CL[:, level]`` leaves of the residuals."""
        left = residual_CD.copy()
        for row, codes in enumerate(codes_CL[:, : level + 1].tolist()):
            left[row] -= self.index(codes[:level]).centroids_KD[codes[level]]
        return left

    def last_norms(self, residual_CD: Float32Array, codes_CL: Int32Array) -> Float64Array:
        """Return the norms of what the last codes leave of the residuals before the last level."""
        squared = [
            paired_squared_distances(residual_CD, np.array([row]), self.index(codes[:-1]).centroids_KD, np.array(codes[-1:]))[0]
            for row, codes in enumerate(codes_CL.tolist())
        ]
        return np.sqrt(np.array(squared, dtype=np.float64))
