"""What it cost to give each item a semantic ID of its own: who moved, how far, and who left their prefix.

The cost of a move is ‖x − r_final‖ − ‖x − r_raw‖, Euclidean, in the quantised space: how much further the reconstruction lies than
before. It can be negative, since codes chosen level by level are not the nearest of all. An item spills when it left the prefix of
all levels but the last. Not done here: moving items (see the tokenizers).

Shapes: N items, L levels, M moved items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["UniquenessCost", "uniqueness_cost"]


@dataclass(frozen=True, kw_only=True, slots=True)
class UniquenessCost:
    """The price of uniqueness; costs are 0 where no item moved.

    Attributes:
        moved_share: Share of all items whose codes changed.
        spill_rate: Share of all items that left the prefix of all levels but the last; 0 with a single level.
        mean_cost: Mean over moved items.
        cost_quantiles: (q, cost that a share q of the moved items does not exceed), linear between items; q = 1 is the highest.
    """

    moved_share: float
    spill_rate: float
    mean_cost: float
    cost_quantiles: tuple[tuple[float, float], ...]


def uniqueness_cost(
    raw_codes_NL: npt.NDArray[np.integer[Any]],
    codes_NL: npt.NDArray[np.integer[Any]],
    costs_M: npt.NDArray[np.floating[Any]],
    *,
    quantiles: Sequence[float] = (0.5, 0.9, 0.99, 1.0),
) -> UniquenessCost:
    """Return the price of the final codes over the raw ones, `costs_M` being the costs of the moved items in the order of rows.

    Raises ValueError where shapes disagree, there are no items, or costs do not count the moved items.

    >>> uniqueness_cost(np.array([[0, 0], [0, 0]]), np.array([[0, 0], [0, 1]]), np.array([0.5]), quantiles=[1.0])
    UniquenessCost(moved_share=0.5, spill_rate=0.0, mean_cost=0.5, cost_quantiles=((1.0, 0.5),))
    """
    if raw_codes_NL.shape != codes_NL.shape or codes_NL.ndim != 2 or not len(codes_NL):
        msg = f"raw and final codes must describe the same items, at least 1, got {raw_codes_NL.shape} and {codes_NL.shape}"
        raise ValueError(msg)
    differ_NL = raw_codes_NL != codes_NL
    num_moved = int(np.count_nonzero(differ_NL.any(axis=1)))
    if costs_M.shape != (num_moved,):
        msg = f"{num_moved} items moved, but costs have shape {costs_M.shape}; pass one per moved item"
        raise ValueError(msg)
    costs = np.quantile(costs_M, quantiles).tolist() if num_moved else [0.0] * len(quantiles)
    return UniquenessCost(
        moved_share=num_moved / len(codes_NL),
        spill_rate=float(differ_NL[:, :-1].any(axis=1).mean()),
        mean_cost=float(costs_M.mean()) if num_moved else 0.0,
        cost_quantiles=tuple(zip(map(float, quantiles), costs, strict=True)),
    )
