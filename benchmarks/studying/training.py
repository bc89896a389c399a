"""One model per assignment, the same for all: a decoder over items whose vectors are sums of code embeddings, and nothing else.

Shape suffixes: N items, L levels, K recommendations.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from recommend import Catalogue

from sidlake.generative.config import DecoderConfig
from sidlake.generative.judging.judge import CUTOFFS, Judge, Ranker, judge
from sidlake.generative.judging.rankers import leave_out_seen, top_items
from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.recommenders import DecoderRecommender
from sidlake.generative.sequences import Histories
from sidlake.generative.training.loop import fit
from sidlake.quality.assignment import Assignment

__all__ = ["BUDGET", "facts_of", "trained_on"]

BUDGET = DecoderConfig(
    inputs=("codes",),
    heads=("item",),
    d_model=128,
    num_layers=1,
    num_heads=2,
    dropout=0.2,
    num_negatives=512,
    batch_positions=1024,
    max_epochs=8,
    patience=8,
    num_warmup_steps=50,
    learning_rate=2e-3,
    validation_users=1024,
)
"""The same for every assignment: SIDs alone must carry it, so there is no fused vector and no learned vector of an item."""


def trained_on(assignment: Assignment, catalogue: Catalogue, *, seed: int, epochs: int) -> dict[str, Any]:
    """Return the figures of a model trained on the codes of `assignment`; items of one SID are ranked at random."""
    start = time.monotonic()
    config = replace(BUDGET, seed=seed, max_epochs=epochs, patience=epochs)
    ours = assignment.aligned_to(catalogue.reader.catalogue.item_ids)
    torch.manual_seed(seed)
    model = PackedDecoder(facts_of(ours, catalogue.timelines.train), config)
    ranker = _at_random(DecoderRecommender(model, catalogue.trie), np.random.default_rng(seed).permutation(ours.num_items))
    users = catalogue.timelines.valid
    users = users.at(np.linspace(0, len(users) - 1, min(config.validation_users, len(users))).astype(np.int64))

    def validate(model: PackedDecoder) -> tuple[float, float]:
        figures = judge(ranker, users, catalogue.groups_N, rules=("kept",), details=False)
        return figures["recall@10"], figures["ndcg@10"]

    fitted = fit(model, catalogue.timelines.train, validate)
    figures = judge(ranker, catalogue.timelines.test, catalogue.groups_N)
    kept = ("recall@10", "ndcg@10", "left_out_recall@10", "left_out_ndcg@10", "recall@10_low", "recall@10_high", "coverage@10")
    return {name: round(figures[name], 5) for name in kept} | {
        "seed": seed,
        "epochs": len(fitted.curve),
        "best_epoch": fitted.best_epoch,
        "seconds": round(time.monotonic() - start, 1),
    }


def facts_of(assignment: Assignment, train: Histories) -> ItemFacts:
    offsets_L = np.array([0, *accumulate(assignment.widths[:-1])], dtype=np.int64)
    known_N = torch.zeros(assignment.num_items, dtype=torch.bool)
    known_N[torch.from_numpy(train.flat_items())] = True
    codes_NL = torch.from_numpy(assignment.codes_NL + offsets_L)
    return ItemFacts(tuple(assignment.widths), codes_NL, torch.zeros((assignment.num_items, 0)), known_N)


def _at_random(recommender: DecoderRecommender, order_N: npt.NDArray[np.int64]) -> Ranker:
    """Return a ranker that puts items of equal score in the order of `order_N`, drawn without a look at the items."""

    def ranked(users: Histories, rule: Judge) -> npt.NDArray[np.int64]:
        scores_BN = recommender.scores(users)
        if rule == "left_out":
            leave_out_seen(scores_BN, users)
        items_BK = top_items(scores_BN[:, order_N], k=max(CUTOFFS))
        return np.where(items_BK >= 0, order_N[items_BK], -1)

    return ranked
