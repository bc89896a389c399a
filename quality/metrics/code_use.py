"""What a table of codes says by itself, in one pass and one sort: use of levels, load of the prefix tree, collisions.

The prefix tree has the SIDs' prefixes of depth d (first d levels) as nodes, and as weight of a node the items below it. Entropies
are in nats. On a table where each item has its own SID, the Gini coefficient of the leaves is 0 by construction; those of the
shorter prefixes say something still. Not done here: the same prefixes against vectors, categories or users (see `neighbourhoods`,
`categories`, `consecutive`).

Shapes: N items, L levels, P prefixes of a depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.metrics.collision import CollisionStats
from sidlake.quality.metrics.exact_sums import entropy_of_counts
from sidlake.quality.metrics.prefixes import pack, prefix_starts, sort_words
from sidlake.quality.metrics.utilisation import LevelUsage, usage_of_counts

__all__ = ["CodeCounter", "CodeUse", "PrefixLoad", "code_use", "gini_of_histogram"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixLoad:
    """How the items spread over the prefixes that end at `level`: one depth of the tree.

    Attributes:
        level: Last level of the prefix; its depth is level + 1.
        num_prefixes: Occupied prefixes, of `capacity` = product of the widths so far.
        gini: Gini coefficient of the items per occupied prefix; at the last level that of FORGE.
        capacity_gini: The same over all `capacity` prefixes, empty ones too: 1 − (num_prefixes/capacity)·(1 − gini).
        entropy: −Σ p·ln p over prefixes, p being their share of items.
        conditional_entropy: Entropy of this level's code given the prefix before it, H(prefix) − H(prefix before).
        mean_fan_out, max_fan_out, fan_out_gini: Different codes that follow a prefix one level shorter (of level 0: the root).
        largest: Items of the fullest prefix.
        mean_load: Items that share the prefix of an item, the item included, mean over items: Σn²/N.
        alone_share: Share of items that no other item shares the prefix with.
    """

    level: int
    num_prefixes: int
    capacity: int
    gini: float
    capacity_gini: float
    entropy: float
    conditional_entropy: float
    mean_fan_out: float
    max_fan_out: int
    fan_out_gini: float
    largest: int
    mean_load: float
    alone_share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeUse:
    """Everything that codes say by themselves: `levels` and `prefixes` coarse to fine, and collisions of whole SIDs.

    mean_depth: mean number of levels that it takes to tell an item from all others, L for items that share their SID;
    depth_deviation: its standard deviation, 0 where every item needs as many (the tree is balanced in depth).
    """

    levels: tuple[LevelUsage, ...]
    prefixes: tuple[PrefixLoad, ...]
    collisions: CollisionStats
    mean_depth: float
    depth_deviation: float


class CodeCounter:
    """Accumulates codes batch by batch; what it returns does not depend on their order or on the cut into batches.

    Memory: 8·W bytes per item (W = 1 up to 64 bits a SID), three times that while finishing, and 8 bytes per code of each level.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        self._widths = tuple(int(width) for width in widths)
        self._words = [pack(np.zeros((0, len(self._widths)), dtype=np.int32), self._widths)]
        self._counts = [np.zeros(width, dtype=np.int64) for width in self._widths]

    def update(self, codes_NL: npt.NDArray[np.integer[Any]]) -> None:
        """Add a batch (N, L). Raises ValueError as `pack` does."""
        self._words.append(pack(codes_NL, self._widths))
        for level, counts in enumerate(self._counts):
            counts += np.bincount(codes_NL[:, level], minlength=len(counts))

    def finalize(self) -> CodeUse:
        """Return what the items added say; raises ValueError when there are none."""
        self._words = [np.concatenate(self._words, axis=1)]
        num_items = self._words[0].shape[1]
        if not num_items:
            msg = "the use of codes by 0 items is undefined; add at least 1 batch"
            raise ValueError(msg)
        self._words = [sort_words(self._words[0])]
        return _use_of(prefix_starts(self._words[0], self._widths), self._counts, num_items)


def code_use(codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int]) -> CodeUse:
    """Return the use of codes held in memory.

    >>> use = code_use(np.array([[0, 0], [0, 1], [1, 0]]), [2, 2])
    >>> [(p.num_prefixes, p.mean_fan_out, p.largest) for p in use.prefixes], round(use.mean_depth, 3)
    ([(2, 2.0, 2), (3, 1.5, 1)], 1.667)
    """
    counter = CodeCounter(widths)
    counter.update(codes_NL)
    return counter.finalize()


