"""How evenly each level uses its codebook.

Levels are looked at one by one, over items. Fewer items than codes cannot use all codes: utilisation is then at most items/width.
Not done here: whole SIDs (see `collision`) and prefixes.

Shapes: N items, L levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.metrics.exact_sums import entropy_of_counts

__all__ = ["LevelUsage", "level_usage", "usage_of_counts"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelUsage:
    """Use of one level's codes, p being the share of items per code.

    utilisation = num_used/width; num_dead = width − num_used; entropy = −Σ p·ln p in nats; normalised_entropy = entropy/ln(width),
    1 for a width of 1; perplexity = exp(entropy), the number of equally used codes that would have this entropy.
    """

    level: int
    width: int
    num_used: int
    num_dead: int
    utilisation: float
    entropy: float
    normalised_entropy: float
    perplexity: float


def level_usage(codes_NL: npt.NDArray[np.integer[Any]], widths: Sequence[int]) -> list[LevelUsage]:
    """Return the usage of each level, coarse to fine; independent of the order of rows.

    Raises ValueError where there are no items, the number of widths is not the number of levels, or a code is outside [0, width).

    >>> usage = level_usage(np.array([[0, 3], [1, 3]]), [2, 4])
    >>> [(u.num_used, u.utilisation, round(u.perplexity, 6)) for u in usage]
    [(2, 1.0, 2.0), (1, 0.25, 1.0)]
    """
    if codes_NL.ndim != 2 or codes_NL.shape[0] == 0 or codes_NL.shape[1] != len(widths):
        msg = f"codes must have shape (items >= 1, {len(widths)}), one column per width, got {codes_NL.shape}"
        raise ValueError(msg)
    return [_usage_of(level, codes_NL[:, level], width) for level, width in enumerate(widths)]


def _usage_of(level: int, codes_N: npt.NDArray[np.integer[Any]], width: int) -> LevelUsage:
    low, high = int(codes_N.min()), int(codes_N.max())
    if low < 0 or high >= width:
        msg = f"level {level}: codes range over [{low}, {high}], allowed [0, {width - 1}]; pass the widths the codes were made with"
        raise ValueError(msg)
    return usage_of_counts(level, np.bincount(codes_N, minlength=width))


def usage_of_counts(level: int, counts_K: npt.NDArray[np.integer[Any]]) -> LevelUsage:
    """Return the usage of a level from the items of each of its codes, used or not; raises ValueError without an item."""
    width, num_items = len(counts_K), int(counts_K.sum())
    if not num_items:
        msg = f"level {level}: the use of {width} codes by 0 items is undefined; count at least 1 item"
        raise ValueError(msg)
    num_used, entropy = int(np.count_nonzero(counts_K)), entropy_of_counts(counts_K)
    return LevelUsage(
        level=level,
        width=width,
        num_used=num_used,
        num_dead=width - num_used,
        utilisation=num_used / width,
        entropy=entropy,
        normalised_entropy=entropy / math.log(width) if width > 1 else 1.0,
        perplexity=math.exp(entropy),
    )
