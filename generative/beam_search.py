"""Beam search through the prefix trie: every SID it returns is that of a published item.

A beam is a node of the trie with the log-probability of its prefix. A step scores the children of every beam and keeps the best
`beams` of them; codes that lead nowhere are never candidates. Scores are not renormalised over the children, so they are the
model's own log-probabilities, and with as many beams as items the search is exhaustive. The leaf number is the item index of
`ItemCatalogue`.

All users and beams take a step together, in whole tensors (the layout is `TrieTensors`). A level whose nodes have most codes
below them is scored as it comes from the model and masked; of a sparse one the children alone are gathered, side by side for each
user, so that a wide node costs what it has and not what the widest has.

Shape suffixes: B users, T history tokens, W beams, C candidates of the user who has most, K codes of a level or results, S seen
items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidlake.generative.models.tiger import GenerativeModel, TigerScorer
from sidlake.generative.trie_tensors import TrieTensors

__all__ = ["CodeScorer", "recommend", "search"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


class CodeScorer(Protocol):
    """What the search asks a model for a batch of users: the log-probabilities of the next code."""

    num_users: int
    device: torch.device

    def log_probs(self, prefix_BWP: Tensor) -> Tensor:
        """Return the log-probabilities (B, W, K) over the codes of level P, after the tokens of each beam."""
        ...


@torch.inference_mode()
def recommend(
    model: GenerativeModel, history_BT: Int64s, trie: TrieTensors, *, beams: int, k: int, seen_BS: Int64s | None = None
) -> tuple[Int64s, Float32s]:
    """Return the `k` items that TIGER's `model` finds most probable after the tokens `history_BT`, as `search` does."""
    scorer = TigerScorer(model, torch.from_numpy(history_BT).to(model.place_HD.device))
    return search(scorer, model.space.offsets, trie, beams=beams, k=k, seen_BS=seen_BS)


@torch.inference_mode()
def search(
    scorer: CodeScorer, offsets: tuple[int, ...], trie: TrieTensors, *, beams: int, k: int, seen_BS: Int64s | None = None
) -> tuple[Int64s, Float32s]:
    """Return the `k` most probable items found per user, best first: indices (B, k) int64, log-probabilities (B, k) float32.

    `offsets` are the tokens of code 0 of each level. `seen_BS` holds item indices to leave out per user, padded with -1; None is
    none. Where fewer than k items are found, the rest is -1 with -inf. Equal scores keep the order of the beams, then of the
    nodes. Memory: about 40 bytes per candidate, of which a user has the children of the beams, or beams * K at a dense level.
    """
    if beams < 1 or k < 1:
        msg = f"beams and k must be at least 1, got {beams} and {k}"
        raise ValueError(msg)
    device, last = scorer.device, trie.num_levels - 1
    trie = trie.to(device)
    seen_BS = None if seen_BS is None or not seen_BS.shape[1] else seen_BS
    seen = None if seen_BS is None else torch.from_numpy(seen_BS).to(device).sort(dim=1).values
    prefix_BWP = torch.zeros((scorer.num_users, 1, 0), dtype=torch.long, device=device)
    score_BW = torch.zeros((scorer.num_users, 1), device=device)
    node_BW = torch.zeros_like(score_BW, dtype=torch.long)
    for level in range(trie.num_levels):
        candidates = _children(trie, level, node_BW, score_BW, scorer.log_probs(prefix_BWP))
        if level == last and seen is not None:
            candidates = candidates.without(seen)
        node_BW, score_BW, parent_BW = candidates.best(k if level == last else beams)
        prefix_BWP = _extended(prefix_BWP, parent_BW, trie.codes[level][node_BW] + offsets[level])
    return _padded(node_BW, score_BW, k)


