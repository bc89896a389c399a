"""What having had an item does to its score: a learned bias by how long ago and how often, RepeatNet's question (arXiv 1812.02646).

Whether customers come back for the same is a fact of the catalogue: nobody reviews an article of Beauty twice, half of what a gift
shop sells to a customer it has sold to them before. So it is learned, not set: the score of each item that the history holds gets
``recency[b] + count[c]``, b the logarithm of its distance, c that of its number. Two tables of a few numbers, zero at first.

Shape suffixes: R rows, W positions, X pairs of a position and an item that it has seen.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["RepeatBias", "seen_pairs"]

_COUNTS = 5
_STRIDE = 30.0
"""What a parameter's unit adds to a score: an optimizer moves each by its rate a step, too little for a bias of several units."""


class RepeatBias(nn.Module):
    """A bias for pairs of distance (0: the newest item itself) and count (from 1): thirty times the sum of two parameters."""

    def __init__(self, max_history: int) -> None:
        super().__init__()
        self.recency = nn.Parameter(torch.zeros(max_history.bit_length() + 1))
        self.count = nn.Parameter(torch.zeros(_COUNTS))

    def forward(self, distance_X: Tensor, count_X: Tensor) -> Tensor:
        """Return the bias of each pair."""
        recency_X = _log2(distance_X + 1).clamp(max=len(self.recency) - 1)
        return _STRIDE * (self.recency[recency_X] + self.count[_log2(count_X).clamp(max=_COUNTS - 1)])


def seen_pairs(segment_RW: Tensor, until_RW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, position and earlier position, each (X,): the last place of each different item that a position has seen.

    A position has seen its own item. `until_RW` is the position at which an item stands again.
    """
    positions_W = torch.arange(segment_RW.shape[1], device=segment_RW.device)
    same_RWW = (segment_RW[:, :, None] == segment_RW[:, None, :]) & (segment_RW >= 0)[:, None, :]
    last_RWW = (positions_W[None, None, :] <= positions_W[None, :, None]) & (positions_W[None, :, None] < until_RW[:, None, :])
    row_X, position_X, earlier_X = (same_RWW & last_RWW).nonzero(as_tuple=True)
    return row_X, position_X, earlier_X


def _log2(values_X: Tensor) -> Tensor:
    """Return the whole part of the base-2 logarithm of whole numbers from 1 below 2**24, without rounding errors."""
    return torch.frexp(values_X.float()).exponent.long() - 1
