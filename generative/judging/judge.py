"""One judge for every model and baseline: item-level Recall and NDCG at 5, 10 and 20, with items had before kept and left out.

Leave one out over the full catalogue, no sampled negatives. Both judges are always reported: whether a shop shows what a customer
already has is a reader's choice, not a model's. Beside the totals: by popularity of the target, for items that training does not
know (cold), how much of the catalogue the lists of 10 cover, and 95 % intervals.

A figure's name is ``[left_out_][group_]metric@k``, as `recall@10`, `left_out_ndcg@10`, `tail_recall@10`, `left_out_cold_recall@10`;
bounds end in ``_low`` and ``_high``. Groups: items in order of training interactions, cut where they make up a third (``head``) and
two thirds (``middle``) of these; the rest is ``tail``; without any ``cold``. A group without a target has no figure.

Shape suffixes: U users, B users of a batch, N items, K recommendations, G figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from sidlake.generative.judging.evaluation import ndcg_at_k, ranks_of, recall_at_k
from sidlake.generative.judging.intervals import bootstrap_interval
from sidlake.generative.sequences import Histories

__all__ = ["CUTOFFS", "HEADLINES", "JUDGES", "Figures", "Judge", "Ranker", "judge", "popularity_groups"]

Int64s = npt.NDArray[np.int64]
Judge = Literal["kept", "left_out"]
Figures = dict[str, float]
Ranker = Callable[[Histories, Judge], Int64s]
"""Gives the best `max(CUTOFFS)` items per user, best first, (B, K) int64, padded with -1.

Under ``left_out`` none of a user's history is among them."""

CUTOFFS = (5, 10, 20)
JUDGES: tuple[Judge, ...] = ("kept", "left_out")
HEADLINES = tuple(f"{rule}{metric}@{k}" for rule in ("", "left_out_") for metric in ("recall", "ndcg") for k in (5, 10))
"""The figures that a person is shown first; all are in `model_metrics`."""
_GROUPS = ("cold", "tail", "middle", "head")
_BATCH_USERS = 512


def popularity_groups(train: Histories, *, num_items: int) -> Int64s:
    """Return the group of each item, (N,) int64: 0 cold, 1 tail, 2 middle, 3 head; equally popular items by their number."""
    counts_N = np.bincount(train.flat_items(), minlength=num_items)
    order_N = np.argsort(-counts_N, kind="stable")
    before_N = np.cumsum(counts_N[order_N]) - counts_N[order_N]
    groups_N = np.empty(num_items, dtype=np.int64)
    groups_N[order_N] = 3 - (3 * before_N) // max(int(counts_N.sum()), 1)
    return np.where(counts_N == 0, 0, groups_N)


def judge(
    ranker: Ranker, users: Histories, groups_N: Int64s, *, rules: tuple[Judge, ...] = JUDGES, details: bool = True, seed: int = 0
) -> Figures:
    """Return the figures of `ranker` on the held-out targets of `users`, under `rules`; `seed` is the bootstrap's.

    Without `details` only the totals.
    """
    figures: Figures = {}
    for rule in rules:
        prefix = "" if rule == "kept" else f"{rule}_"
        ranks_U, covered = _ranks(ranker, users, rule)
        found = dict(_of_ranks(ranks_U))
        if details:
            found |= (
                {"coverage@10": covered / len(groups_N)} | _intervals(ranks_U, seed) | _by_group(ranks_U, groups_N[users.targets_U])
            )
        figures |= {prefix + name: value for name, value in found.items()}
    return figures


def _intervals(ranks_U: Int64s, seed: int) -> Figures:
    found: Figures = {}
    for metric, gain_U in (("recall@10", _gains(ranks_U, recall=True)), ("ndcg@10", _gains(ranks_U, recall=False))):
        found[f"{metric}_low"], found[f"{metric}_high"] = bootstrap_interval(gain_U, seed=seed)
    return found


def _by_group(ranks_U: Int64s, group_U: Int64s) -> Figures:
    present = [(number, name) for number, name in enumerate(_GROUPS) if (group_U == number).any()]
    return {f"{name}_{metric}": value for number, name in present for metric, value in _of_ranks(ranks_U[group_U == number])}


def _ranks(ranker: Ranker, users: Histories, rule: Judge) -> tuple[Int64s, int]:
    """Return the targets' ranks (U,), 0 where absent, and the number of different items among the lists of 10."""
    ranks, shown = [], set[int]()
    for start in range(0, len(users), _BATCH_USERS):
        batch = users.take(slice(start, start + _BATCH_USERS))
        items_BK = ranker(batch, rule)
        ranks.append(ranks_of(batch.targets_U, items_BK))
        shown.update(np.unique(items_BK[:, :10]).tolist())
    return np.concatenate(ranks), len(shown - {-1})


def _of_ranks(ranks_U: Int64s) -> Iterator[tuple[str, float]]:
    for k in CUTOFFS:
        yield f"recall@{k}", recall_at_k(ranks_U, k=k)
        yield f"ndcg@{k}", ndcg_at_k(ranks_U, k=k)


def _gains(ranks_U: Int64s, *, recall: bool) -> npt.NDArray[np.float64]:
    hit_U = (ranks_U > 0) & (ranks_U <= 10)
    return hit_U.astype(np.float64) if recall else np.where(hit_U, 1.0 / np.log2(np.maximum(ranks_U, 1) + 1.0), 0.0)
