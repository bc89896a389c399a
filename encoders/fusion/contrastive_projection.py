"""A linear projection of items that draws together what is bought together: InfoNCE on co-purchase pairs.

The idea of FORGE (arXiv 2509.20904) and OneRec (arXiv 2506.13695), which train encoders on such pairs, in its smallest form: one
matrix. It starts from the principal axes, so that it knows the items before it has seen a pair, and stays linear, so that an item
without purchases is placed by what it is. Other pairs of the batch are the negatives; an item is no negative of itself.

In training an item shows one of its modalities at a time, drawn anew for every pair. Shown all, the projection copies the answer
from vectors of behaviour, which were made of the same pairs, and forgets the rest: on Amazon Beauty behaviour then decides 96 % of
the result and the hit rate falls from .245 to .21, where this way it rises to .26.

Deliberately not done: correction for popular items, which are negatives more often; hard negatives; a network.

Shapes: N items, S dims of all modalities side by side, D of the result, P pairs, B of a batch, J modalities.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sidlake.encoders.fusion.config import FuseConfig
from sidlake.errors import EncoderError

__all__ = ["contrastive_projection", "info_nce", "one_modality"]


def contrastive_projection(
    x_NS: NDArray[np.float32],
    present_NJ: NDArray[np.bool_],
    pairs_P2: NDArray[np.int64] | None,
    *,
    start_SD: NDArray[np.float64],
    spans: Sequence[slice],
    config: FuseConfig,
) -> NDArray[np.float64]:
    """Return the trained map, float64 [S, D]; the same for any order of pairs and of the two items within one.

    Runs on one thread of the CPU, seeded; torch's own generator and number of threads are left as they were.

    Raises:
        EncoderError: there is no pair of items that have a modality.
    """
    ordered_P2 = _ordered(pairs_P2, present_NJ)
    modality_S = np.repeat(np.arange(len(spans)), [span.stop - span.start for span in spans])
    rng = np.random.default_rng(config.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        joint = torch.nn.Parameter(torch.from_numpy(start_SD.astype(np.float32)))
        optimizer = torch.optim.Adam([joint], lr=config.learning_rate)
        for _ in range(config.num_steps):
            a_B, b_B = ordered_P2[rng.integers(len(ordered_P2), size=config.batch_size)].T
            left, right = (torch.from_numpy(x_NS[r] * one_modality(present_NJ[r], modality_S, rng)) @ joint for r in (a_B, b_B))
            loss = info_nce(left, right, (torch.from_numpy(a_B), torch.from_numpy(b_B)), temperature=config.temperature)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return joint.detach().numpy().astype(np.float64)
    finally:
        torch.set_num_threads(threads)


def one_modality(present_BJ: NDArray[np.bool_], modality_S: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask [B, S] of the dims of one modality per row, drawn from those it has; it must have one."""
    lots_BJ = np.where(present_BJ, rng.random(present_BJ.shape), -1.0)
    mask_BS: NDArray[np.bool_] = lots_BJ.argmax(axis=1)[:, None] == modality_S
    return mask_BS


def info_nce(left_BD: Tensor, right_BD: Tensor, ids: tuple[Tensor, Tensor], *, temperature: float) -> Tensor:
    """Return the symmetric InfoNCE of row i of both sides: cosine over `temperature`, the batch's other rows as negatives.

    `ids` [B] are the items of both sides: a row that is the positive's item, or the item itself, is no negative.
    """
    scores = functional.normalize(left_BD, dim=1) @ functional.normalize(right_BD, dim=1).T / temperature
    other = ~torch.eye(len(scores), dtype=torch.bool)
    left, right = ids
    itself = left[:, None] == right[None]
    forth = scores.masked_fill(((right[:, None] == right[None]) | itself) & other, float("-inf"))
    back = scores.T.masked_fill(((left[:, None] == left[None]) | itself.T) & other, float("-inf"))
    target = torch.arange(len(scores))
    return (functional.cross_entropy(forth, target) + functional.cross_entropy(back, target)) / 2


def _ordered(pairs_P2: NDArray[np.int64] | None, present_NJ: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the pairs whose items have a modality, sorted, the smaller row first."""
    pairs_P2 = np.empty((0, 2), np.int64) if pairs_P2 is None else pairs_P2
    some_N = np.logical_or.reduce(present_NJ, axis=1)
    kept_P2 = pairs_P2[some_N[pairs_P2[:, 0]] & some_N[pairs_P2[:, 1]]]
    if not len(kept_P2):
        raise EncoderError(
            f"Kind 'contrastive' learns from items that were bought together; of {len(pairs_P2)} pairs none has vectors for both."
            " Take kind 'pca', or give interactions with training events."
        )
    sorted_P2 = np.sort(kept_P2, axis=1)
    ordered_P2: NDArray[np.int64] = sorted_P2[np.lexsort(sorted_P2.T)]
    return ordered_P2
