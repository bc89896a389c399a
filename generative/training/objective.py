"""The loss of a packed batch, and the states and vectors that scores are made of: what a `PackedDecoder` and its heads do together.

Shape suffixes: R packed rows, W positions, T positions with a target, B users, N items, D model width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sidlake.generative.models.item_head import SeenPairs, item_loss, item_scores, places_of
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.models.repeats import seen_pairs
from sidlake.generative.training.packing import PackedBatch

__all__ = ["batch_loss", "last_states", "score_items"]


def batch_loss(model: PackedDecoder, batch: PackedBatch, candidates_C: Tensor) -> Tensor:
    """Return the loss of all targets of `batch`: the item head's, plus `depth_weight` times the depth head's, or that alone."""
    config, device = model.config, candidates_C.device
    items_RW, target_RW = _to(device, batch.items_RW), _to(device, batch.target_RW)
    # Vectors are made of the items in use only: of 12,101 a step with 1,024 candidates uses 2,500.
    used_M: Tensor = torch.unique(torch.cat([items_RW.flatten(), target_RW.flatten().clamp(min=0), candidates_C]))
    place_N = places_of(used_M, len(model.known_N))
    items_MD = model.item_vectors(used_M)
    states_RWD = model.states(items_MD, place_N[items_RW], _to(device, batch.segment_RW), _to(device, batch.place_RW))
    at_T = (target_RW.flatten() >= 0).nonzero().squeeze(1)
    states_TD, target_T = states_RWD.flatten(0, 1)[at_T], target_RW.flatten()[at_T]
    losses = []
    if "item" in config.heads:
        seen = _seen(model, batch, at_T) if model.repeats is not None else None
        seen = None if seen is None else replace(seen, item_X=place_N[seen.item_X])
        losses.append(
            item_loss(
                states_TD,
                place_N[target_T],
                items_MD,
                place_N[candidates_C],
                temperature=config.temperature,
                num_known=int(model.known_N.sum()),
                seen=seen,
            )
        )
    if model.depth is not None and model.codes is not None:
        weight = config.depth_weight if losses else 1.0
        losses.append(weight * model.depth.loss(states_TD, model.codes_NL[target_T], model.codes.weight))
    return torch.stack(losses).sum()


def last_states(model: PackedDecoder, items_ND: Tensor, batch: PackedBatch) -> Tensor:
    """Return the states (B, D) after each history's newest item."""
    device = items_ND.device
    states_RWD = model.states(items_ND, *(_to(device, part) for part in (batch.items_RW, batch.segment_RW, batch.place_RW)))
    row_B, position_B = _to(device, batch.last_B2).unbind(dim=1)
    return states_RWD[row_B, position_B]


def score_items(model: PackedDecoder, items_ND: Tensor, batch: PackedBatch) -> Tensor:
    """Return the item head's scores (B, N) float32 for each history's next item; log-probabilities but for a constant per user."""
    row_B, position_B = _to(items_ND.device, batch.last_B2).unbind(dim=1)
    at_B = row_B * batch.items_RW.shape[1] + position_B
    seen = _seen(model, batch, at_B) if model.repeats is not None else None
    return item_scores(last_states(model, items_ND, batch), items_ND, temperature=model.config.temperature, seen=seen)


def _seen(model: PackedDecoder, batch: PackedBatch, at_T: Tensor) -> SeenPairs:
    """Return the pairs of the positions `at_T` (numbered over the flattened batch) and the items that they have seen."""
    device, width = at_T.device, batch.items_RW.shape[1]
    row_X, position_X, earlier_X = seen_pairs(_to(device, batch.segment_RW), _to(device, batch.until_RW))
    place = torch.full((batch.items_RW.size,), -1, dtype=torch.long, device=device)
    place[at_T] = torch.arange(len(at_T), device=device)
    asked_X = place[row_X * width + position_X]
    kept_X = (asked_X >= 0).nonzero().squeeze(1)
    row_X, position_X, earlier_X = row_X[kept_X], position_X[kept_X], earlier_X[kept_X]
    assert model.repeats is not None
    bias_X = model.repeats(position_X - earlier_X, _to(device, batch.count_RW)[row_X, earlier_X])
    return SeenPairs(asked_X[kept_X], _to(device, batch.items_RW)[row_X, earlier_X], bias_X)


def _to(device: torch.device, values: object) -> Tensor:
    return torch.as_tensor(values, device=device)
