"""What tokenizers share whose SIDs add up: per level a list of vectors, and a latent that is the sum of one from each.

The base of residual and balanced k-means, product quantization and the index baselines: it checks, stores, decodes and, unless a
kind decides codes in another way, encodes level by level with the exactly nearest code.

Shape suffixes: N rows, D dimensions of the input, E of the latent space, L levels, K codes of a level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.numeric.kmeans import sums_by_code
from sidlake.tokenizers.numeric.nearest import (
    Float32Array,
    Float64Array,
    Int32Array,
    Int64Array,
    ResidualIndex,
    paired_squared_distances,
)
from sidlake.tokenizers.tokenizer import ItemFacts, Tokenizer, checked_codes, checked_rows

__all__ = ["AdditiveTokenizer", "code_means", "subtract_codes"]

_ENCODE_ROWS = 16_384


class AdditiveTokenizer(Tokenizer):
    """Fitted codebooks of which a SID takes one vector per level.

    Attributes:
        centroids: One float32 [K, any] array per level, as stored.
        counts: One int64 [K] array per level: rows of the fit that got each code.
        config: How it was fitted.
    """

    def __init__(self, centroids: Sequence[Float32Array], counts: Sequence[Int64Array], config: Any) -> None:  # noqa: ANN401
        self.centroids = tuple(np.ascontiguousarray(level, dtype=np.float32) for level in centroids)
        self.counts = tuple(np.ascontiguousarray(level, dtype=np.int64) for level in counts)
        self.config = config
        wanted = [(width,) for width in config.widths]
        shapes = [level.shape for level in self.centroids], [level.shape for level in self.counts]
        if [shape[:1] for shape in shapes[0]] != wanted or shapes[1] != wanted or any(len(shape) != 2 for shape in shapes[0]):
            msg = f"centroids {shapes[0]} and counts {shapes[1]} do not fit the widths {config.widths}"
            raise ValueError(msg)
        if not all(np.isfinite(level).all() for level in self.centroids):
            msg = "centroids hold NaN or infinity"
            raise ValueError(msg)
        self._increments = self._in_latent_space()
        self._indexes: dict[str, ResidualIndex] = {}

    @property
    def widths(self) -> tuple[int, ...]:
        """Codes per level."""
        widths: tuple[int, ...] = self.config.widths
        return widths

    @property
    def dim(self) -> int:
        """Dimensions of the input vectors."""
        return int(self.centroids[0].shape[1])

    def encode_with_norms(
        self, x_ND: npt.ArrayLike, *, facts: ItemFacts | None = None, device: str = "cpu"
    ) -> tuple[Int32Array, Float64Array]:
        """Return codes_NL, at each level the nearest code (ties to the lowest), and the norms_N of what they leave of the latents.

        `ValueError` for a wrong dimension or a value that is not finite. Both depend on the row alone, bit for bit.
        """
        x = checked_rows(x_ND, self.dim)
        codes, norms = np.empty((len(x), len(self.widths)), dtype=np.int32), np.empty(len(x))
        for start in range(0, len(x), _ENCODE_ROWS):
            part = slice(start, start + _ENCODE_ROWS)
            latents = self.latents(x[part])
            codes[part] = self._search(latents, device)
            norms[part] = self._norms(latents, codes[part])
        return codes, norms

    def decode(self, codes_NL: npt.ArrayLike, depth: int | None = None) -> Float32Array:
        """Return x_ND, the sum of what the first `depth` codes (all, if None) add, led back to the input space."""
        codes = checked_codes(codes_NL, self.widths, depth)
        total = np.zeros((len(codes), self._increments[0].shape[1]), dtype=np.float32)
        for level in range(codes.shape[1]):
            total += self._increments[level][codes[:, level]]
        return self._to_input(total)

    def increments(self, prefix: Sequence[int]) -> Float32Array:
        """Return what each code of the level after `prefix` adds to the latent, float32 [K, E]; the same for all prefixes."""
        return self._increments[len(prefix)]

    def codebooks(self) -> list[tuple[Float32Array, Int64Array]]:
        """Return centroids and counts per level."""
        return list(zip(self.centroids, self.counts, strict=True))

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return ``centroids.<level>``, then ``counts.<level>``, then what else the kind learned."""
        centroids: dict[str, npt.NDArray[Any]] = {f"centroids.{level}": values for level, values in enumerate(self.centroids)}
        return centroids | {f"counts.{level}": values for level, values in enumerate(self.counts)}

    @classmethod
    def from_tensors(cls, config: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:  # noqa: ANN401  each kind has its own
        """Return the tokenizer of which `tensors` came."""
        levels = range(len(config.widths))
        return cls([tensors[f"centroids.{i}"] for i in levels], [tensors[f"counts.{i}"] for i in levels], config)

    def _in_latent_space(self) -> tuple[Float32Array, ...]:
        """Return what the codes of each level add to the latent: the centroids, unless a kind's latent space is another."""
        return self.centroids

    def _to_input(self, z_NE: Float32Array) -> Float32Array:
        """Return the vectors that latents stand for."""
        return z_NE

    def _search(self, z_NE: Float32Array, device: str) -> Int32Array:
        """Return codes_NL: level by level the nearest to what is left."""
        return self._index_on(device).search(z_NE, norms=False)[0]

    def _index_on(self, device: str) -> ResidualIndex:
        if device not in self._indexes:
            self._indexes[device] = ResidualIndex(self._increments, device=device)
        return self._indexes[device]

    def _norms(self, z_NE: Float32Array, codes_NL: Int32Array) -> Float64Array:
        """Return the norms of what the codes leave: float32 steps down to the last level, which is subtracted in float64."""
        residual = z_NE
        for level in range(len(self.widths) - 1):
            residual = residual - self._increments[level][codes_NL[:, level]]
        rows = np.arange(len(residual))
        return np.sqrt(paired_squared_distances(residual, rows, self._increments[-1], codes_NL[:, -1]))


def code_means(x_ND: Float32Array, codes_N: Int32Array, otherwise_KD: Float32Array) -> Float32Array:
    """Return the mean of each code's rows, float32 [K, D], and the row of `otherwise_KD` for codes without rows.

    Sums run in the stated order of `kmeans.sums_by_code`.

    >>> code_means(np.float32([[1], [3]]), np.int32([1, 1]), np.float32([[7], [7]])).tolist()
    [[7.0], [2.0]]
    """
    num_codes = len(otherwise_KD)
    sums = sums_by_code(x_ND, codes_N, num_codes)
    counts = np.bincount(codes_N, minlength=num_codes)[:, None]
    means: Float32Array = np.where(counts > 0, sums / np.maximum(counts, 1), otherwise_KD).astype(np.float32)
    return means


def subtract_codes(x_ND: Float32Array, centroids_KD: Float32Array, codes_N: Int32Array) -> None:
    """Take each row's centroid off it, in place, a block of rows at a time.

    >>> x = np.float32([[1], [3]])
    >>> subtract_codes(x, np.float32([[1], [2]]), np.int32([0, 1]))
    >>> x.tolist()
    [[0.0], [1.0]]
    """
    for start in range(0, len(x_ND), _ENCODE_ROWS):
        part = slice(start, start + _ENCODE_ROWS)
        x_ND[part] -= centroids_KD[codes_N[part]]