def _extended(prefix_BWP: Tensor, parent_BW: Tensor, token_BW: Tensor) -> Tensor:
    parents_BWP = parent_BW[:, :, None].expand(-1, -1, prefix_BWP.shape[2])
    return torch.cat([prefix_BWP.gather(1, parents_BWP), token_BW[:, :, None]], dim=2)


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Node, score and parent beam (B, C) of every beam's children, by beam, then node; -inf where there is none."""

    node_BC: Tensor
    score_BC: Tensor
    parent_BC: Tensor

    def without(self, sorted_seen_BS: Tensor) -> _Candidates:
        """Return them with -inf for the nodes of `sorted_seen_BS`."""
        place_BC = torch.searchsorted(sorted_seen_BS, self.node_BC).clamp(max=sorted_seen_BS.shape[1] - 1)
        is_seen_BC = sorted_seen_BS.gather(1, place_BC) == self.node_BC
        return replace(self, score_BC=self.score_BC.masked_fill(is_seen_BC, -torch.inf))

    def best(self, num: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return node, score and parent of the `num` best, best first; equal scores keep their order."""
        order_BW = _best_places(self.score_BC, min(num, self.score_BC.shape[1]))
        node_BW, score_BW, parent_BW = (part.gather(1, order_BW) for part in (self.node_BC, self.score_BC, self.parent_BC))
        return node_BW.clamp(min=0), score_BW, parent_BW


def _children(trie: TrieTensors, level: int, node_BW: Tensor, score_BW: Tensor, log_probs_BWK: Tensor) -> _Candidates:
    dense = trie.dense[level]
    if dense is None:
        return _sparse_children(trie, level, node_BW, score_BW, log_probs_BWK)
    node_BWK = dense[node_BW].long()
    score_BWK = (score_BW[:, :, None] + log_probs_BWK[:, :, : dense.shape[1]]).masked_fill(node_BWK < 0, -torch.inf)
    parent_BWK = torch.arange(score_BW.shape[1], device=node_BW.device)[:, None].expand_as(node_BWK)
    return _Candidates(node_BWK.flatten(1), score_BWK.flatten(1), parent_BWK.flatten(1))


def _sparse_children(trie: TrieTensors, level: int, node_BW: Tensor, score_BW: Tensor, log_probs_BWK: Tensor) -> _Candidates:
    """Return the children of all beams side by side: candidate c of a user is child ``c - before`` of the beam it falls into."""
    first_BW, end_BW = trie.children(node_BW, level)
    count_BW = (end_BW - first_BW).masked_fill(score_BW == -torch.inf, 0)  # a beam that stands for nothing has no children
    after_BW = count_BW.cumsum(dim=1)
    num_candidates = max(int(after_BW[:, -1].max()), 1) if len(after_BW) else 1
    place_C = torch.arange(num_candidates, device=node_BW.device)
    parent_BC = torch.searchsorted(after_BW, place_C.expand(len(after_BW), -1).contiguous(), right=True)
    is_child_BC = parent_BC < score_BW.shape[1]
    parent_BC = parent_BC.clamp(max=score_BW.shape[1] - 1)
    node_BC = place_C + (first_BW - after_BW + count_BW).gather(1, parent_BC)
    node_BC = node_BC.masked_fill(~is_child_BC, 0)
    num_codes = log_probs_BWK.shape[2]
    score_BC = score_BW.gather(1, parent_BC) + log_probs_BWK.flatten(1).gather(
        1, parent_BC * num_codes + trie.codes[level][node_BC]
    )
    return _Candidates(node_BC, score_BC.masked_fill(~is_child_BC, -torch.inf), parent_BC)


def _best_places(score_BC: Tensor, num: int) -> Tensor:
    """Return the places (B, num) of the best scores per row, best first, lower places first where scores are equal.

    `topk` is several times as fast as a sort but promises no order among equals, so that rows in which equals compete for the
    last place are sorted in full.
    """
    best_BW, place_BW = score_BC.topk(num, dim=1)
    limit_B1 = best_BW[:, -1:]
    crowded_B = ((score_BC >= limit_B1).sum(dim=1) > num) & (limit_B1[:, 0] > -torch.inf)
    place_BW = place_BW.sort(dim=1).values
    order_BW = score_BC.gather(1, place_BW).sort(dim=1, descending=True, stable=True).indices
    place_BW = place_BW.gather(1, order_BW)
    if crowded_B.any():
        place_BW[crowded_B] = score_BC[crowded_B].sort(dim=1, descending=True, stable=True).indices[:, :num]
    return place_BW


def _padded(item_BW: Tensor, score_BW: Tensor, k: int) -> tuple[Int64s, Float32s]:
    missing = k - item_BW.shape[1]
    score_BK = torch.nn.functional.pad(score_BW, (0, missing), value=-torch.inf)
    item_BK = torch.nn.functional.pad(item_BW, (0, missing), value=-1).masked_fill(score_BK == -torch.inf, -1)
    return item_BK.cpu().numpy(), score_BK.cpu().numpy()
