"""The network of the fusion kind ``neighbours``, applied, and what each modality says of a result that is no sum of parts.

Not done here: training it (`neighbour_projection`), which needs torch; this does not.

Shapes: B rows of a block, S dims of all modalities side by side, D of the result, H hidden, J modalities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["Network", "apply_network", "shapley_shares", "unit_rows"]

Network = Mapping[str, NDArray[np.float64]]
"""``linear`` [S, D], ``bias`` [D], ``inner`` [S, H], ``inner_bias`` [H], ``outer`` [H, D], ``back`` [D + 1, S]."""

Product = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


def apply_network(network: Network, blocks_BS: NDArray[np.float64], product: Product = np.matmul) -> NDArray[np.float64]:
    """Return rows of length one [B, D]; the length of a row of blocks does not matter, and a row of zeros stays."""
    x_BS = unit_rows(blocks_BS)
    hidden_BH = np.maximum(product(x_BS, network["inner"]) + network["inner_bias"], 0.0)
    made_BD = product(x_BS, network["linear"]) + network["bias"] + product(hidden_BH, network["outer"])
    return unit_rows(made_BD * x_BS.any(axis=1, keepdims=True))


def shapley_shares(num: int, value_of: Callable[[tuple[int, ...]], float]) -> list[float]:
    """Return the Shapley value of each of `num` modalities, where those in `chosen` are together worth ``value_of(chosen)``.

    2^J calls. Of a sum of parts, worth the covariance with the whole, it is each part's own covariance.

    >>> worth = {(): 0.0, (0,): 0.5, (1,): 0.125, (0, 1): 1.0}
    >>> shapley_shares(2, worth.__getitem__)
    [0.6875, 0.3125]
    """
    chosen = [one for size in range(num + 1) for one in itertools.combinations(range(num), size)]
    worth = {one: value_of(one) for one in chosen}
    return [
        math.fsum(
            (worth[tuple(sorted((*others, one)))] - worth[others]) / (num * math.comb(num - 1, len(others)))
            for others in chosen
            if one not in others
        )
        for one in range(num)
    ]


def unit_rows(rows_BD: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rows scaled to length one; a row of zeros stays."""
    length_B1 = np.sqrt(np.square(rows_BD).sum(axis=1, keepdims=True))
    unit_BD: NDArray[np.float64] = np.divide(rows_BD, length_B1, out=np.zeros_like(rows_BD), where=length_B1 > 0)
    return unit_BD
