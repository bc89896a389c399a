"""Sequential index: items numbered by when they were first seen, spelled so that neighbours in time share prefixes ("SID" in P5).

The fit's items, in the order of (first seen, hash), share the code space evenly: at each level equal stretches of that order, give
or take two items, get one code after the other. (P5 numbers items 1001, 1002, … and leaves spelling to a text tokenizer; plain
numbers here would have the same first codes for all.) A new item gets the number of the fit's first item that is not before it;
items later than all of them share the last one, and uniqueness has to tell them apart. The artifact holds 16 bytes per item.

Shape suffixes: N rows, M items of the fit, L levels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.indexes.base import Hashes, IndexConfig, ItemIndex
from sidlake.tokenizers.numeric.nearest import Float32Array, Int32Array, Int64Array
from sidlake.tokenizers.tokenizer import ItemFacts

__all__ = ["SequentialIndex"]


class SequentialIndex(ItemIndex):
    """Codes by time."""

    kind = "sequential_index"
    fit_needs = frozenset({"item_hashes_N", "first_seen_N"})
    encode_needs = fit_needs

    @classmethod
    def _learn(cls, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts, config: IndexConfig) -> dict[str, npt.NDArray[Any]]:
        assert facts.first_seen_N is not None
        order = np.lexsort((hashes_N, facts.first_seen_N))
        return {"first_seen": facts.first_seen_N[order].astype(np.int64), "hashes": hashes_N[order]}

    def _codes(self, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts) -> Int32Array:
        assert facts.first_seen_N is not None
        places_N = _places(facts.first_seen_N, hashes_N, self.learned["first_seen"], self.learned["hashes"])
        return spelled(places_N, len(self.learned["hashes"]) + 1, self.widths)


def spelled(places_N: Int64Array, num_places: int, widths: tuple[int, ...]) -> Int32Array:
    """Return codes_NL of ``place / num_places`` as a mixed-radix fraction, cut off after L digits: in order, and evenly spread.

    >>> spelled(np.arange(6), 6, (3, 2)).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1]]
    """
    codes_NL = np.empty((len(places_N), len(widths)), dtype=np.int32)
    rest_N = places_N.astype(np.int64)
    for level, width in enumerate(widths):  # long division
        codes_NL[:, level], rest_N = np.divmod(rest_N * width, num_places)
    return codes_NL


def _places(seen_N: Int64Array, hashes_N: Hashes, stored_seen_M: Int64Array, stored_hashes_M: Hashes) -> Int64Array:
    """Return how many stored keys (time, then hash) are below each key."""
    low_N, high_N = np.searchsorted(stored_seen_M, seen_N, side="left"), np.searchsorted(stored_seen_M, seen_N, side="right")
    while (open_N := np.flatnonzero(low_N < high_N)).size:  # bisection, all rows at a time: at most 64 rounds
        middle = (low_N[open_N] + high_N[open_N]) // 2
        is_below = stored_hashes_M[middle] < hashes_N[open_N]
        low_N[open_N] = np.where(is_below, middle + 1, low_N[open_N])
        high_N[open_N] = np.where(is_below, high_N[open_N], middle)
    return low_N.astype(np.int64)
