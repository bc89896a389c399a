"""What a model knows of the items of a catalogue: codes, fused vectors, and which of them training has seen.

Rows are in the order of `ItemCatalogue`. Memory per item: 8 bytes per level and 4 per dimension of the fused vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidlake.errors import ContractError
from sidlake.generative.catalogue import ItemCatalogue
from sidlake.generative.sequences import Histories

__all__ = ["ItemFacts"]

_BLOCK_ITEMS = 512


@dataclass(frozen=True, slots=True, eq=False)
class ItemFacts:
    """`codes_NL` int64 numbers all codes of all levels from 0; `fused_NF` float32, rows of length sqrt(F), or (N, 0) without;
    `known_N` bool says which items training histories hold."""  # noqa: D205, D209

    widths: tuple[int, ...]
    codes_NL: Tensor
    fused_NF: Tensor
    known_N: Tensor

    @classmethod
    def of(cls, catalogue: ItemCatalogue, train: Histories, fused_NF: npt.NDArray[np.float32] | None) -> ItemFacts:
        """Return the facts of `catalogue`; `ContractError` where `fused_NF` has another number of rows, or not all finite."""
        codes_NL = torch.from_numpy(catalogue.tokens_NL - catalogue.space.offsets[0])
        known_N = torch.zeros(catalogue.num_items, dtype=torch.bool)
        known_N[torch.from_numpy(train.flat_items())] = True
        return cls(catalogue.space.widths, codes_NL, _unit_variance(fused_NF, catalogue.num_items), known_N)

    def lenders(self) -> Tensor:
        """Return for each item whose learned vector it has, (N,) int64: its own, or the nearest known item's for one not known.

        Nearest is by the cosine of fused vectors; without these it is the item itself. Memory: 512 rows of cosines.
        """
        return _lenders(self.fused_NF, self.known_N)

    @property
    def num_items(self) -> int:
        """Return the number of items."""
        return len(self.codes_NL)


def _lenders(fused_NF: Tensor, known_N: Tensor) -> Tensor:
    lender_N = torch.arange(len(known_N), device=known_N.device)
    if not fused_NF.shape[1] or not known_N.any():
        return lender_N
    known_K = known_N.nonzero().squeeze(1)
    for new_B in torch.split((~known_N).nonzero().squeeze(1), _BLOCK_ITEMS):
        lender_N[new_B] = known_K[(fused_NF[new_B] @ fused_NF[known_K].T).argmax(dim=1)]
    return lender_N


def _unit_variance(fused_NF: npt.NDArray[np.float32] | None, num_items: int) -> Tensor:
    if fused_NF is None:
        return torch.zeros((num_items, 0))
    if len(fused_NF) != num_items or not np.isfinite(fused_NF).all():
        msg = (
            f"{len(fused_NF)} fused vectors for {num_items} items, or one that is not finite; read both from one release, or leave"
            " fused out of inputs"
        )
        raise ContractError(msg, vectors=len(fused_NF), items=num_items)
    norms_N1 = np.maximum(np.linalg.norm(fused_NF, axis=1, keepdims=True), 1e-12)
    return torch.from_numpy((fused_NF / norms_N1 * np.sqrt(fused_NF.shape[1])).astype(np.float32))
