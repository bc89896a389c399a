"""The tensors of a fusion, fitted: per modality a mean, a projection and a way back.

First every modality becomes a block of its own: centred, turned to its principal components and scaled, so that its weight is the
mean length of its rows (``rank``: the deviation of its inner products; ``plain``: nothing is done). Kinds that add modalities up
in one space then find a map from the blocks, side by side, to that space (see `alignment`, `contrastive_projection`); both steps
are linear, so they are stored as one projection.

The way back from a shared space is the one of least squares: given a fused row, the blocks that are expected of it under the
second moments of the fitted rows. Where blocks stay apart, or all directions are kept, that is the exact inverse.

Sums run in float64 over blocks of 4,096 rows in the order given. Shapes: N items, M vector dim of a modality, K its dim after PCA,
S the sum of all K, D the dim of the fused rows, P pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sidlake.encoders.fusion.alignment import canonical_axes, least_squares_inverse, principal_axes, rotations
from sidlake.encoders.fusion.config import BLOCK_KINDS, FusionConfig, ModalityWeight
from sidlake.errors import EncoderError

__all__ = ["fit_tensors"]

_FIT_ROWS = 4096
_TINY = 1e-10  # eigenvalues below this share of the largest are rounding noise and are not whitened

if TYPE_CHECKING:
    Floats = NDArray[np.float32] | NDArray[np.float64]
    Tensors = dict[str, NDArray[np.float64]]
    Vectors = Mapping[str, Floats]
    Masks = Mapping[str, NDArray[np.bool_]]


def fit_tensors(
    vectors: Vectors,
    present: Masks,
    config: FusionConfig,
    pairs_P2: NDArray[np.int64] | None,
    gaps_P: NDArray[np.int64] | None = None,
) -> Tensors:
    """Return ``<modality>.mean`` [M], ``.project`` [M, K or D] and ``.unproject`` [K or D, M] of each modality, float64.

    Of kind ``neighbours`` the modalities stay apart, and the tensors of the network that reads them are ``network.<name>``.

    Raises:
        EncoderError: a block keeps more dims than its vectors have, no two rows differ, or what a kind relates does not meet: no
            item has the modalities of ``cca`` or ``align`` together, or ``contrastive`` has no pairs.
    """
    tensors: Tensors = {}
    for entry in config.blocks:
        rows_NM, rows = vectors[entry.modality], np.flatnonzero(present[entry.modality])
        fitted = _as_is(rows_NM.shape[1]) if config.fuse.kind == "plain" else _fit_block(rows_NM, rows, entry, config)
        tensors |= {f"{entry.modality}.{part}": np.ascontiguousarray(tensor) for part, tensor in fitted.items()}
    if config.fuse.kind in BLOCK_KINDS:
        return tensors
    blocks = _Blocks(vectors, present, config, tensors)
    _, second_SS = blocks.moments(np.arange(blocks.num_rows))
    if config.fuse.kind == "neighbours":
        return tensors | _network(blocks, second_SS, config, pairs_P2, gaps_P)
    joint_SD = _joint(blocks, second_SS, config, pairs_P2)
    back_DS = least_squares_inverse(second_SS, joint_SD)
    for entry, span in zip(config.blocks, blocks.spans, strict=True):
        project, unproject = f"{entry.modality}.project", f"{entry.modality}.unproject"
        tensors[project] = np.ascontiguousarray(tensors[project] @ joint_SD[span])
        tensors[unproject] = np.ascontiguousarray(back_DS[:, span] @ tensors[unproject])
    return tensors


class _Blocks:
    """The rows of all blocks side by side, made when asked for; a missing modality is zeros, which is its mean."""

    def __init__(self, vectors: Vectors, present: Masks, config: FusionConfig, tensors: Tensors) -> None:
        self._vectors, self._present, self._tensors = vectors, present, tensors
        self.names = [entry.modality for entry in config.blocks]
        self.num_rows = len(present[self.names[0]])
        edges = np.cumsum([0, *(entry.dim for entry in config.blocks)]).tolist()
        self.spans = [slice(a, b) for a, b in itertools.pairwise(edges)]
        self.dim = edges[-1]

    @property
    def present_NJ(self) -> NDArray[np.bool_]:
        """Which of the J modalities each row has, bool [N, J]."""
        return np.stack([self._present[name] for name in self.names], axis=1)

    def having(self, names: list[str]) -> NDArray[np.int64]:
        """Return the rows that have all these modalities; `EncoderError` where there are fewer than 2."""
        rows = np.flatnonzero(np.logical_and.reduce([self._present[name] for name in names]))
        if len(rows) < 2:
            raise EncoderError(
                f"{len(rows)} of {self.num_rows} items have {' and '.join(names)} together, needed are 2 to relate"
                " one to the other. Take kind 'concat', or leave a modality out."
            )
        return rows

    def rows(self, rows_B: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return float64 [B, S]."""
        blocks_BS = np.zeros((len(rows_B), self.dim))
        for name, span in zip(self.names, self.spans, strict=True):
            has = self._present[name][rows_B]
            centred = self._vectors[name][rows_B[has]].astype(np.float64) - self._tensors[f"{name}.mean"]
            blocks_BS[has, span] = centred @ self._tensors[f"{name}.project"]
        return blocks_BS

    def moments(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean [S] of these rows and their mean outer product [S, S]."""
        total_S, second_SS = np.zeros(self.dim), np.zeros((self.dim, self.dim))
        for first in range(0, len(rows), _FIT_ROWS):
            blocks_BS = self.rows(rows[first : first + _FIT_ROWS])
            total_S += blocks_BS.sum(axis=0)
            second_SS += blocks_BS.T @ blocks_BS
        return total_S / len(rows), second_SS / len(rows)

    def all_rows(self) -> NDArray[np.float32]:
        """Return float32 [N, S]: 4 * S bytes per item."""
        blocks_NS = np.empty((self.num_rows, self.dim), dtype=np.float32)
        for first in range(0, self.num_rows, _FIT_ROWS):
            rows = np.arange(first, min(first + _FIT_ROWS, self.num_rows))
            blocks_NS[rows] = self.rows(rows)
        return blocks_NS


def _joint(
    blocks: _Blocks, second_SS: NDArray[np.float64], config: FusionConfig, pairs_P2: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Return the map [S, D] from the blocks side by side to the space of the kind."""
    if config.fuse.kind == "align":
        target = blocks.names.index(config.target)
        for name in blocks.names:
            blocks.having([name, config.target])
        return rotations(second_SS, blocks.spans, target)
    if config.fuse.kind == "cca":
        mean_S, together_SS = blocks.moments(blocks.having(blocks.names))
        joint_SD = canonical_axes(
            together_SS - np.outer(mean_S, mean_S), blocks.spans, dim=config.shared_dim, ridge=config.fuse.ridge
        )
        weights_S = np.repeat([entry.weight for entry in config.blocks], [entry.dim for entry in config.blocks])
        return np.asarray(joint_SD * weights_S[:, None])
    start_SD = principal_axes(second_SS, config.shared_dim)
    if config.fuse.kind == "pca":
        return start_SD
    # torch is loaded by who trains, not by who fuses
    from sidlake.encoders.fusion.contrastive_projection import contrastive_projection

    joint_SD = contrastive_projection(
        blocks.all_rows(), blocks.present_NJ, pairs_P2, start_SD=start_SD, spans=blocks.spans, config=config.fuse
    )
    spread = [np.trace(axes_SD.T @ second_SS @ axes_SD) for axes_SD in (start_SD, joint_SD)]
    return np.asarray(joint_SD * np.sqrt(spread[0] / spread[1]))  # cosines say nothing of the scale: it stays that of the start


def _network(
    blocks: _Blocks,
    second_SS: NDArray[np.float64],
    config: FusionConfig,
    pairs_P2: NDArray[np.int64] | None,
    gaps_P: NDArray[np.int64] | None,
) -> Tensors:
    # torch is loaded by who trains, not by who fuses
    from sidlake.encoders.fusion.neighbour_projection import fit_network

    axes_SD = principal_axes(second_SS, config.shared_dim)
    network = fit_network(blocks.all_rows(), pairs_P2, gaps_P, axes_SD=axes_SD, config=config.fuse)
    return {f"network.{name}": np.ascontiguousarray(tensor) for name, tensor in network.items()}


def _as_is(width: int) -> Tensors:
    return {"mean": np.zeros(width), "project": np.eye(width), "unproject": np.eye(width)}


def _fit_block(x_NM: Floats, rows: NDArray[np.int64], entry: ModalityWeight, config: FusionConfig) -> Tensors:
    """Return the mean [M], the projection [M, K] with scale and weight in it, and the way back [K, M], of these rows."""
    num_rows, width = len(rows), x_NM.shape[1]
    if entry.dim > width:
        raise EncoderError(f"{entry.modality!r} has {width} dims and cannot keep {entry.dim}. Set its dim to {width} or less.")
    mean_M, scatter_MM, magnitude = _statistics(x_NM, rows)
    values, axes = np.linalg.eigh(scatter_MM / max(num_rows, 1))
    values_K, axes_MK = values[::-1][: entry.dim], axes[:, ::-1][:, : entry.dim]
    largest = np.argmax(np.abs(axes_MK), axis=0)
    axes_MK = axes_MK * np.where(axes_MK[largest, np.arange(entry.dim)] < 0, -1.0, 1.0)
    if num_rows < 2 or not values_K[0] > (1e-7 * magnitude) ** 2:
        raise EncoderError(
            f"{entry.modality!r} has no two vectors that differ ({num_rows} present rows): nothing to fuse. Leave the modality out."
        )
    deviation_K = np.sqrt(np.maximum(values_K, 0.0)) if config.whiten else np.ones(entry.dim)
    usable_K = values_K > _TINY * values_K[0]
    spread_K = np.where(usable_K, deviation_K, 1.0)
    axes_MK = axes_MK * usable_K
    if config.fuse.kind == "rank":
        scale = _vote_scale(np.where(usable_K, values_K, 0.0) / spread_K**2, entry.weight)
    else:
        lengths = [np.linalg.norm((x_BM.astype(np.float64) - mean_M) @ (axes_MK / spread_K), axis=1) for x_BM in _parts(x_NM, rows)]
        scale = entry.weight / float(np.concatenate(lengths).mean())
    return {"mean": mean_M, "project": axes_MK / spread_K * scale, "unproject": (axes_MK * spread_K / scale).T}


def _parts(x_NM: Floats, rows: NDArray[np.int64]) -> Iterator[Floats]:
    """Yield these rows, 4,096 at a time."""
    for first in range(0, len(rows), _FIT_ROWS):
        yield x_NM[rows[first : first + _FIT_ROWS]]


def _statistics(x_NM: Floats, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the mean [M] of these rows, their scatter about it [M, M], and the largest value without its sign."""
    width = x_NM.shape[1]
    total_M, magnitude = np.zeros(width), 0.0
    for x_BM in _parts(x_NM, rows):
        total_M += x_BM.sum(axis=0, dtype=np.float64)
        magnitude = max(magnitude, float(np.abs(x_BM).max()))
    mean_M = total_M / max(len(rows), 1)
    scatter_MM = np.zeros((width, width))
    for x_BM in _parts(x_NM, rows):
        centred = x_BM.astype(np.float64) - mean_M
        scatter_MM += centred.T @ centred
    return mean_M, scatter_MM, magnitude


def _vote_scale(variances_K: NDArray[np.float64], weight: float) -> float:
    """Return the factor that gives inner products of two random rows the standard deviation `weight`: they have √Σ variance²."""
    return float(np.sqrt(weight / np.sqrt(np.square(variances_K).sum())))
