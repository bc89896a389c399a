"""Beam search through the prefix trie: every SID it returns is that of a published item.

A beam is a node of the trie with the log-probability of its prefix. A step scores the children of every beam and keeps the best
`beams` of them; codes that lead nowhere are never candidates. Scores are not renormalised over the children, so they are the
model's own log-probabilities, and with as many beams as items the search is exhaustive. The leaf number is the item index of
`ItemCatalogue`.

Shape suffixes: B users, T history tokens, W beams, F children of a node at most, C = W*F candidates, K results, S seen items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidlake.errors import ContractError
from sidlake.generative.catalogue import ItemCatalogue
from sidlake.generative.models.tiger import GenerativeModel, TigerScorer
from sidlake.tokenizers.trie import Trie

__all__ = ["CodeScorer", "TrieTensors", "recommend", "search"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class TrieTensors:
    """The prefix trie as int64 tensors per level: `codes[l]`, and the children of node n, ``starts[l][n]:ends[l][n]`` of level l+1.

    Memory: 24 bytes per node.
    """

    codes: tuple[Tensor, ...]
    starts: tuple[Tensor, ...]
    ends: tuple[Tensor, ...]

    @classmethod
    def from_trie(cls, trie: Trie, catalogue: ItemCatalogue) -> TrieTensors:
        """Return `trie` as tensors; `ContractError` unless its leaves are exactly the items of `catalogue`."""
        if list(trie.item_ids) != catalogue.item_ids.to_pylist():
            msg = (
                f"the trie has {len(trie.item_ids)} leaves that are not the {catalogue.num_items} items of semantic_ids in the"
                " order of their codes; read both from one release"
            )
            raise ContractError(msg, leaves=len(trie.item_ids), items=catalogue.num_items)
        return cls(*(tuple(_int64(level) for level in part) for part in (trie.codes, trie.child_start, trie.child_end)))

    def to(self, device: torch.device) -> TrieTensors:
        """Return the trie on `device`."""
        return TrieTensors(*(tuple(t.to(device) for t in part) for part in (self.codes, self.starts, self.ends)))


def _int64(values: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


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
    nodes. Memory: about 60 bytes per candidate, of which there are B * W * F.
    """
    if beams < 1 or k < 1:
        msg = f"beams and k must be at least 1, got {beams} and {k}"
        raise ValueError(msg)
    device, num_users = scorer.device, scorer.num_users
    trie = trie.to(device)
    seen_BS = None if seen_BS is None or not seen_BS.shape[1] else seen_BS
    seen = None if seen_BS is None else torch.from_numpy(seen_BS).to(device).sort(dim=1).values
    prefix_BWP = torch.zeros((num_users, 1, 0), dtype=torch.long, device=device)
    score_BW = torch.zeros((num_users, 1), device=device)
    first_BW = torch.zeros((num_users, 1), dtype=torch.long, device=device)
    last_BW = torch.full_like(first_BW, len(trie.codes[0]))
    for level, codes in enumerate(trie.codes):
        log_probs_BWK = scorer.log_probs(prefix_BWP)
        node_BC, score_BC, parent_BC = _candidates(log_probs_BWK, score_BW, codes, first_BW, last_BW)
        is_leaf = level == len(trie.codes) - 1
        if is_leaf and seen is not None:
            score_BC = _without(node_BC, score_BC, seen)
        kept = min(k if is_leaf else beams, len(codes), score_BC.shape[1])
        # Stable, so that equal scores have one order; topk promises none.
        score_BW, order_BW = (part[:, :kept] for part in score_BC.sort(dim=1, descending=True, stable=True))
        node_BW = node_BC.gather(1, order_BW)
        token_BW = codes[node_BW] + offsets[level]
        prefix_BWP = _extended(prefix_BWP, parent_BC.gather(1, order_BW), token_BW)
        first_BW, last_BW = trie.starts[level][node_BW], trie.ends[level][node_BW]
    return _padded(node_BW, score_BW, k)


def _extended(prefix_BWP: Tensor, parent_BW: Tensor, token_BW: Tensor) -> Tensor:
    parents_BWP = parent_BW[:, :, None].expand(-1, -1, prefix_BWP.shape[2])
    return torch.cat([prefix_BWP.gather(1, parents_BWP), token_BW[:, :, None]], dim=2)


def _candidates(
    log_probs_BWK: Tensor, score_BW: Tensor, codes: Tensor, first_BW: Tensor, last_BW: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return node, score and parent beam of every beam's children, (B, C) each; -inf where a beam has fewer than F children."""
    fan_out = int((last_BW - first_BW).max())
    node_BWF = first_BW[:, :, None] + torch.arange(fan_out, device=codes.device)
    is_child_BWF = node_BWF < last_BW[:, :, None]
    node_BWF = node_BWF.clamp(max=len(codes) - 1)
    score_BWF = score_BW[:, :, None] + log_probs_BWK.gather(2, codes[node_BWF])
    score_BWF = score_BWF.masked_fill(~is_child_BWF, -torch.inf)
    parent_BWF = torch.arange(score_BW.shape[1], device=codes.device)[:, None].expand_as(node_BWF)
    return node_BWF.flatten(1), score_BWF.flatten(1), parent_BWF.flatten(1)


def _without(node_BC: Tensor, score_BC: Tensor, sorted_seen_BS: Tensor) -> Tensor:
    place_BC = torch.searchsorted(sorted_seen_BS, node_BC).clamp(max=sorted_seen_BS.shape[1] - 1)
    return score_BC.masked_fill(sorted_seen_BS.gather(1, place_BC) == node_BC, -torch.inf)


def _padded(item_BW: Tensor, score_BW: Tensor, k: int) -> tuple[Int64s, Float32s]:
    missing = k - item_BW.shape[1]
    score_BK = torch.nn.functional.pad(score_BW, (0, missing), value=-torch.inf)
    item_BK = torch.nn.functional.pad(item_BW, (0, missing), value=-1).masked_fill(score_BK == -torch.inf, -1)
    return item_BK.cpu().numpy(), score_BK.cpu().numpy()
