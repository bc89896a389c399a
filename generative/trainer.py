"""Training and evaluation in one call: from a release's three feature tables to a model, its metrics and some recommendations.

The model and both baselines learn from the training histories alone and are judged on the same users, candidates and targets: leave
one out, full catalogue, items seen before included unless the configuration says otherwise. Not done here: reading tables, writing
results (see `pipelines`).

Shape suffixes: B users of a batch, N items, K recommendations, S seen items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from sidlake.errors import ContractError
from sidlake.generative.baselines import Baseline, ItemToItem, MostPopular, top_items
from sidlake.generative.beam_search import TrieTensors, recommend
from sidlake.generative.catalogue import ItemCatalogue
from sidlake.generative.config import GenerativeConfig
from sidlake.generative.evaluation import ndcg_at_k, ranks_of, recall_at_k
from sidlake.generative.model import GenerativeModel
from sidlake.generative.sequences import Histories, SequenceReader
from sidlake.generative.training import Progress, train
from sidlake.tokenizers.trie import Trie

__all__ = ["MetricRow", "RecommendationRow", "TrainerResult", "train_and_evaluate"]

MetricRow = tuple[str, str, str, float]
"""(model, split, metric, value), as in table `model_metrics`."""

RecommendationRow = tuple[str, int, str, float]
"""(user_id, rank, item_id, score), as in table `recommendations`."""

Int64s = npt.NDArray[np.int64]
Ranker = Callable[[Histories], Int64s]

_CUTOFFS = (5, 10)
_BATCH_USERS = 256


@dataclass(frozen=True, slots=True, eq=False)
class TrainerResult:
    """A trained model, how it and the baselines fare, and what it recommends to the first users of the test split."""

    model: GenerativeModel
    metrics: list[MetricRow]
    recommendations: list[RecommendationRow]


def train_and_evaluate(
    sequences: pa.Table,
    semantic_ids: pa.Table,
    trie_table: pa.Table,
    *,
    widths: tuple[int, ...],
    config: GenerativeConfig,
    num_sample_users: int = 100,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> TrainerResult:
    """Return the result of training on `sequences`; the tables must come from one release.

    Raises `ContractError` when they do not, when there is nothing to train on, or when a held-out split is empty.
    """
    reader = SequenceReader(sequences, semantic_ids, widths=widths, max_history=config.max_history)
    trie = TrieTensors.from_trie(Trie.from_table(trie_table), reader.catalogue)
    splits = {split: reader.histories(split) for split in ("valid", "test")}
    for split, users in splits.items():
        if not len(users):
            msg = f"no users in split {split} of user_sequences, at least one is needed; a user needs three interactions"
            raise ContractError(msg, split=split)
    model = train(reader, config, progress=progress, device=device)
    rankers = _rankers(model, reader, trie)
    metrics = [
        row for split, users in splits.items() for name, ranker in rankers.items() for row in _metrics(name, split, users, ranker)
    ]
    sample = splits["test"].take(slice(0, num_sample_users))
    return TrainerResult(model, metrics, _recommendations(model, reader.catalogue, trie, sample))


def _rankers(model: GenerativeModel, reader: SequenceReader, trie: TrieTensors) -> dict[str, Ranker]:
    num_items = reader.catalogue.num_items
    baselines: dict[str, Baseline] = {
        "most_popular": MostPopular(reader.train, num_items=num_items),
        "item_to_item": ItemToItem(reader.train, num_items=num_items),
    }
    exclude_seen = model.config.exclude_seen
    return {
        "tiger": lambda users: _recommend(model, reader.catalogue, trie, users)[0],
        **{name: partial(_baseline_items, one, exclude_seen=exclude_seen) for name, one in baselines.items()},
    }


def _baseline_items(baseline: Baseline, users: Histories, *, exclude_seen: bool) -> Int64s:
    scores_BN = baseline.scores(users)
    if exclude_seen:
        seen_BS = users.padded()
        rows_X, places_X = np.nonzero(seen_BS >= 0)
        scores_BN[rows_X, seen_BS[rows_X, places_X]] = -np.inf
    return top_items(scores_BN, k=max(_CUTOFFS))


def _recommend(
    model: GenerativeModel, catalogue: ItemCatalogue, trie: TrieTensors, users: Histories
) -> tuple[Int64s, npt.NDArray[np.float32]]:
    config = model.config
    history_BT = catalogue.history_tokens(users.last(config.max_history))
    seen_BS = users.padded() if config.exclude_seen else None
    return recommend(model, history_BT, trie, beams=config.num_beams, k=max(_CUTOFFS), seen_BS=seen_BS)


def _metrics(name: str, split: str, users: Histories, ranker: Ranker) -> list[MetricRow]:
    batches = [users.take(slice(start, start + _BATCH_USERS)) for start in range(0, len(users), _BATCH_USERS)]
    ranks_U = np.concatenate([ranks_of(batch.targets_U, ranker(batch)) for batch in batches])
    figures = {f"recall@{k}": recall_at_k(ranks_U, k=k) for k in _CUTOFFS}
    figures |= {f"ndcg@{k}": ndcg_at_k(ranks_U, k=k) for k in _CUTOFFS}
    return [(name, split, metric, value) for metric, value in figures.items()]


def _recommendations(
    model: GenerativeModel, catalogue: ItemCatalogue, trie: TrieTensors, users: Histories
) -> list[RecommendationRow]:
    rows: list[RecommendationRow] = []
    for start in range(0, len(users), _BATCH_USERS):
        batch = users.take(slice(start, start + _BATCH_USERS))
        items_BK, scores_BK = _recommend(model, catalogue, trie, batch)
        for user, place in np.argwhere(items_BK >= 0):
            item_id = catalogue.item_ids[items_BK[user, place]].as_py()
            rows.append((batch.user_ids[user].as_py(), int(place) + 1, item_id, float(scores_BK[user, place])))
    return rows