def gini_of_histogram(sizes_V: npt.NDArray[np.integer[Any]], counts_V: npt.NDArray[np.integer[Any]]) -> float:
    """Return `gini` of groups of which counts[v] hold sizes[v] items, sizes ascending and above 0.

    >>> round(gini_of_histogram(np.array([1, 2, 3]), np.array([3, 1, 1])), 12)
    0.25
    """
    num = int(counts_V.sum())
    last_V = np.cumsum(counts_V)
    items_V = sizes_V * counts_V
    twice_weighted = int(np.sum(items_V * (2 * num + 1 - 2 * last_V + counts_V)))  # of whole numbers: no order can change it
    return max(0.0, (num + 1) / num - twice_weighted / (num * int(items_V.sum())))


def _use_of(starts: Iterable[npt.NDArray[np.bool_]], counts: Sequence[Int64Array], num_items: int) -> CodeUse:
    loads: list[PrefixLoad] = []
    before_N = np.zeros(num_items, dtype=np.bool_)  # the root: one prefix that starts at the first item
    before_N[0] = True
    entropy, capacity = 0.0, 1
    for level, starts_N in enumerate(starts):
        firsts = np.flatnonzero(starts_N)
        sizes_V, numbers_V = _histogram(np.diff(firsts, append=num_items))
        fan_out = np.diff(np.flatnonzero(before_N[firsts]), append=len(firsts))
        capacity *= len(counts[level])
        load = _load(level, capacity, (sizes_V, numbers_V), fan_out, entropy)
        loads.append(load)
        before_N, entropy = starts_N, load.entropy
    mean, deviation = _depth([load.alone_share for load in loads])
    return CodeUse(
        levels=tuple(usage_of_counts(level, counts_K) for level, counts_K in enumerate(counts)),
        prefixes=tuple(loads),
        collisions=CollisionStats(
            num_items=num_items,
            num_unique=loads[-1].num_prefixes,
            collision_rate=1.0 - loads[-1].num_prefixes / num_items,
            uniquely_identified_share=loads[-1].alone_share,
            largest_group=loads[-1].largest,
            group_size_histogram=tuple(zip(sizes_V.tolist(), numbers_V.tolist(), strict=True)),
        ),
        mean_depth=mean,
        depth_deviation=deviation,
    )


def _load(level: int, capacity: int, histogram: tuple[Int64Array, Int64Array], fan_out: Int64Array, before: float) -> PrefixLoad:
    sizes_V, numbers_V = histogram
    items_V = sizes_V * numbers_V
    num_items, num_prefixes = int(items_V.sum()), int(numbers_V.sum())
    unevenness = gini_of_histogram(sizes_V, numbers_V)
    entropy = entropy_of_counts(sizes_V, numbers_V)
    return PrefixLoad(
        level=level,
        num_prefixes=num_prefixes,
        capacity=capacity,
        gini=unevenness,
        capacity_gini=1.0 - num_prefixes / capacity * (1.0 - unevenness),
        entropy=entropy,
        conditional_entropy=max(0.0, entropy - before),
        mean_fan_out=num_prefixes / len(fan_out),
        max_fan_out=int(fan_out.max()),
        fan_out_gini=gini_of_histogram(*_histogram(fan_out)),
        largest=int(sizes_V[-1]),
        mean_load=int(np.sum(items_V * sizes_V)) / num_items,
        alone_share=int(numbers_V[0]) / num_items if sizes_V[0] == 1 else 0.0,
    )


def _histogram(sizes: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Return the different sizes, ascending, and how many have each."""
    numbers = np.bincount(sizes)
    found = np.flatnonzero(numbers)
    return found.astype(np.int64), numbers[found].astype(np.int64)


def _depth(alone_shares: Sequence[float]) -> tuple[float, float]:
    """Return mean and standard deviation of the depth at which items are alone; those that never are count with the last."""
    share_L = np.diff(np.array([0.0, *alone_shares[:-1], 1.0]))
    mean = math.fsum(depth * share for depth, share in enumerate(share_L.tolist(), start=1))
    return mean, math.sqrt(math.fsum(share * (depth - mean) ** 2 for depth, share in enumerate(share_L.tolist(), start=1)))
