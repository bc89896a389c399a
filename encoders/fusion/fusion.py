"""Several vectors per item become one: each modality is centred and projected, and the projections are put together.

The kinds differ in how the projections are fitted (`fusion_fit`); what is stored and done with them is the same.

- ``concat``: per modality PCA, scaled to one mean length, weighed; side by side. A weight then is what it says: how much of the
  squared distance between two items a modality decides.
- ``plain``: the raw vectors side by side, neither centred nor scaled: the negative control in which the longer vectors decide.
- ``rank``: as ``concat``, but scaled so that the similarities of random items spread alike. Adding the ranks that each modality
  gives to the others (Borda, as benchmarks such as ViLLA-MMBench, arXiv 2508.04206, fuse lists) needs lists, not vectors; this is
  its nearest linear form, because in the bulk a rank is a standardised similarity.
- ``pca``: principal axes of the blocks of ``concat``, side by side, as in that benchmark.
- ``cca``: canonical variates, added up; for three modalities or more the direction that all agree on best.
- ``align``: one modality's space, into which the others are turned, added up: the linear form of PRORec's alignment of semantic
  and collaborative vectors before quantizing (arXiv 2502.06269).
- ``contrastive``: a projection trained on items bought together (FORGE, OneRec; see `contrastive_projection`).
- ``neighbours``: a small network that keeps each item's neighbours in few dimensions (see `neighbour_projection`).

An item that lacks a modality gets zeros for its part, which is that modality's mean (for ``plain`` just zeros). A fused row depends
on its own vectors alone: products run in float64, on one BLAS thread, in blocks of a fixed number of rows, so chunking a table
differently changes no bit. The fit adds rows up in the order given; give them in a fixed order (by item_id).

Deliberately not done: imputing a missing modality from the others.

Shapes: N items, M vector dim of a modality, K its dim after PCA, D the dim of the fused rows, P pairs, B rows of a block.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors
from threadpoolctl import threadpool_limits

from sidlake.encoders.fusion.config import BLOCK_KINDS, PAIR_KINDS, FuseConfig, FusionConfig, ModalityWeight
from sidlake.encoders.fusion.fit import fit_tensors
from sidlake.encoders.fusion.fit_input import check_near, check_pairs
from sidlake.encoders.fusion.network import Network, apply_network, shapley_shares, unit_rows
from sidlake.errors import ArtifactError, EncoderError
from sidlake.whole_files import replacing

__all__ = ["Fusion", "FusionConfig", "ModalityWeight"]

_FORMAT = "sidlake-fusion-1"
_BLOCK_ROWS = 256
_CHECKED_ROWS = 16_384

Floats = NDArray[np.float32] | NDArray[np.float64]


class Fusion:
    """A fitted fusion. Make it with `Fusion.fit` or `Fusion.load`; it never changes afterwards.

    Attributes:
        config: what was asked for.
        dim: of the fused rows.
        fusion_id: names the config, the tensors and what the fit says of its pairs.
        made_with: for kinds trained by gradient the versions that decided the bits of the fit; else empty. No part of `fusion_id`.
        about: for kinds that learn from pairs how many ``pairs`` there were, and the ``window`` of their events; else empty.
    """

    def __init__(self, config: FusionConfig, tensors: dict[str, NDArray[np.float64]], about: dict[str, Any] | None = None) -> None:
        self.config = config
        self.about = about or {}
        self.made_with: dict[str, str] = {}
        self._tensors = tensors
        self._spans = _spans(config, tensors)
        self._network: Network = {name.removeprefix("network."): t for name, t in tensors.items() if name.startswith("network.")}
        self.dim = len(self._network["bias"]) if self._network else self._spans[-1].stop
        self.fusion_id = f"fusion:{_digest(config, tensors, self.about)[:12]}"

    @classmethod
    def fit(
        cls,
        vectors: Mapping[str, Floats],
        present: Mapping[str, NDArray[np.bool_]],
        config: FusionConfig,
        *,
        pairs_P2: NDArray[np.int64] | None = None,
        gaps_P: NDArray[np.int64] | None = None,
        pairs_window: tuple[str, str] | None = None,
    ) -> Fusion:
        """Return the fusion of `config` fitted on the present rows of each modality ([N, M] and bool [N]).

        ``contrastive`` and ``neighbours`` learn from `pairs_P2`, pairs of rows, the latter also from how many positions apart they
        were taken; `pairs_window`, the first and last instant of the events behind them, is stored with it.

        Deterministic for a given order of rows, for any number of threads. Memory: 16 bytes per row; 24 bytes per value of one
        block of 16,384 rows; for kinds that learn from pairs 4 bytes more per row and kept dimension of all modalities, 48 bytes
        per pair, and what `neighbour_projection` says.

        Raises:
            EncoderError: a present vector is not finite or lies too far from the others (`check_near`), a block keeps more dims
                than its vectors have, no two rows differ, no items have the modalities that ``cca`` and ``align`` relate, or
                ``contrastive`` has no pairs.
            ValueError: a modality or its mask is missing, shapes do not match, or pairs name rows that are not there.
        """
        _check_inputs(vectors, present, config)
        check_near(vectors, present, config)
        if pairs_P2 is not None:
            check_pairs(pairs_P2, gaps_P, _num_rows(present))
        with threadpool_limits(limits=1, user_api="blas"):
            tensors = fit_tensors(vectors, present, config, pairs_P2, gaps_P)
        if config.fuse.unit and config.fuse.kind != "neighbours":
            tensors["length"] = np.ones(1)
            raw = cls(config, tensors)
            total = sum(float(np.sqrt(np.square(y_BD).sum(axis=1)).sum()) for _, y_BD, _ in raw._blocks(vectors, present))
            tensors["length"] = np.array([total / max(_num_rows(present), 1)])
        about: dict[str, Any] = {}
        if config.fuse.kind in PAIR_KINDS and pairs_P2 is not None:
            about = {"pairs": len(pairs_P2), "window": list(pairs_window) if pairs_window else None}
        fusion = cls(config, tensors, about)
        if config.fuse.kind in PAIR_KINDS:
            from sidlake.encoders.fusion.made_with import made_with  # torch is loaded by who trains, not by who fuses

            fusion.made_with = made_with()
        return fusion

    def transform(self, vectors: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.float32]:
        """Return the fused rows, float32 [N, D]; each depends on its own vectors alone, bit for bit.

        Raises:
            EncoderError: a present vector that is not finite (the message names its row).
            ValueError: a modality or its mask is missing, or shapes do not match.
        """
        _check_inputs(vectors, present, self.config)
        fused_ND = np.zeros((_num_rows(present), self.dim), dtype=np.float32)
        with threadpool_limits(limits=1, user_api="blas"):
            for rows, sum_BD, _ in self._blocks(vectors, present):
                fused_ND[rows] = self._finished(sum_BD)
        return fused_ND

    def _finished(self, sum_BD: NDArray[np.float64]) -> NDArray[np.float64]:
        if self._network:
            return apply_network(self._network, sum_BD, _fixed_product)
        return unit_rows(sum_BD) if self.config.fuse.unit else sum_BD

    def explained(self, vectors: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
        """Return each modality's share of the variance of the fused rows; the shares sum to 1.

        A share is the covariance of the modality's part with the whole over the variance of the whole: what two modalities say
        together is split evenly between them, and a modality that mostly contradicts the others has a share below 0. Where all
        fused rows are equal every share is 0. Of ``neighbours``, which is no sum, it is the Shapley value of that covariance: what
        a modality adds to others' on average, those left out being absent.

        Raises as `transform`.
        """
        _check_inputs(vectors, present, self.config)
        if self._network:
            return self._shapley(vectors, present)
        names = [entry.modality for entry in self.config.blocks]
        sums_MD = np.zeros((len(names), self.dim))
        crossed_M = np.zeros(len(names))
        num_rows = _num_rows(present)
        with threadpool_limits(limits=1, user_api="blas"):
            for _, whole_BD, parts in self._blocks(vectors, present):
                scale_B1 = _scale(whole_BD) if self.config.fuse.unit else np.ones((len(whole_BD), 1))
                for m, (span, part_BK) in enumerate(parts):
                    sums_MD[m, span] += (part_BK * scale_B1).sum(axis=0)
                    crossed_M[m] += (part_BK * scale_B1 * (whole_BD * scale_B1)[:, span]).sum()
        shares_M = crossed_M - sums_MD @ sums_MD.sum(axis=0) / max(num_rows, 1)
        return dict(zip(names, (shares_M / (shares_M.sum() or 1.0)).tolist(), strict=True))

    def _shapley(self, vectors: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
        names = [entry.modality for entry in self.config.blocks]
        whole_ND = self.transform(vectors, present)
        centred_ND = whole_ND - whole_ND.mean(axis=0, dtype=np.float64)
        variance = float(np.square(centred_ND).sum()) or 1.0
        absent_N = np.zeros(len(whole_ND), dtype=np.bool_)

        def worth(chosen: tuple[int, ...]) -> float:
            some = {name: present[name] if m in chosen else absent_N for m, name in enumerate(names)}
            return float((self.transform(vectors, some) * centred_ND).sum()) / variance

        return dict(zip(names, shapley_shares(len(names), worth), strict=True))

    def inverse(self, fused_ND: Floats) -> dict[str, NDArray[np.float32]]:
        """Return each modality's vectors, float32 [N, M], nearest to the fused rows.

        Kinds that keep modalities apart are exact within the kept PCA directions. Where modalities share a space, the fused row
        is divided between them as least squares has it over the fitted rows, also for an item that lacks one. Of a ``unit`` fusion
        only the direction can be undone: rows are taken to have the mean length of the fitted ones. What ``neighbours`` made is
        mapped to the vectors that are expected of it, the best affine guess over the fitted rows.

        Raises:
            ValueError: `fused_ND` does not have `dim` columns.
        """
        if fused_ND.ndim != 2 or fused_ND.shape[1] != self.dim:
            raise ValueError(f"fused rows must have {self.dim} columns, got shape {fused_ND.shape}")
        result: dict[str, NDArray[np.float32]] = {}
        length = float(self._tensors["length"][0]) if "length" in self._tensors else None
        with threadpool_limits(limits=1, user_api="blas"):
            if self._network:
                back_DS, at_S = self._network["back"][:-1], self._network["back"][-1]
                starts = range(0, len(fused_ND), _BLOCK_ROWS)
                guesses = [_fixed_product(fused_ND[i : i + _BLOCK_ROWS].astype(np.float64), back_DS) + at_S for i in starts]
                fused_ND = np.concatenate([*guesses, np.empty((0, len(at_S)))])
            for entry, span in zip(self.config.blocks, self._spans, strict=True):
                mean_M, unproject_KM = self._part(entry, "mean"), self._part(entry, "unproject")
                out_NM = np.empty((len(fused_ND), mean_M.size), dtype=np.float32)
                for first in range(0, len(fused_ND), _BLOCK_ROWS):
                    block_BK = fused_ND[first : first + _BLOCK_ROWS, span].astype(np.float64)
                    block_BK = block_BK if length is None else block_BK * length
                    out_NM[first : first + _BLOCK_ROWS] = _fixed_product(block_BK, unproject_KM) + mean_M
                result[entry.modality] = out_NM
        return result

    def save(self, path: Path) -> None:
        """Write one safetensors file whose header carries the config and the hash; it appears whole or not at all."""
        said = {"format": _FORMAT, "config": self.config.described(), "fusion_id": self.fusion_id}
        more = {"about": self.about, "made_with": self.made_with}
        header = json.dumps(said | {name: value for name, value in more.items() if value}, sort_keys=True)
        with replacing(path) as beside:
            beside.write_bytes(to_safetensors(self._tensors, metadata={"fusion": header}))

    @classmethod
    def load(cls, path: Path) -> Fusion:
        """Return the fusion saved at `path`, after checking its hash; a file from before there were kinds is a ``concat``.

        Raises:
            ArtifactError: the file is missing, damaged or of another format.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {})["fusion"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            values = header["config"]
            config = FusionConfig(
                weights=tuple(tuple(entry) for entry in values["weights"]),
                whiten=values["whiten"],
                fuse=FuseConfig(**values.get("fuse", {})),
            )
            about = dict(header.get("about", {}))
            stored, found = (header["format"], header["fusion_id"]), (_FORMAT, f"fusion:{_digest(config, tensors, about)[:12]}")
        except (SafetensorError, OSError, ValueError, LookupError, TypeError) as error:
            raise ArtifactError(f"{path} is not a readable fusion: {type(error).__name__}: {error}. Fit it again.") from error
        if stored != found:
            raise ArtifactError(f"{path} is damaged or of another format: it says {stored}, its content is {found}.")
        fusion = cls(config, tensors, about)
        fusion.made_with = {str(name): str(value) for name, value in header.get("made_with", {}).items()}
        return fusion

    def _blocks(
        self, vectors: Mapping[str, Floats], present: Mapping[str, NDArray[np.bool_]]
    ) -> Iterator[tuple[slice, NDArray[np.float64], list[tuple[slice, NDArray[np.float64]]]]]:
        """Yield for 256 rows at a time the rows, their sum [B, D], and each modality's part [B, K] with the columns it fills."""
        for entry in self.config.blocks:
            width, found = self._part(entry, "mean").size, vectors[entry.modality].shape[1]
            if present[entry.modality].any() and found != width:
                raise ValueError(f"{entry.modality!r} was fitted on {width} dims, got {found}")
        num_rows = _num_rows(present)
        for first in range(0, num_rows, _BLOCK_ROWS):
            rows = slice(first, min(first + _BLOCK_ROWS, num_rows))
            sum_BD = np.zeros((rows.stop - rows.start, self._spans[-1].stop))
            parts = []
            for entry, span in zip(self.config.blocks, self._spans, strict=True):
                has_B = present[entry.modality][rows]
                part_BK = np.zeros((len(sum_BD), span.stop - span.start))
                if has_B.any():
                    centred_BM = vectors[entry.modality][rows][has_B].astype(np.float64) - self._part(entry, "mean")
                    part_BK[has_B] = _fixed_product(centred_BM, self._part(entry, "project"))
                sum_BD[:, span] += part_BK
                parts.append((span, part_BK))
            yield rows, sum_BD, parts

    def _part(self, entry: ModalityWeight, part: str) -> NDArray[np.float64]:
        return self._tensors[f"{entry.modality}.{part}"]


def _spans(config: FusionConfig, tensors: dict[str, NDArray[np.float64]]) -> list[slice]:
    """Return the columns of the fused row that each modality fills: its own, or in a shared space all of them."""
    dims = [tensors[f"{entry.modality}.project"].shape[1] for entry in config.blocks]
    if config.fuse.kind not in BLOCK_KINDS and config.fuse.kind != "neighbours":
        return [slice(0, dim) for dim in dims]
    edges = np.cumsum([0, *dims]).tolist()
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _scale(rows_BD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return [B, 1]: one over each row's length, 0 for a row of zeros."""
    length_B1 = np.sqrt(np.square(rows_BD).sum(axis=1, keepdims=True))
    scale_B1: NDArray[np.float64] = np.divide(1.0, length_B1, out=np.zeros_like(length_B1), where=length_B1 > 0)
    return scale_B1


def _num_rows(present: Mapping[str, NDArray[np.bool_]]) -> int:
    return len(next(iter(present.values())))


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
        starts = range(0, len(rows_NM), _CHECKED_ROWS)
        finite = [np.isfinite(rows_NM[first : first + _CHECKED_ROWS]).all(axis=1) for first in starts]
        broken = np.flatnonzero(mask_N & ~np.concatenate([*finite, np.empty(0, np.bool_)]))
        if broken.size:
            raise EncoderError(
                f"The {name!r} vector of row {broken[0]} is not finite ({broken.size} such rows). Embed it again or drop it.",
                modality=name,
                index=int(broken[0]),
            )


def _digest(config: FusionConfig, tensors: dict[str, NDArray[np.float64]], about: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(config.described(), sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(f"{name}{tensors[name].shape}{tensors[name].dtype}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    if about:
        digest.update(json.dumps(about, sort_keys=True).encode())
    return digest.hexdigest()
