"""The softmax over item vectors: its loss, over all known items or over a sample, and exact scores of all items.

A sample is drawn uniformly and shared by all positions of a step; its logits are raised by log(items / sample), so that the sum
estimates that of the full softmax, and an accidental hit of a position's own target is left out. Items that training does not know
are no candidates of the loss: as eternal negatives they could never be recommended.

Shape suffixes: T positions, N items, C candidates, D model width, X pairs of a position and an item that it has seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["SeenPairs", "candidate_scores", "item_loss", "item_scores", "places_of"]


@dataclass(frozen=True, slots=True, eq=False)
class SeenPairs:
    """For position `position_X` and an item `item_X` that it has seen, what is added to the score, `bias_X`."""

    position_X: Tensor
    item_X: Tensor
    bias_X: Tensor


def item_scores(states_TD: Tensor, items_ND: Tensor, *, temperature: float, seen: SeenPairs | None = None) -> Tensor:
    """Return the scores (T, N) float32 of all items: products, or cosines over `temperature` where that is above 0."""
    scores_TN = _products(states_TD, items_ND, temperature)
    return scores_TN if seen is None else scores_TN.index_put_((seen.position_X, seen.item_X), seen.bias_X, accumulate=True)


def candidate_scores(states_TD: Tensor, items_TCD: Tensor, *, temperature: float) -> Tensor:
    """Return the scores (T, C) float32 of each state's own candidates, as `item_scores` gives them."""
    if temperature > 0.0:
        states_TD, items_TCD = functional.normalize(states_TD.float(), dim=1) / temperature, functional.normalize(items_TCD, dim=2)
    return torch.einsum("td,tcd->tc", states_TD.to(items_TCD.dtype), items_TCD).float()


def item_loss(
    states_TD: Tensor,
    target_T: Tensor,
    items_ND: Tensor,
    candidates_C: Tensor,
    *,
    temperature: float,
    num_known: int,
    seen: SeenPairs | None = None,
) -> Tensor:
    """Return the mean cross-entropy of the targets among `candidates_C`: `num_known` items, or a uniform sample of them."""
    place_N = places_of(candidates_C, len(items_ND))
    logits_TC = _products(states_TD, items_ND[candidates_C], temperature)
    if seen is not None:
        place_X = place_N[seen.item_X]
        found_X = (place_X >= 0).nonzero().squeeze(1)
        logits_TC = logits_TC.index_put_((seen.position_X[found_X], place_X[found_X]), seen.bias_X[found_X], accumulate=True)
    if len(candidates_C) == num_known:
        return functional.cross_entropy(logits_TC, place_N[target_T])
    own_T = (_one_by_one(states_TD, items_ND[target_T], temperature) + _bias_of_targets(target_T, seen))[:, None]
    hit_T = (place_N[target_T] >= 0).nonzero().squeeze(1)
    logits_TC = logits_TC.index_put_((hit_T, place_N[target_T[hit_T]]), torch.tensor(-torch.inf, device=target_T.device))
    others_T1 = logits_TC.logsumexp(dim=1, keepdim=True) + math.log(num_known / len(candidates_C))
    return (torch.logaddexp(own_T, others_T1) - own_T).mean()


def places_of(items_C: Tensor, num_items: int) -> Tensor:
    """Return for each of `num_items` items its place in `items_C`, -1 where it has none, (num_items,) int64.

    >>> places_of(torch.tensor([3, 1]), 4).tolist()
    [-1, 1, -1, 0]
    """
    place_N = torch.full((num_items,), -1, dtype=torch.long, device=items_C.device)
    place_N[items_C] = torch.arange(len(items_C), device=items_C.device)
    return place_N


def _products(states_TD: Tensor, items_ND: Tensor, temperature: float) -> Tensor:
    if temperature > 0.0:
        states_TD, items_ND = functional.normalize(states_TD.float(), dim=1) / temperature, functional.normalize(items_ND, dim=1)
    return functional.linear(states_TD, items_ND).float()


def _one_by_one(states_TD: Tensor, items_TD: Tensor, temperature: float) -> Tensor:
    if temperature > 0.0:
        return functional.cosine_similarity(states_TD.float(), items_TD, dim=1) / temperature
    return (states_TD.float() * items_TD).sum(dim=1)


def _bias_of_targets(target_T: Tensor, seen: SeenPairs | None) -> Tensor:
    zero_T = torch.zeros(len(target_T), device=target_T.device)
    if seen is None:
        return zero_T
    is_target_X = (target_T[seen.position_X] == seen.item_X).nonzero().squeeze(1)
    return zero_T.index_put((seen.position_X[is_target_X],), seen.bias_X[is_target_X], accumulate=True)
