"""Training and judging in one call: from a release's feature tables to a model, its metrics, its curve and some recommendations.

The model and the baselines learn from the training histories alone and are judged alike (`judging.judge`): the same users, whole
catalogue, items had before kept and left out. Not done here: reading tables, writing results (see `pipelines`).

Shape suffixes: U users, N items, F width of fused vectors, K recommendations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from sidlake.errors import ContractError
from sidlake.generative.catalogue import ItemCatalogue
from sidlake.generative.config import DecoderConfig, GenerativeConfig
from sidlake.generative.judging.baselines import Baseline, ItemToItem, MostPopular, NearestVector
from sidlake.generative.judging.judge import Ranker, judge, popularity_groups
from sidlake.generative.judging.rankers import ranker_of
from sidlake.generative.models.item_facts import ItemFacts
from sidlake.generative.models.packed_decoder import PackedDecoder
from sidlake.generative.models.tiger import GenerativeModel
from sidlake.generative.recommenders import DecoderRecommender, Recommender, TigerRecommender, ranker_by
from sidlake.generative.sequences import Histories, SequenceReader
from sidlake.generative.timelines import Timelines, whole_histories
from sidlake.generative.training.loop import fit
from sidlake.generative.training.resume import EpochRow
from sidlake.generative.training.windows import Progress, train
from sidlake.generative.trie_tensors import TrieTensors
from sidlake.tokenizers.trie import Trie

__all__ = [
    "FusedVectors",
    "MetricRow",
    "Model",
    "RecommendationRow",
    "TrainerResult",
    "baselines_of",
    "train_and_evaluate",
    "validation_of",
]

MetricRow = tuple[str, str, str, float]
"""(model, split, metric, value), as in table `model_metrics`."""

RecommendationRow = tuple[str, int, str, float]
"""(user_id, rank, item_id, score), as in table `recommendations`."""

Model = GenerativeModel | PackedDecoder
Float32s = npt.NDArray[np.float32]

_PLACES = 10
_BATCH_USERS = 256


@dataclass(frozen=True, slots=True, eq=False)
class FusedVectors:
    """The fused vectors of a release: `vectors_NF` row n belongs to `item_ids[n]`, in any order."""

    item_ids: pa.Array | pa.ChunkedArray
    vectors_NF: Float32s

    def of(self, catalogue: ItemCatalogue) -> Float32s:
        """Return the vectors in the catalogue's order; `ContractError` where one is missing."""
        rows = pa.compute.index_in(catalogue.item_ids, value_set=pa.chunked_array(self.item_ids).cast(pa.string()).combine_chunks())
        if rows.null_count:
            msg = f"{rows.null_count} of {catalogue.num_items} items have no fused vector; read both from one release"
            raise ContractError(msg, missing=rows.null_count)
        vectors_NF: Float32s = self.vectors_NF[rows.to_numpy()]
        return vectors_NF


@dataclass(frozen=True, slots=True, eq=False)
class TrainerResult:
    """A trained model, its curve (none for TIGER), how it and the baselines fare, and what it recommends to the first users."""

    model: Model
    catalogue: ItemCatalogue
    metrics: list[MetricRow]
    recommendations: list[RecommendationRow]
    curve: list[EpochRow] = field(default_factory=list)


