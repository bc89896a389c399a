"""Several vectors per item become one: per modality centre, PCA, scale to the same mean length, weigh, concatenate.

After the scaling a weight is what it says: how much of the squared distance between two items a modality decides. An item that
lacks a modality gets zeros in its block, which is that modality's mean. `inverse` leads back to every modality's own space.

A fused row depends on its own vectors alone: products run in float64, on one BLAS thread, in blocks of a fixed number of rows, so
chunking a table differently changes no bit. The fit adds rows up in the order given; give them in a fixed order (by item_id).

Deliberately not done: learned fusion (contrastive alignment), and imputing a missing modality from the others.

Shapes: N items, M vector dim of a modality, K its dim after PCA, D the sum of all K.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from threadpoolctl import threadpool_limits

from sidlake.tokenizers.errors import ArtifactError, EncoderError

__all__ = ["Fusion", "FusionConfig", "ModalityWeight"]

_FORMAT = "sidlake-fusion-1"
_BLOCK_ROWS = 256
_FIT_ROWS = 4096
_TINY = 1e-10  # eigenvalues below this share of the largest are rounding noise and are not whitened

Floats = NDArray[np.float32] | NDArray[np.float64]


class ModalityWeight(NamedTuple):
    """One modality's part in the fused vector: its name, its weight and how many PCA dimensions it keeps."""

    modality: str
    weight: float
    dim: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FusionConfig:
    """The modalities in the order of their blocks; `whiten` gives every kept direction unit variance before the scaling."""

    weights: tuple[ModalityWeight | tuple[str, float, int], ...]
    whiten: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(ModalityWeight(*entry) for entry in self.weights))
        names = [entry.modality for entry in self.blocks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"weights must name each modality once and at least one, got {names}")
        for name, weight, dim in self.blocks:
            if not (np.isfinite(weight) and weight > 0):
                raise ValueError(f"the weight of {name!r} must be above 0 and finite, got {weight}: leave the modality out instead")
            if dim < 1:
                raise ValueError(f"the dim of {name!r} must be at least 1, got {dim}")

    @property
    def blocks(self) -> tuple[ModalityWeight, ...]:
        """Return the entries as `ModalityWeight`, in order."""
        return tuple(ModalityWeight(*entry) for entry in self.weights)


