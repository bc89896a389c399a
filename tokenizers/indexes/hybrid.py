"""Hybrid index: the first codes from the tree of co-occurrence, the last one the item's own ("HID" in P5, arXiv 2305.06569).

Known items and new ones get their last code by the same hash, so an item keeps it whatever else is in the catalogue.
"""

from __future__ import annotations

from sidlake.tokenizers.indexes.base import Hashes, IndexConfig, hashed_codes
from sidlake.tokenizers.indexes.collaborative import CollaborativeIndex
from sidlake.tokenizers.numeric.nearest import Int32Array

__all__ = ["HybridIndex"]


class HybridIndex(CollaborativeIndex):
    """Codes by place in the tree, then by hash."""

    kind = "hybrid_index"

    @classmethod
    def _last_codes(cls, hashes_M: Hashes, config: IndexConfig) -> Int32Array:
        return hashed_codes(hashes_M, config.widths[-1], seed=config.seed, level=len(config.widths) - 1)