def train_and_evaluate(
    sequences: pa.Table,
    semantic_ids: pa.Table,
    trie_table: pa.Table,
    *,
    widths: tuple[int, ...],
    config: DecoderConfig | GenerativeConfig,
    fused: FusedVectors | None = None,
    num_sample_users: int = 100,
    keep_in: Path | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    device: torch.device | str = "cpu",
) -> TrainerResult:
    """Return the result of training on `sequences`; the tables and `fused` must come from one release.

    `keep_in` is a folder for the state after each epoch of a decoder, from which a training that was killed goes on.

    Raises `ContractError` when they do not, when there is nothing to train on, when a held-out split is empty, or when `fused` is
    among the inputs and not given.
    """
    reader = SequenceReader(sequences, semantic_ids, widths=widths, max_history=config.max_history)
    trie = TrieTensors.from_trie(Trie.from_table(trie_table), reader.catalogue)
    timelines = whole_histories(reader)
    fused_NF = None if fused is None else fused.of(reader.catalogue)
    groups_N = popularity_groups(timelines.train, num_items=reader.catalogue.num_items)
    recommender: TigerRecommender | DecoderRecommender
    curve: list[EpochRow] = []
    if isinstance(config, GenerativeConfig):
        recommender = TigerRecommender(train(reader, config, progress=progress, device=device), reader.catalogue, trie)
    else:
        recommender = DecoderRecommender(_untrained(reader, timelines, fused_NF, config).to(torch.device(device)), trie)
        validate = validation_of(recommender, timelines.valid, groups_N)
        curve = fit(recommender.model, timelines.train, validate, keep_in=keep_in, progress=progress, say=say).curve
    rankers: dict[str, Ranker] = {config.kind: ranker_by(recommender)}
    rankers |= {name: ranker_of(one.scores) for name, one in baselines_of(timelines, fused_NF, reader.catalogue.num_items).items()}
    metrics = [
        (name, split, metric, value)
        for split, users in (("valid", timelines.valid), ("test", timelines.test))
        for name, ranker in rankers.items()
        for metric, value in judge(ranker, users, groups_N).items()
    ]
    sample = timelines.test.take(slice(0, num_sample_users))
    recommendations = _recommendations(recommender, reader.catalogue, sample, exclude_seen=config.exclude_seen)
    return TrainerResult(recommender.model, reader.catalogue, metrics, recommendations, curve)


def baselines_of(timelines: Timelines, fused_NF: Float32s | None, num_items: int) -> dict[str, Baseline]:
    """Return the baselines by name; `nearest_fused` where there are fused vectors."""
    found: dict[str, Baseline] = {
        "most_popular": MostPopular(timelines.train, num_items=num_items),
        "item_to_item": ItemToItem(timelines.train, num_items=num_items),
    }
    return found if fused_NF is None else found | {"nearest_fused": NearestVector(fused_NF)}


def _untrained(reader: SequenceReader, timelines: Timelines, fused_NF: Float32s | None, config: DecoderConfig) -> PackedDecoder:
    if "fused" in config.inputs and fused_NF is None:
        msg = "inputs name fused, but no fused vectors were given; pass those of the release, or leave fused out of inputs"
        raise ContractError(msg, inputs=config.inputs)
    facts = ItemFacts.of(reader.catalogue, timelines.train, fused_NF if "fused" in config.inputs else None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return PackedDecoder(facts, config)


def validation_of(
    recommender: DecoderRecommender, valid: Histories, groups_N: npt.NDArray[np.int64]
) -> Callable[[PackedDecoder], tuple[float, float]]:
    """Return what judges the model on validation users spread evenly, items had before kept."""
    config = recommender.model.config
    rows = np.linspace(0, len(valid) - 1, min(config.validation_users, len(valid))).astype(np.int64)
    users = valid.at(rows)

    def validate(model: PackedDecoder) -> tuple[float, float]:
        assert model is recommender.model
        figures = judge(ranker_by(recommender), users, groups_N, rules=("kept",), details=False)
        return figures["recall@10"], figures["ndcg@10"]

    return validate


def _recommendations(
    recommender: Recommender, catalogue: ItemCatalogue, users: Histories, *, exclude_seen: bool
) -> list[RecommendationRow]:
    rows: list[RecommendationRow] = []
    for start in range(0, len(users), _BATCH_USERS):
        batch = users.take(slice(start, start + _BATCH_USERS))
        items_BK, scores_BK = recommender.recommend(batch, k=_PLACES, exclude_seen=exclude_seen)
        for user, place in np.argwhere(items_BK >= 0):
            item_id = catalogue.item_ids[items_BK[user, place]].as_py()
            rows.append((batch.user_ids[user].as_py(), int(place) + 1, item_id, float(scores_BK[user, place])))
    return rows
