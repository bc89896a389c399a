"""Collaborative index: a tree of items that users take together, spelled from the root ("CID" in P5, arXiv 2305.06569).

The co-occurrence graph is cut by spectral clustering, each part again, and so on; a code says which child to take. As many children
per node as make the tree evenly deep, min(width, ceil(n ** (1 / levels left))) of n items, where P5 takes a fixed number and stops
early: SIDs have one length. The last code numbers the items of a part, in the order of their hashes. Items that nobody took with
another of their part go to the child with the nearest mean vector; so do new items, all the way down, and get their last code by
hash. The fit's items keep the codes that they got, by a table of hashes in the artifact: 8 + 4 L bytes per item.

Shape suffixes: N rows, D dimensions, L levels, P pairs, M items of the fit, G nodes of a level of the tree.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from sidlake.errors import FitError
from sidlake.tokenizers.indexes.base import Hashes, IndexConfig, ItemIndex, hashed_codes
from sidlake.tokenizers.indexes.spectral import spectral_clusters
from sidlake.tokenizers.numeric.kmeans import fit_kmeans
from sidlake.tokenizers.numeric.nearest import Float32Array, Int32Array, Int64Array, nearest_codes
from sidlake.tokenizers.quantizers.additive import code_means
from sidlake.tokenizers.tokenizer import ItemFacts

__all__ = ["CollaborativeIndex"]


class CollaborativeIndex(ItemIndex):
    """Codes by place in the tree.

    `learned` holds ``keys`` (the fit's item hashes, ascending), ``codes`` (their codes_ML), per level but the last
    ``means.<level>`` [G, D] of the nodes, siblings side by side, and ``starts.<level>``, where each parent's children begin, and
    ``pairs``, which says what the tree was made of.
    """

    kind = "collaborative_index"
    fit_needs = frozenset({"item_hashes_N", "pairs_P2"})

    @classmethod
    def _learn(cls, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts, config: IndexConfig) -> dict[str, npt.NDArray[Any]]:
        assert facts.pairs_P2 is not None
        if not len(facts.pairs_P2):
            msg = f"{cls.kind} learns from items taken together, and there is no such pair among the {len(x_ND)} rows of the fit"
            raise FitError(msg, kind=cls.kind, pairs=0)
        graph = _graph(facts.pairs_P2, len(x_ND))
        codes_NL = np.zeros((len(x_ND), len(config.widths)), dtype=np.int32)
        parts = [np.arange(len(x_ND))]
        learned: dict[str, npt.NDArray[Any]] = {}
        for level, width in enumerate(config.widths[:-1]):
            children: list[Int64Array] = []
            starts, means = [0], []
            for rows in parts:
                labels = _split(
                    x_ND[rows], graph[rows][:, rows], _num_children(len(rows), width, len(config.widths) - level), config
                )
                codes_NL[rows, level] = labels
                found = [rows[labels == label] for label in range(labels.max() + 1)]
                means.append(_means(x_ND[rows], labels))
                starts.append(starts[-1] + len(found))
                children += found
            parts = children
            learned |= {f"means.{level}": np.concatenate(means), f"starts.{level}": np.array(starts)}
        for rows in parts:
            codes_NL[rows, -1] = cls._last_codes(hashes_N[rows], config)
        keys, first = np.unique(hashes_N, return_index=True)
        about = json.dumps({"pairs": len(facts.pairs_P2), "window": facts.pairs_window}).encode()
        return learned | {"keys": keys, "codes": codes_NL[first], "pairs": np.frombuffer(about, dtype=np.uint8).copy()}

    @property
    def pairs_window(self) -> tuple[str, str] | None:
        """The first and last instant of the events that the pairs came from, as the fit was told."""
        window = json.loads(self.learned["pairs"].tobytes())["window"]
        return tuple(window) if window else None

    def _codes(self, x_ND: Float32Array, hashes_N: Hashes, facts: ItemFacts) -> Int32Array:
        keys_M = self.learned["keys"]
        places = np.minimum(np.searchsorted(keys_M, hashes_N), len(keys_M) - 1)
        codes_NL: Int32Array = self.learned["codes"][places]
        new = np.flatnonzero(keys_M[places] != hashes_N)
        node = np.zeros(len(new), dtype=np.int64)
        for level in range(len(self.widths) - 1):
            starts, means_GD = self.learned[f"starts.{level}"], self.learned[f"means.{level}"]
            for parent in np.unique(node).tolist():  # 0.1 ms per node that new items come to
                below = np.flatnonzero(node == parent)
                codes_NL[new[below], level] = nearest_codes(x_ND[new[below]], means_GD[starts[parent] : starts[parent + 1]])
            node = starts[node] + codes_NL[new, level]
        last = len(self.widths) - 1
        codes_NL[new, -1] = hashed_codes(hashes_N[new], self.widths[-1], seed=self.config.seed, level=last)
        return codes_NL

    @classmethod
    def _last_codes(cls, hashes_M: Hashes, config: IndexConfig) -> Int32Array:
        """Return the last codes of the items of one part: their number in it; where these run out, neighbours share codes."""
        rank_M = np.argsort(np.argsort(hashes_M, kind="stable"), kind="stable")
        width = config.widths[-1]
        return (rank_M if len(hashes_M) <= width else rank_M * width // len(hashes_M)).astype(np.int32)


def _num_children(num_items: int, width: int, levels_left: int) -> int:
    """Return the least number of children whose tree of `levels_left` levels holds `num_items`, at most `width`."""
    number = 1
    while number < width and number**levels_left < num_items:
        number += 1
    return number


def _graph(pairs_P2: Int64Array, num_items: int) -> scipy.sparse.csr_array:
    """Return the symmetric matrix of how often two items were taken together."""
    pairs = pairs_P2[pairs_P2[:, 0] != pairs_P2[:, 1]]
    counts = scipy.sparse.coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(num_items, num_items)).tocsr()
    both = (counts + counts.T).tocsr()
    both.sort_indices()
    return both


def _split(x_ND: Float32Array, graph: scipy.sparse.csr_array, num_children: int, config: IndexConfig) -> Int32Array:
    """Return labels_N from 0, the largest child first: spectral clusters of the items with edges, the others to the nearest mean.

    Where fewer items than children have edges, k-means of the vectors decides.
    """
    linked = np.flatnonzero(np.diff(graph.indptr) > 0)
    if len(linked) >= max(num_children, 2):
        found = spectral_clusters(graph[linked][:, linked], num_children, seed=config.seed)
        labels = np.zeros(len(x_ND), dtype=np.int32)
        labels[linked] = _by_size(found)
        alone = np.setdiff1d(np.arange(len(x_ND)), linked)
        labels[alone] = nearest_codes(x_ND[alone], _means(x_ND[linked], labels[linked]))
    else:
        rng = np.random.default_rng([config.seed, len(x_ND)])
        labels = fit_kmeans(x_ND, num_children, rng=rng, max_iterations=25, tolerance=1e-4, device=config.device).codes_N
    return _by_size(labels)


def _by_size(labels_N: Int32Array) -> Int32Array:
    """Return the labels renumbered without holes: larger first, of equal ones that of the earlier row."""
    _, first, inverse, counts = np.unique(labels_N, return_index=True, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), dtype=np.int32)
    rank[np.lexsort((first, -counts))] = np.arange(len(counts))
    renumbered: Int32Array = rank[inverse]
    return renumbered


def _means(x_ND: Float32Array, labels_N: Int32Array) -> Float32Array:
    return code_means(x_ND, labels_N, np.zeros((int(labels_N.max()) + 1, x_ND.shape[1]), dtype=np.float32))
