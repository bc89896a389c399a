"""Category index: an item's path in the category tree, one level per code, then a hash to tell items apart ("SemID" in P5).

Children of a category are numbered by how many of the fit's items they hold, the largest first, then by name. A path that ends
early goes on with empty names, which are numbered like others. Children beyond a level's width, and categories that the fit never
saw, get a code by hash: they share it with others, for ever. The last `hashed_levels` codes are hashes of the item.

Shape suffixes: N rows, L levels, C categories known at a level.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.tokenizers.indexes.base import Hashes, IndexConfig, ItemIndex, hashed_codes
from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.numeric.nearest import Float32Array, Int32Array
from sidlake.tokenizers.tokenizer import ItemFacts

__all__ = ["CategoryIndex", "CategoryIndexConfig"]

_Path = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryIndexConfig(IndexConfig):
    """How codes are spelled: as `IndexConfig` says, and more.

    Attributes:
        hashed_levels: How many of the last codes are hashes of the item; the codes before them are categories.
    """

    hashed_levels: int = 1

    def __post_init__(self) -> None:
        IndexConfig.__post_init__(self)  # super() fails in slotted dataclasses: they are made twice
        if not 0 <= self.hashed_levels <= len(self.widths):
            msg = f"hashed_levels must be in [0, {len(self.widths)}], the number of levels, got {self.hashed_levels}"
            raise ValueError(msg)


class CategoryIndex(ItemIndex):
    """Codes by category.

    `learned` holds per level ``paths.<level>``, hashes of paths that have a code of their own, ascending, and ``codes.<level>``.
    """

    kind = "category_index"
    config_type = CategoryIndexConfig
    fit_needs = frozenset({"item_hashes_N", "categories_N"})
    encode_needs = fit_needs

    @classmethod
    def _learn(
        cls, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts, config: CategoryIndexConfig
    ) -> dict[str, npt.NDArray[Any]]:
        assert facts.categories_N is not None
        learned: dict[str, npt.NDArray[Any]] = {}
        for level in range(len(config.widths) - config.hashed_levels):
            codes = _numbered(_prefixes(facts.categories_N, level + 1), config.widths[level])
            hashes_C = _path_hashes(list(codes))
            order = np.argsort(hashes_C)
            learned[f"paths.{level}"] = hashes_C[order]
            learned[f"codes.{level}"] = np.fromiter(codes.values(), dtype=np.int32, count=len(codes))[order]
        return learned

    def _codes(self, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts) -> Int32Array:
        assert facts.categories_N is not None
        codes_NL = np.empty((len(x_ND), len(self.widths)), dtype=np.int32)
        num_categories = len(self.widths) - self.config.hashed_levels
        for level, width in enumerate(self.widths):
            if level < num_categories:
                codes_NL[:, level] = self._category_codes(_prefixes(facts.categories_N, level + 1), level)
            else:
                codes_NL[:, level] = hashed_codes(hashes_N, width, seed=self.config.seed, level=level)
        return codes_NL

    def _category_codes(self, paths_N: Sequence[_Path], level: int) -> Int32Array:
        numbers: dict[_Path, int] = {}
        inverse_N = [numbers.setdefault(path, len(numbers)) for path in paths_N]
        hashes = _path_hashes(list(numbers))
        stored_C, codes_C = self.learned[f"paths.{level}"], self.learned[f"codes.{level}"]
        places = np.minimum(np.searchsorted(stored_C, hashes), max(len(stored_C) - 1, 0))
        by_hash = hashed_codes(hashes, self.widths[level], seed=self.config.seed, level=level)
        found = np.where(stored_C[places] == hashes, codes_C[places], by_hash) if len(stored_C) else by_hash
        codes_N: Int32Array = found.astype(np.int32)[inverse_N]
        return codes_N


def _prefixes(categories_N: Sequence[Sequence[str]], depth: int) -> list[_Path]:
    """Return each item's path cut or filled with empty names to `depth`. 0.3 us per item."""
    empty = ("",) * depth
    return [(*path, *empty)[:depth] for path in categories_N]


def _numbered(paths_N: Sequence[_Path], width: int) -> dict[_Path, int]:
    """Return the code of each path that gets one of its own: its rank among its parent's children."""
    children: dict[_Path, list[tuple[int, str]]] = {}
    for path, count in Counter(paths_N).items():
        children.setdefault(path[:-1], []).append((-count, path[-1]))
    return {(*parent, name): rank for parent, found in children.items() for rank, (_, name) in enumerate(sorted(found)[:width])}


def _path_hashes(paths: Sequence[_Path]) -> Hashes:
    return item_hashes([json.dumps(path) for path in paths])
