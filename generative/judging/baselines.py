"""The baselines a generative recommender has to beat: most popular, item-to-item co-purchase, nearest by fused vector.

They are fitted on the training histories alone and score the full catalogue, with the candidates the model has: items seen before
stay in unless the caller excludes them. Not done: weighting by quantity or recency; ties go to the lower item index.

Shape suffixes: U users, N items, B rows of a batch, H items of history, K recommendations.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from sidlake.generative.sequences import Histories

__all__ = ["Baseline", "ItemToItem", "MostPopular", "NearestVector"]

Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]

_BLOCK_ITEMS = 1024


class Baseline(Protocol):
    """What scores every item for a batch of users."""

    def scores(self, histories: Histories) -> Float32s:
        """Return the scores (B, N) of all items; 4 bytes per user and item, so call it in batches."""
        ...


def interaction_counts(histories: Histories, *, num_items: int) -> sp.csr_matrix:
    """Return how often each user has each item, (U, N) float32 CSR."""
    lengths_U = histories.ends_U - histories.starts_U
    rows_S = np.repeat(np.arange(len(histories)), lengths_U)
    items_S = histories.flat_items()
    ones_S = np.ones(len(items_S), dtype=np.float32)
    return sp.coo_matrix((ones_S, (rows_S, items_S)), shape=(len(histories), num_items)).tocsr()


class MostPopular:
    """Scores an item by its number of training interactions, the same for every user."""

    def __init__(self, train: Histories, *, num_items: int) -> None:
        self._scores_N = np.bincount(train.flat_items(), minlength=num_items).astype(np.float32)

    def scores(self, histories: Histories) -> Float32s:
        """Return the scores (B, N) float32."""
        return np.tile(self._scores_N, (len(histories), 1))


class ItemToItem:
    """Scores an item by its cosine with the user's last `max_history` items, over who bought what in training, summed.

    The cosine of i and j is (users with both) / sqrt(users with i * users with j); an item has none with itself. The newest item
    weighs 1, every older one `decay` times the next: on the shop's validation items 0.5 gave Recall@10 0.30, equal weights 0.15.
    Only the `num_neighbors` nearest of each item are kept (more where they tie): 8 bytes per item and neighbour, and `_BLOCK_ITEMS`
    dense rows while fitting.
    """

    def __init__(
        self, train: Histories, *, num_items: int, max_history: int = 10, decay: float = 0.5, num_neighbors: int = 500
    ) -> None:
        if num_neighbors < 1 or max_history < 1 or not 0.0 < decay <= 1.0:
            msg = f"num_neighbors, max_history >= 1 and 0 < decay <= 1 expected, got {num_neighbors}, {max_history}, {decay}"
            raise ValueError(msg)
        self._weights_H = (decay ** np.arange(max_history - 1, -1, -1)).astype(np.float32)
        bought_UN = interaction_counts(train, num_items=num_items)
        bought_UN.data[:] = 1.0
        norms_N = np.sqrt(np.asarray(bought_UN.sum(axis=0)).ravel())
        unit_UN = (bought_UN @ sp.diags(1.0 / np.maximum(norms_N, 1.0))).tocsr().astype(np.float32)
        unit_NU = unit_UN.T.tocsr()
        blocks = [_nearest(unit_NU, unit_UN, start, num_neighbors) for start in range(0, num_items, _BLOCK_ITEMS)]
        self._similarity_NN = sp.vstack(blocks, format="csr")

    def scores(self, histories: Histories) -> Float32s:
        """Return the scores (B, N) float32."""
        items_BH = histories.last(len(self._weights_H))
        rows_X, places_X = np.nonzero(items_BH >= 0)
        shape = (len(histories), self._similarity_NN.shape[0])
        weights_BN = sp.coo_matrix((self._weights_H[places_X], (rows_X, items_BH[rows_X, places_X])), shape=shape).tocsr()
        return np.asarray((weights_BN @ self._similarity_NN).toarray(), dtype=np.float32)


def _nearest(unit_NU: sp.csr_matrix, unit_UN: sp.csr_matrix, start: int, num_neighbors: int) -> sp.csr_matrix:
    cosine_XN = (unit_NU[start : start + _BLOCK_ITEMS] @ unit_UN).toarray()
    rows_X = np.arange(len(cosine_XN))
    cosine_XN[rows_X, start + rows_X] = 0.0
    if num_neighbors < cosine_XN.shape[1]:
        limit_X1 = -np.partition(-cosine_XN, num_neighbors - 1, axis=1)[:, num_neighbors - 1 : num_neighbors]
        cosine_XN[cosine_XN < limit_X1] = 0.0
    return sp.csr_matrix(cosine_XN)


class NearestVector:
    """Scores an item by the cosine of its fused vector with those of the last `max_history` items, weighed as co-purchase is."""

    def __init__(self, fused_NF: Float32s, *, max_history: int = 10, decay: float = 0.5) -> None:
        if max_history < 1 or not 0.0 < decay <= 1.0:
            msg = f"max_history >= 1 and 0 < decay <= 1 expected, got {max_history} and {decay}"
            raise ValueError(msg)
        self._unit_NF = fused_NF / np.maximum(np.linalg.norm(fused_NF, axis=1, keepdims=True), 1e-12)
        self._weights_H = (decay ** np.arange(max_history - 1, -1, -1)).astype(np.float32)

    def scores(self, histories: Histories) -> Float32s:
        """Return the scores (B, N) float32."""
        items_BH = histories.last(len(self._weights_H))
        weights_BH = np.where(items_BH >= 0, self._weights_H, np.float32(0.0))
        taste_BF = np.einsum("bh,bhf->bf", weights_BH, self._unit_NF[items_BH])
        return np.asarray(taste_BF @ self._unit_NF.T, dtype=np.float32)
