"""Parallel codes: product quantization (Jégou, Douze & Schmid 2011), and with a learned rotation (Ge, He, Ke & Sun 2013, OPQ).

The latent space is cut into one block of dimensions per level, sizes differing by at most one, and each block has a k-means of its
own. Codes do not refine each other: a prefix of them says nothing about the rest, and their order means nothing. What a code adds
is its block's centroid with zeros around it, so latents are sums here too, and the nearest code of a block is the greedy one.

Product quantization cuts the vectors as they come. The optimized kind rotates them first. Codebooks and rotation are fitted in
turn, the rotation by orthogonal Procrustes, from two starts, of which the better one goes on: no rotation, and principal components
handed out so that the products of the blocks' variances are even (Ge et al., section 3.2.4). The second alone, as published, loses
to plain product quantization where blocks already hold what belongs together, as fused vectors do. Rotated vectors come of
`exact_product`, so that no neighbour changes a bit of them.

Shape suffixes: N rows, D dimensions, L levels, K codes of a level, B dimensions of a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from sidlake.errors import FitError
from sidlake.tokenizers.fit_input import fit_rows
from sidlake.tokenizers.numeric.exact_product import exact_product
from sidlake.tokenizers.numeric.kmeans import fit_kmeans
from sidlake.tokenizers.numeric.nearest import Float32Array, Int32Array, Int64Array, nearest_codes, paired_squared_distances
from sidlake.tokenizers.quantizers.additive import AdditiveTokenizer, code_means
from sidlake.tokenizers.settings import check_settings
from sidlake.tokenizers.tokenizer import ItemFacts, checked_rows

__all__ = ["OptimizedProduct", "OptimizedProductConfig", "Product", "ProductConfig"]

_ROTATION_ROWS_PER_CODE = 256
_START_ITERATIONS = 5
_BLOCK_ROWS = 16_384
_TINY = 1e-12  # of the largest variance


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductConfig:
    """How codebooks are fitted.

    Attributes:
        widths: Codes per level; the levels are blocks of dimensions.
        seed: Decides the sample and the starts; the only source of randomness.
        max_iterations: Lloyd iterations per block at most.
        max_fit_rows: Rows to fit on at most; beyond it a seeded sample is taken, by position in the order given.
        device: Where nearest codes are searched, ``cpu`` or ``cuda[:n]``; changes the speed, never the result.
        tolerance: stop a level when its centroids' summed squared shift is at most this share of the mean variance per dimension.
    """

    widths: tuple[int, ...]
    seed: int = 0
    max_iterations: int = 25
    tolerance: float = 1e-4
    max_fit_rows: int = 262_144
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizedProductConfig(ProductConfig):
    """How codebooks and rotation are fitted: as `ProductConfig` says, and more.

    Attributes:
        rotations: Times that codebooks and rotation are fitted in turn, half of them from both starts.
    """

    rotations: int = 16


class Product(AdditiveTokenizer):
    """A codebook per block of dimensions; `centroids` are those of the blocks, [K, B]."""

    kind = "product"
    ordered = False
    config_type: ClassVar[type[Any]] = ProductConfig

    @property
    def dim(self) -> int:
        """Dimensions of the input vectors."""
        return sum(level.shape[1] for level in self.centroids)

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: ProductConfig, *, facts: ItemFacts | None = None) -> Self:
        """Return codebooks fitted to the rows; `FitError` for NaN, infinity, a wrong shape, too few rows or fewer dims than levels.

        The same rows, order and config give the same bits on any device and number of threads. Memory: 5 bytes per value of the
        rows, 4 more where they are a sample or not float32, and 250 MB at most for the start.
        """
        rows_ND, _ = fit_rows(x_ND, config, cls)
        return cls(*_fit_blocks(rows_ND, _blocks(rows_ND.shape[1], config), config), config)

    def increments(self, prefix: Sequence[int]) -> Float32Array:
        """Return the block's centroids with zeros around them, float32 [K, D]."""
        return super().increments(prefix)

    def _in_latent_space(self) -> tuple[Float32Array, ...]:
        ends = np.cumsum([level.shape[1] for level in self.centroids])
        padded = []
        for level, end in zip(self.centroids, ends, strict=True):
            wide_KD = np.zeros((len(level), ends[-1]), dtype=np.float32)
            wide_KD[:, end - level.shape[1] : end] = level
            padded.append(wide_KD)
        return tuple(padded)

    def _search(self, z_NE: Float32Array, device: str) -> Int32Array:
        blocks = np.split(z_NE, np.cumsum([level.shape[1] for level in self.centroids])[:-1], axis=1)
        found = [nearest_codes(block, level, device=device) for level, block in zip(self.centroids, blocks, strict=True)]
        return np.stack(found, axis=1)


