"""A linear projection of items that draws together what is bought together: InfoNCE on co-purchase pairs.

The idea of FORGE (arXiv 2509.20904) and OneRec (arXiv 2506.13695), which train encoders on such pairs, in its smallest form: one
matrix. It starts from the principal axes, so that it knows the items before it has seen a pair, and stays linear, so that an item
without purchases is placed by what it is. Other pairs of the batch are the negatives; an item is no negative of itself.

Deliberately not done: correction for popular items, which are negatives more often; hard negatives; a network.

Shapes: N items, S dims of all modalities side by side, D of the result, P pairs, B of a batch.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sidlake.encoders.fusion_config import FuseConfig

__all__ = ["contrastive_projection", "info_nce"]


def contrastive_projection(
    x_NS: NDArray[np.float32], pairs_P2: NDArray[np.int64], start_SD: NDArray[np.float64], config: FuseConfig
) -> NDArray[np.float64]:
    """Return the trained map, float64 [S, D]; the same for any order of pairs and of the two items within one.

    Runs on one thread of the CPU, seeded; torch's own generator and number of threads are left as they were.
    """
    ordered_P2 = np.sort(pairs_P2, axis=1)
    ordered_P2 = ordered_P2[np.lexsort(ordered_P2.T)]
    rng = np.random.default_rng(config.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x = torch.from_numpy(x_NS)
        joint = torch.nn.Parameter(torch.from_numpy(start_SD.astype(np.float32)))
        optimizer = torch.optim.Adam([joint], lr=config.learning_rate)
        for _ in range(config.num_steps):
            a, b = torch.from_numpy(ordered_P2[rng.integers(len(ordered_P2), size=config.batch_size)]).unbind(dim=1)
            loss = info_nce(x[a] @ joint, x[b] @ joint, a, b, temperature=config.temperature)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return joint.detach().numpy().astype(np.float64)
    finally:
        torch.set_num_threads(threads)


def info_nce(left_BD: Tensor, right_BD: Tensor, left_ids_B: Tensor, right_ids_B: Tensor, *, temperature: float) -> Tensor:
    """Return the symmetric InfoNCE of row i of both sides: cosine over `temperature`, the batch's other rows as negatives.

    A row of the other side that is the positive's item, or the item itself, is no negative.
    """
    scores = functional.normalize(left_BD, dim=1) @ functional.normalize(right_BD, dim=1).T / temperature
    other = ~torch.eye(len(scores), dtype=torch.bool)
    itself = left_ids_B[:, None] == right_ids_B[None]
    forth = scores.masked_fill(((right_ids_B[:, None] == right_ids_B[None]) | itself) & other, float("-inf"))
    back = scores.T.masked_fill(((left_ids_B[:, None] == left_ids_B[None]) | itself.T) & other, float("-inf"))
    target = torch.arange(len(scores))
    return (functional.cross_entropy(forth, target) + functional.cross_entropy(back, target)) / 2
