"""Random index: codes by chance, the same for an item everywhere and for ever (arXiv 2305.06569, "RID").

What any scheme of codes has to beat. Codes are seeded hashes of the item's id, one per level; nothing about the item is in them. A
prefix says nothing about the rest, though models read these codes one after another like any others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.indexes.base import Hashes, IndexConfig, ItemIndex, hashed_codes
from sidlake.tokenizers.numeric.nearest import Float32Array, Int32Array
from sidlake.tokenizers.tokenizer import ItemFacts

__all__ = ["RandomIndex"]


class RandomIndex(ItemIndex):
    """Codes by hash."""

    kind = "random_index"

    @classmethod
    def _learn(cls, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts, config: IndexConfig) -> dict[str, npt.NDArray[Any]]:
        return {}

    def _codes(self, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts) -> Int32Array:
        seed = self.config.seed
        return np.stack([hashed_codes(hashes_N, width, seed=seed, level=i) for i, width in enumerate(self.widths)], axis=1)
