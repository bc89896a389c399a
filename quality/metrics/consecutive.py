"""How often two items that a user has in a row share a prefix, beside the rate that chance gives.

A recommender over semantic IDs can use a prefix only as far as what comes next shares it. Repeats of one item say nothing of the
codes and are left out. The chance rate is exact, no sample: the expected share when the second items of all pairs are dealt among
the first ones, so popular items meet as often as they do. Not done here: items further apart in time.

Shapes: N items, L levels, P pairs of consecutive items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.metrics.prefixes import prefix_groups
from sidlake.quality.metrics.sessions import Sessions

__all__ = ["ConsecutiveShare", "consecutive_pairs", "consecutive_share"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsecutiveShare:
    """The share of pairs whose two items share the prefix that ends at `level`, and the share expected of shuffled pairs."""

    level: int
    share: float
    shuffled_share: float


def consecutive_pairs(sessions: Sessions) -> Int64Array:
    """Return the pairs (P, 2) of items that follow each other in a session, the target last; items outside the gallery break it.

    >>> sessions = Sessions(items_flat=np.array([4, 2, 2, 7]), offsets=np.array([0, 3, 4]), targets=np.array([5, -1]))
    >>> consecutive_pairs(sessions).tolist()
    [[4, 2], [2, 5]]
    """
    flat = np.insert(sessions.items_flat, sessions.offsets[1:], sessions.targets)
    session_of = np.repeat(np.arange(sessions.num_sessions), np.diff(sessions.offsets) + 1)
    first, second = flat[:-1], flat[1:]
    usable = (session_of[1:] == session_of[:-1]) & (first >= 0) & (second >= 0) & (first != second)
    return np.stack([first[usable], second[usable]], axis=1)


def consecutive_share(
    codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int], pairs_P2: npt.NDArray[np.integer[Any]]
) -> tuple[ConsecutiveShare, ...]:
    """Return the shares at each depth, coarse to fine; pairs of an item with itself are left out on both sides.

    Memory: about 60 bytes per item and 24 per pair. Raises ValueError where no two items differ in a pair, a row is outside the
    codes, or a code is outside its level. The shuffled share is NaN where every shuffled pair is one item twice.

    >>> shares = consecutive_share(np.array([[0, 0], [0, 1], [1, 0]]), [2, 2], np.array([[0, 1], [1, 2]]))
    >>> [(found.share, round(found.shuffled_share, 3)) for found in shares]
    [(0.5, 0.333), (0.0, 0.0)]
    """
    if (
        pairs_P2.ndim != 2
        or pairs_P2.shape[1] != 2
        or (len(pairs_P2) and not 0 <= pairs_P2.min() <= pairs_P2.max() < len(codes_NL))
    ):
        msg = f"pairs must have shape (pairs, 2) and name rows 0 to {len(codes_NL) - 1}, got shape {pairs_P2.shape}"
        raise ValueError(msg)
    first_P, second_P = pairs_P2[pairs_P2[:, 0] != pairs_P2[:, 1]].T
    if not len(first_P):
        msg = f"none of {len(pairs_P2)} pairs has two different items; the share of consecutive items is undefined"
        raise ValueError(msg)
    same_item = _meetings(np.arange(len(codes_NL)), first_P, second_P)
    others = len(first_P) ** 2 - same_item
    found = []
    for level, groups_N in enumerate(prefix_groups(codes_NL, widths)):
        met = _meetings(groups_N, first_P, second_P) - same_item
        share = float(np.mean(groups_N[first_P] == groups_N[second_P]))
        found.append(ConsecutiveShare(level=level, share=share, shuffled_share=met / others if others else float("nan")))
    return tuple(found)


def _meetings(groups_N: Int64Array, first_P: Int64Array, second_P: Int64Array) -> int:
    """Return how many of the P² pairings of a first with a second item fall into one group."""
    num_groups = int(groups_N.max()) + 1
    counts = [np.bincount(groups_N[of_P], minlength=num_groups) for of_P in (first_P, second_P)]
    return int(np.sum(counts[0].astype(np.int64) * counts[1]))  # whole numbers, below 2**63 up to three billion pairs
