"""Trained models as what recommends: the k best items for users with their histories, with or without what they had before.

Shape suffixes: B users, N items, K recommendations.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidlake.generative.beam_search import recommend, search
from sidlake.generative.catalogue import ItemCatalogue
from sidlake.generative.judging.judge import CUTOFFS, Judge, Ranker
from sidlake.generative.judging.rankers import leave_out_seen, top_items
from sidlake.generative.models.depth_head import DepthScorer
from sidlake.generative.models.item_head import candidate_scores
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.models.tiger import GenerativeModel
from sidlake.generative.sequences import Histories
from sidlake.generative.training.objective import last_states, score_items
from sidlake.generative.training.packing import pack_histories
from sidlake.generative.training.precision import has_fast_bfloat16
from sidlake.generative.trie_tensors import TrieTensors

__all__ = ["DecoderRecommender", "Recommender", "TigerRecommender", "ranker_by"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]

_SCORES_AT_ONCE = 2**25
"""Scores held at once: 128 MB."""


class Recommender(Protocol):
    """What recommends."""

    def recommend(self, users: Histories, *, k: int, exclude_seen: bool) -> tuple[Int64s, Float32s]:
        """Return the `k` best items per user, best first: indices (B, k), padded with -1, and log-probabilities (B, k)."""
        ...


def ranker_by(recommender: Recommender) -> Ranker:
    """Return the ranker that the judge asks."""

    def ranked(users: Histories, rule: Judge) -> Int64s:
        return recommender.recommend(users, k=max(CUTOFFS), exclude_seen=rule == "left_out")[0]

    return ranked


class DecoderRecommender:
    """Recommends by a `PackedDecoder`: exactly over all items (`decode` item), by the trie's beam search (depth), or both (rerank).

    Exact scoring takes as many users at once as 32 million scores allow, so its memory does not grow with the catalogue.
    """

    def __init__(self, model: PackedDecoder, trie: TrieTensors) -> None:
        self.model = model.eval()
        self._trie = trie

    def recommend(self, users: Histories, *, k: int, exclude_seen: bool) -> tuple[Int64s, Float32s]:
        """Return the `k` best items per user, best first: indices (B, k), padded with -1, and log-probabilities (B, k)."""
        step = max(1, _SCORES_AT_ONCE // len(self.model.known_N))
        one = {"item": self._by_items, "depth": self._by_codes, "rerank": self._reranked}[self.model.config.decode]
        parts = [one(users.take(slice(start, start + step)), k, exclude_seen) for start in range(0, max(len(users), 1), step)]
        items, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        return items, scores

    def _by_items(self, users: Histories, k: int, exclude_seen: bool) -> tuple[Int64s, Float32s]:
        scores_BN = self.scores(users)
        if exclude_seen:
            leave_out_seen(scores_BN, users)
        items_BK = top_items(scores_BN, k=k)
        scores_BK = np.where(items_BK >= 0, np.take_along_axis(scores_BN, items_BK, axis=1), -np.inf).astype(np.float32)
        missing = ((0, 0), (0, k - items_BK.shape[1]))
        return np.pad(items_BK, missing, constant_values=-1), np.pad(scores_BK, missing, constant_values=-np.inf)

    @torch.inference_mode()
    def scores(self, users: Histories) -> Float32s:
        """Return the log-probabilities of all items for the next one, (B, N) float32."""
        with self._precision():
            scores_BN = score_items(
                self.model, self.model.item_vectors(), pack_histories(users, width=self.model.config.max_history)
            )
        return np.asarray(scores_BN.log_softmax(dim=1).cpu().numpy())

    @torch.inference_mode()
    def _by_codes(self, users: Histories, k: int, exclude_seen: bool) -> tuple[Int64s, Float32s]:
        with self._precision():
            return self._found(self._states(users, self.model.item_vectors()), users, k, exclude_seen)

    @torch.inference_mode()
    def _reranked(self, users: Histories, k: int, exclude_seen: bool) -> tuple[Int64s, Float32s]:
        """Return what the beams find in the order of the item head (LIGER, arXiv 2411.18814), with log-probabilities among it."""
        model = self.model
        with self._precision():
            items_ND = model.item_vectors()
            states_BD = self._states(users, items_ND)
            items_BC, _ = self._found(states_BD, users, model.config.num_beams, exclude_seen)
            own_BCD = items_ND[torch.from_numpy(items_BC.clip(min=0)).to(items_ND.device)]
            scores = candidate_scores(states_BD, own_BCD, temperature=model.config.temperature)
        scores = (
            scores.masked_fill(torch.from_numpy(items_BC < 0).to(scores.device), -torch.inf)
            .log_softmax(dim=1)
            .nan_to_num(-torch.inf)
        )
        scores_BC = scores.cpu().numpy()
        order_BK = np.lexsort((items_BC, -scores_BC), axis=1)[:, :k]
        found = (np.take_along_axis(values_BC, order_BK, axis=1) for values_BC in (items_BC, scores_BC))
        missing = ((0, 0), (0, k - order_BK.shape[1]))
        items_BK, scores_BK = (
            np.pad(one, missing, constant_values=filler) for one, filler in zip(found, (-1, -np.inf), strict=True)
        )
        return items_BK, scores_BK

    def _states(self, users: Histories, items_ND: Tensor) -> Tensor:
        """Return the states (B, D) after each user's newest item."""
        return last_states(self.model, items_ND, pack_histories(users, width=self.model.config.max_history))

    def _found(self, states_BD: Tensor, users: Histories, k: int, exclude_seen: bool) -> tuple[Int64s, Float32s]:
        model = self.model
        assert model.depth is not None
        assert model.codes is not None
        scorer = DepthScorer(model.depth, states_BD, model.codes.weight)
        seen_BS = users.padded() if exclude_seen else None
        return search(scorer, model.depth.starts, self._trie, beams=model.config.num_beams, k=k, seen_BS=seen_BS)

    def _precision(self) -> torch.autocast:
        device = self.model.known_N.device
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_fast_bfloat16(device))


class TigerRecommender:
    """Recommends by a TIGER model through the beam search of the trie."""

    def __init__(self, model: GenerativeModel, catalogue: ItemCatalogue, trie: TrieTensors) -> None:
        self.model = model.eval()
        self._catalogue, self._trie = catalogue, trie

    def recommend(self, users: Histories, *, k: int, exclude_seen: bool) -> tuple[Int64s, Float32s]:
        """Return the `k` best items per user, best first: indices (B, k), padded with -1, and log-probabilities (B, k)."""
        config = self.model.config
        history_BT = self._catalogue.history_tokens(users.last(config.max_history))
        seen_BS = users.padded() if exclude_seen else None
        return recommend(self.model, history_BT, self._trie, beams=config.num_beams, k=k, seen_BS=seen_BS)
