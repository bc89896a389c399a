"""What prefixes of semantic IDs say of categories that people gave: purity and normalised mutual information per depth.

Both rise with the number of prefixes whatever the codes mean: where each item has its own prefix, purity is 1. Beside each stands
the same of the categories dealt to the items at random. Items without a category are left out. Not done here: categories with a
hierarchy, and chance-corrected variants of the information (the dealt rate says as much).

Shapes: N items, L levels, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.metrics.exact_sums import entropy_of_counts
from sidlake.quality.metrics.prefixes import prefix_groups

__all__ = ["CategoryMatch", "category_match"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryMatch:
    """How well the prefixes that end at `level` match the categories.

    Attributes:
        level: Last level of the prefix.
        purity: Share of items whose category is the most frequent one of their prefix.
        nmi: I(prefix; category) / mean of both entropies, in [0, 1]; 0 where prefix and category both have one value only, for
            nothing is said (scikit-learn says 1).
        dealt_purity, dealt_nmi: The same of the categories dealt to the items at random, once.
    """

    level: int
    purity: float
    nmi: float
    dealt_purity: float
    dealt_nmi: float


def category_match(
    codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int], categories_N: npt.NDArray[np.integer[Any]], *, seed: int = 0
) -> tuple[CategoryMatch, ...]:
    """Return the match at each depth, coarse to fine; deterministic. A category is a number >= 0, −1 where an item has none.

    Memory: about 80 bytes per item. Raises ValueError where shapes disagree, no item has a category, or a code is outside its
    level.

    >>> found = category_match(np.array([[0, 0], [0, 1], [1, 0]]), [2, 2], np.array([5, 6, 6]))
    >>> [round(depth.purity, 3) for depth in found]
    [0.667, 1.0]
    """
    if codes_NL.ndim != 2 or categories_N.shape != (len(codes_NL),):
        msg = f"expected one category per item, got codes {codes_NL.shape} and categories {categories_N.shape}"
        raise ValueError(msg)
    known_N = categories_N >= 0
    if not known_N.any():
        msg = f"none of {len(codes_NL)} items has a category; leave the metric out"
        raise ValueError(msg)
    if not known_N.all():
        codes_NL, categories_N = codes_NL[known_N], categories_N[known_N]
    numbers_N = np.unique(categories_N, return_inverse=True)[1].astype(np.int64)
    dealt_N = np.random.default_rng(seed).permutation(numbers_N)
    found = []
    for level, groups_N in enumerate(prefix_groups(codes_NL, widths)):
        (purity, nmi), (dealt_purity, dealt_nmi) = (_match(groups_N, of_N) for of_N in (numbers_N, dealt_N))
        found.append(CategoryMatch(level=level, purity=purity, nmi=nmi, dealt_purity=dealt_purity, dealt_nmi=dealt_nmi))
    return tuple(found)


def _match(groups_N: Int64Array, categories_N: Int64Array) -> tuple[float, float]:
    """Return purity and normalised mutual information, from the sorted (prefix, category) pairs."""
    num_categories = int(categories_N.max()) + 1
    pairs_N = groups_N * num_categories + categories_N
    pairs_N.sort()
    firsts = np.concatenate([[0], np.flatnonzero(pairs_N[1:] != pairs_N[:-1]) + 1])
    sizes = np.diff(firsts, append=len(pairs_N))
    group_of_pair = pairs_N[firsts] // num_categories
    most = np.maximum.reduceat(sizes, np.concatenate([[0], np.flatnonzero(np.diff(group_of_pair)) + 1]))
    of_group, of_category = entropy_of_counts(np.bincount(groups_N)), entropy_of_counts(np.bincount(categories_N))
    shared = of_group + of_category - entropy_of_counts(sizes)
    mean = (of_group + of_category) / 2
    return float(most.sum() / len(pairs_N)), min(1.0, max(0.0, shared / mean)) if mean > 0 else 0.0