class OptimizedProduct(Product):
    """Codebooks per block of the rotated space.

    Attributes:
        rotation_DD: float32, orthogonal; latents are ``x @ rotation_DD``.
    """

    kind = "optimized_product"
    config_type = OptimizedProductConfig

    def __init__(
        self,
        centroids: Sequence[Float32Array],
        counts: Sequence[Int64Array],
        rotation_DD: Float32Array,
        config: OptimizedProductConfig,
    ) -> None:
        self.rotation_DD = np.ascontiguousarray(rotation_DD, dtype=np.float32)
        super().__init__(centroids, counts, config)
        if self.rotation_DD.shape != (self.dim, self.dim) or not np.isfinite(self.rotation_DD).all():
            msg = f"rotation {self.rotation_DD.shape} does not fit {self.dim} dimensions, or is not finite"
            raise ValueError(msg)

    @classmethod
    def fit(cls, x_ND: npt.ArrayLike, config: ProductConfig, *, facts: ItemFacts | None = None) -> Self:
        """Return rotation and codebooks fitted to the rows; errors as in `Product`.

        The rotation is learned from at most 256 rows per code of the widest level, evenly spaced; LAPACK runs on one thread.
        Memory: 8 bytes per value of the rows, 4 more where they are a sample or not float32, and 250 MB at most for the start.
        """
        rows_ND, _ = fit_rows(x_ND, config, cls)
        assert isinstance(config, OptimizedProductConfig)
        blocks = _blocks(rows_ND.shape[1], config)
        num_few = min(len(rows_ND), _ROTATION_ROWS_PER_CODE * max(config.widths))
        rotation_DD = _fit_rotation(rows_ND[np.arange(num_few) * len(rows_ND) // num_few], blocks, config)
        centroids, counts = _fit_blocks(_rotated(rows_ND, rotation_DD), blocks, config)
        return cls(centroids, counts, rotation_DD, config)

    def latents(self, x_ND: npt.ArrayLike) -> Float32Array:
        """Return z_ND, the rotated vectors."""
        return _rotated(checked_rows(x_ND, self.dim), self.rotation_DD)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """Return ``centroids.<level>``, ``counts.<level>``, then ``rotation``."""
        return super().tensors() | {"rotation": self.rotation_DD}

    @classmethod
    def from_tensors(cls, config: OptimizedProductConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the tokenizer of which `tensors` came."""
        levels = range(len(config.widths))
        centroids, counts = ([tensors[f"{name}.{level}"] for level in levels] for name in ("centroids", "counts"))
        return cls(centroids, counts, tensors["rotation"], config)

    def _to_input(self, z_NE: Float32Array) -> Float32Array:
        return _rotated(z_NE, self.rotation_DD.T)


def _blocks(dim: int, config: ProductConfig) -> list[Int64Array]:
    """Return the dimensions of each level's block, the first ones a dimension larger where they do not come out even."""
    if dim < len(config.widths):
        msg = f"{len(config.widths)} levels need vectors of as many dimensions, got {dim}: use fewer levels"
        raise FitError(msg, needed=len(config.widths), dim=dim)
    return np.array_split(np.arange(dim), len(config.widths))


def _fit_blocks(
    z_ND: Float32Array, blocks: Sequence[Int64Array], config: ProductConfig
) -> tuple[list[Float32Array], list[Int64Array]]:
    """Return centroids and counts per block, each fitted on its own."""
    centroids, counts = [], []
    for level, (block, width) in enumerate(zip(blocks, config.widths, strict=True)):
        fitted = fit_kmeans(
            np.ascontiguousarray(z_ND[:, block]),
            width,
            rng=np.random.default_rng([config.seed, level]),
            max_iterations=config.max_iterations,
            tolerance=config.tolerance,
            device=config.device,
        )
        centroids.append(fitted.centroids_KD)
        counts.append(fitted.counts_K)
    return centroids, counts


def _fit_rotation(x_ND: Float32Array, blocks: Sequence[Int64Array], config: OptimizedProductConfig) -> Float32Array:
    """Return the rotation under which the blocks' codebooks leave least."""
    identity_DD = np.eye(x_ND.shape[1], dtype=np.float32)
    starts = [_Rotation(x_ND, blocks, config, start_DD) for start_DD in (identity_DD, _allocated_components(x_ND, blocks))]
    half = config.rotations // 2
    best = min(starts, key=lambda start: start.improve(half))
    best.improve(config.rotations - half)
    return best.rotation_DD


class _Rotation:
    """A rotation and the codebooks of its blocks, on their way."""

    def __init__(
        self, x_ND: Float32Array, blocks: Sequence[Int64Array], config: OptimizedProductConfig, start_DD: Float32Array
    ) -> None:
        self._x_ND, self._blocks, self._device = x_ND, blocks, config.device
        self.rotation_DD = start_DD
        few = ProductConfig(widths=config.widths, seed=config.seed, max_iterations=_START_ITERATIONS, device=config.device)
        self._codebooks = _fit_blocks(_rotated(x_ND, start_DD), blocks, few)[0]

    def improve(self, times: int) -> float:
        """Fit codebooks and rotation in turn, `times` times; return the sum of squares that they leave."""
        for _ in range(times):
            decoded_ND = self._decoded(_rotated(self._x_ND, self.rotation_DD), update=True)
            with threadpool_limits(limits=1, user_api="blas"):
                left_DD, _, right_DD = np.linalg.svd(exact_product(self._x_ND.T, decoded_ND))
                self.rotation_DD = (left_DD @ right_DD).astype(np.float32)
        z_ND = _rotated(self._x_ND, self.rotation_DD)
        left_N = paired_squared_distances(z_ND, np.arange(len(z_ND)), self._decoded(z_ND, update=False), np.arange(len(z_ND)))
        return math.fsum(left_N.tolist())

    def _decoded(self, z_ND: Float32Array, *, update: bool) -> Float32Array:
        """Return the nearest centroids of the blocks, and with `update` move these to their rows' means first."""
        decoded_ND = np.empty_like(z_ND)
        for level, block in enumerate(self._blocks):
            z_NB = np.ascontiguousarray(z_ND[:, block])
            codes_N = nearest_codes(z_NB, self._codebooks[level], device=self._device)
            if update:
                self._codebooks[level] = code_means(z_NB, codes_N, self._codebooks[level])
            decoded_ND[:, block] = self._codebooks[level][codes_N]
        return decoded_ND


def _allocated_components(x_ND: Float32Array, blocks: Sequence[Int64Array]) -> Float32Array:
    """Return the principal components, the largest first to whichever block's product of variances is least and that has room."""
    centred_ND = x_ND - code_means(x_ND, np.zeros(len(x_ND), dtype=np.int32), np.zeros((1, x_ND.shape[1]), dtype=np.float32))
    with threadpool_limits(limits=1, user_api="blas"):
        variances_D, axes_DD = np.linalg.eigh(exact_product(centred_ND.T, centred_ND) / len(x_ND))
    variances_D, axes_DD = variances_D[::-1], axes_DD[:, ::-1]
    largest = np.abs(axes_DD).argmax(axis=0)
    axes_DD = axes_DD * np.where(axes_DD[largest, np.arange(len(largest))] < 0, -1.0, 1.0)
    taken: list[list[int]] = [[] for _ in blocks]
    logs = np.zeros(len(blocks))
    shares_D = variances_D / variances_D[0] if variances_D[0] > 0 else np.ones(len(variances_D))
    for axis, share in enumerate(shares_D.tolist()):
        room = [len(taken[block]) < len(blocks[block]) for block in range(len(blocks))]
        block = int(np.where(room, logs, np.inf).argmin())
        taken[block].append(axis)
        logs[block] += math.log(max(share, _TINY) / _TINY)  # never negative, so that a block with more components has no advantage
    rotation: Float32Array = axes_DD[:, np.concatenate(taken)].astype(np.float32)
    return rotation


def _rotated(x_ND: Float32Array, rotation_DD: npt.NDArray[np.floating]) -> Float32Array:
    rotated = np.empty((len(x_ND), rotation_DD.shape[1]), dtype=np.float32)
    for start in range(0, len(x_ND), _BLOCK_ROWS):
        rotated[start : start + _BLOCK_ROWS] = exact_product(x_ND[start : start + _BLOCK_ROWS], rotation_DD)
    return rotated