class Fusion:
    """A fitted fusion. Make it with `Fusion.fit` or `Fusion.load`; it never changes afterwards."""

    def __init__(self, config: FusionConfig, tensors: dict[str, NDArray[np.float64]]) -> None:
        self.config = config
        self.dim = sum(entry.dim for entry in config.blocks)
        self._tensors = tensors
        self.fusion_id = f"fusion:{_digest(config, tensors)[:12]}"

    @classmethod
    def fit(cls, vectors: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]], config: FusionConfig) -> Fusion:
        """Return the fusion of `config` fitted on the present rows of each modality ([N, M] and bool [N]).

        Deterministic for a given order of rows, for any number of threads. Memory: 8 * M bytes per row of one block of 4,096 rows.

        Raises:
            EncoderError: a present vector is not finite, a block keeps more dims than its vectors have, or no two rows differ.
            ValueError: a modality or its mask is missing, or shapes do not match.
        """
        _check_inputs(vectors, present, config)
        tensors: dict[str, NDArray[np.float64]] = {}
        with threadpool_limits(limits=1, user_api="blas"):
            for entry in config.blocks:
                rows_NM = vectors[entry.modality][present[entry.modality]]
                for part, tensor in _fit_block(rows_NM, entry, whiten=config.whiten).items():
                    tensors[f"{entry.modality}.{part}"] = np.ascontiguousarray(tensor)
        return cls(config, tensors)

    def transform(self, vectors: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.float32]:
        """Return the fused rows, float32 [N, D]; each depends on its own vectors alone, bit for bit.

        Raises:
            EncoderError: a present vector that is not finite (the message names its row).
            ValueError: a modality or its mask is missing, or shapes do not match.
        """
        _check_inputs(vectors, present, self.config)
        num_rows = len(next(iter(present.values())))
        fused_ND = np.zeros((num_rows, self.dim), dtype=np.float32)
        start = 0
        with threadpool_limits(limits=1, user_api="blas"):
            for entry in self.config.blocks:
                mean_M, project_MK = self._part(entry, "mean"), self._part(entry, "project")
                rows = np.flatnonzero(present[entry.modality])
                if rows.size and vectors[entry.modality].shape[1] != mean_M.size:
                    raise ValueError(f"{entry.modality!r} was fitted on {mean_M.size} dims, got {vectors[entry.modality].shape[1]}")
                for chunk in (rows[i : i + _BLOCK_ROWS] for i in range(0, rows.size, _BLOCK_ROWS)):
                    centred_BM = vectors[entry.modality][chunk].astype(np.float64) - mean_M
                    fused_ND[chunk, start : start + entry.dim] = _fixed_product(centred_BM, project_MK)
                start += entry.dim
        return fused_ND

    def inverse(self, fused_ND: Floats) -> dict[str, NDArray[np.float32]]:
        """Return each modality's vectors, float32 [N, M], nearest to the fused rows: exact within the kept PCA directions.

        Raises:
            ValueError: `fused_ND` does not have `dim` columns.
        """
        if fused_ND.ndim != 2 or fused_ND.shape[1] != self.dim:
            raise ValueError(f"fused rows must have {self.dim} columns, got shape {fused_ND.shape}")
        result: dict[str, NDArray[np.float32]] = {}
        start = 0
        with threadpool_limits(limits=1, user_api="blas"):
            for entry in self.config.blocks:
                mean_M, unproject_KM = self._part(entry, "mean"), self._part(entry, "unproject")
                out_NM = np.empty((len(fused_ND), mean_M.size), dtype=np.float32)
                for first in range(0, len(fused_ND), _BLOCK_ROWS):
                    block_BK = fused_ND[first : first + _BLOCK_ROWS, start : start + entry.dim].astype(np.float64)
                    out_NM[first : first + _BLOCK_ROWS] = _fixed_product(block_BK, unproject_KM) + mean_M
                result[entry.modality] = out_NM
                start += entry.dim
        return result

    def save(self, path: Path) -> None:
        """Write one safetensors file whose header carries the config and the hash; it appears whole or not at all."""
        header = json.dumps({"format": _FORMAT, "config": asdict(self.config), "fusion_id": self.fusion_id}, sort_keys=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(to_safetensors(self._tensors, metadata={"fusion": header}))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: Path) -> Fusion:
        """Return the fusion saved at `path`, after checking its hash.

        Raises:
            ArtifactError: the file is missing, damaged or of another format.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["fusion"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            config = FusionConfig(
                weights=tuple(tuple(entry) for entry in header["config"]["weights"]), whiten=header["config"]["whiten"]
            )
            stored = (header["format"], header["fusion_id"])
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise ArtifactError(f"{path} is not a readable fusion: {type(error).__name__}: {error}. Fit it again.") from error
        fusion = cls(config, tensors)
        if stored != (_FORMAT, fusion.fusion_id):
            raise ArtifactError(
                f"{path} is damaged or of another format: it says {stored}, its content is {(_FORMAT, fusion.fusion_id)}."
            )
        return fusion

    def _part(self, entry: ModalityWeight, part: str) -> NDArray[np.float64]:
        return self._tensors[f"{entry.modality}.{part}"]


def _fit_block(rows_NM: Floats, entry: ModalityWeight, *, whiten: bool) -> dict[str, NDArray[np.float64]]:
    """Return the mean [M], the projection [M, K] with scale and weight in it, and the way back [K, M]."""
    num_rows, width = rows_NM.shape
    if entry.dim > width:
        raise EncoderError(f"{entry.modality!r} has {width} dims and cannot keep {entry.dim}. Set its dim to {width} or less.")
    starts = range(0, num_rows, _FIT_ROWS)
    total_M = np.zeros(width)
    for i in starts:
        total_M += rows_NM[i : i + _FIT_ROWS].sum(axis=0, dtype=np.float64)
    mean_M = total_M / max(num_rows, 1)
    scatter_MM = np.zeros((width, width))
    for i in starts:
        centred = rows_NM[i : i + _FIT_ROWS].astype(np.float64) - mean_M
        scatter_MM += centred.T @ centred
    values, axes = np.linalg.eigh(scatter_MM / max(num_rows, 1))
    values_K, axes_MK = values[::-1][: entry.dim], axes[:, ::-1][:, : entry.dim]
    largest = np.argmax(np.abs(axes_MK), axis=0)
    axes_MK = axes_MK * np.where(axes_MK[largest, np.arange(entry.dim)] < 0, -1.0, 1.0)
    magnitude = float(np.max(np.abs(rows_NM), initial=0.0))
    if num_rows < 2 or not values_K[0] > (1e-7 * magnitude) ** 2:
        raise EncoderError(
            f"{entry.modality!r} has no two vectors that differ ({num_rows} present rows): nothing to fuse. Leave the modality out."
        )
    deviation_K = np.sqrt(np.maximum(values_K, 0.0)) if whiten else np.ones(entry.dim)
    usable_K = values_K > _TINY * values_K[0]
    spread_K = np.where(usable_K, deviation_K, 1.0)
    axes_MK = axes_MK * usable_K
    lengths = [
        np.linalg.norm((rows_NM[i : i + _FIT_ROWS].astype(np.float64) - mean_M) @ (axes_MK / spread_K), axis=1) for i in starts
    ]
    scale = entry.weight / float(np.concatenate(lengths).mean())
    return {"mean": mean_M, "project": axes_MK / spread_K * scale, "unproject": (axes_MK * spread_K / scale).T}


def _fixed_product(left_BM: NDArray[np.float64], right_MK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the product of at most 256 rows, always computed as 256: BLAS may add in another order for another shape."""
    padded = np.zeros((_BLOCK_ROWS, left_BM.shape[1]))
    padded[: len(left_BM)] = left_BM
    product: NDArray[np.float64] = padded @ right_MK
    return product[: len(left_BM)]


def _check_inputs(vectors: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]], config: FusionConfig) -> None:
    num_rows = None
    for name, _, _ in config.blocks:
        if name not in vectors or name not in present:
            raise ValueError(f"modality {name!r} is in the config but its vectors or its mask were not given")
        rows_NM, mask_N = vectors[name], present[name]
        num_rows = len(rows_NM) if num_rows is None else num_rows
        if rows_NM.ndim != 2 or mask_N.shape != (num_rows,) or len(rows_NM) != num_rows or mask_N.dtype != np.bool_:
            raise ValueError(
                f"{name!r} needs vectors [N, M] and a bool mask [N] with N = {num_rows}, got {rows_NM.shape}, {mask_N.shape}"
            )
        broken = np.flatnonzero(mask_N & ~np.isfinite(rows_NM).all(axis=1))
        if broken.size:
            raise EncoderError(
                f"The {name!r} vector of row {broken[0]} is not finite ({broken.size} such rows). Embed it again or drop it.",
                modality=name,
                index=int(broken[0]),
            )


def _digest(config: FusionConfig, tensors: dict[str, NDArray[np.float64]]) -> str:
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tensors[name].shape}{tensors[name].dtype}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
