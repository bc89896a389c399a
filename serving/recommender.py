"""The trained model that a release may be asked with: which checkpoint it is, and the items it recommends after a history.

A model knows the items of the release it was trained on, by their order there, so it is read together with that release's SIDs and
trie. A later release of its generation may have lost items and gained some: lost ones are never recommended, and new ones are
passed over in a history. A checkpoint of another generation is refused by name: its codes mean other things.

torch is imported when a model is read (seconds), never by who serves lookups alone. Not done here: batches of requests.

Shape suffixes: N items, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from sidlake.errors import NotFoundError, StaleReleaseError
from sidlake.serving.sorted_ids import SortedIds
from sidlake.tokenizers.item_ids import normal_id
from sidlake.tokenizers.semantic_id import format_sids
from sidlake.warehouse.checkpoint_files import TrainedOn, checkpoints
from sidlake.warehouse.releases import Release, get, history
from sidlake.warehouse.tables import Warehouse

if TYPE_CHECKING:
    from sidlake.generative.catalogue import ItemCatalogue
    from sidlake.generative.recommenders import Recommender
    from sidlake.generative.sequences import Histories

__all__ = ["Model", "Ranked", "Recommendations", "fitting", "read_model"]


@dataclass(frozen=True, slots=True)
class Ranked:
    """A recommended item, its SID and its log-probability."""

    item_id: str
    sid: str
    score: float


@dataclass(frozen=True, slots=True)
class Recommendations:
    """Items, best first, and the ids of the history that the model does not know."""

    items: list[Ranked]
    ignored: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A checkpoint's weights with the items of the release it was trained on."""

    trained: TrainedOn
    origin: Release
    exclude_seen: bool
    _recommender: Recommender
    _catalogue: ItemCatalogue
    _rows: SortedIds

    def in_force(self, warehouse: Warehouse, release: Release) -> npt.NDArray[np.bool_]:
        """Return which of the model's items `release` has, (N,)."""
        if release.tables["semantic_ids"] == self.origin.tables["semantic_ids"]:
            return np.ones(self._catalogue.num_items, dtype=np.bool_)
        kept = warehouse.scan("semantic_ids", version=release.tables["semantic_ids"]).select("item_id").collect()["item_id"]
        mine = pl.Series(self._catalogue.item_ids)
        return mine.is_in(kept.implode()).to_numpy()

    def recommend(
        self, item_ids: Sequence[str], *, k: int, exclude_seen: bool | None, in_force_N: npt.NDArray[np.bool_]
    ) -> Recommendations:
        """Return at most `k` items after the history `item_ids`, oldest first; none where the model knows none of it.

        Ids are known in any spelling (see `tokenizers.item_ids`). `exclude_seen` None is as it was trained. Fewer than k come
        back where the beams reach fewer. One thread at a time.
        """
        known = [(item_id, self._row(item_id)) for item_id in item_ids]
        rows = [row for _, row in known if row is not None]
        ignored = [item_id for item_id, row in known if row is None]
        if not rows:
            return Recommendations([], ignored)
        num_asked = min(k + int((~in_force_N).sum()), len(in_force_N))
        leave_out = self.exclude_seen if exclude_seen is None else exclude_seen
        items_1K, scores_1K = self._recommender.recommend(_one_user(rows), k=num_asked, exclude_seen=leave_out)
        is_good_K = (items_1K[0] >= 0) & np.isfinite(scores_1K[0])
        is_good_K &= in_force_N[np.maximum(items_1K[0], 0)]
        return Recommendations(self._spelled(items_1K[0][is_good_K][:k], scores_1K[0][is_good_K][:k]), ignored)

    def _row(self, item_id: str) -> int | None:
        row = self._rows.row(item_id)
        uppercase = bool(self.origin.config.get("items", {}).get("uppercase_ids", False))
        return self._rows.row(normal_id(item_id, uppercase=uppercase)) if row is None else row

    def _spelled(self, items_K: npt.NDArray[np.int64], scores_K: npt.NDArray[np.float32]) -> list[Ranked]:
        if not len(items_K):
            return []
        sids = format_sids(self._catalogue.tokens_NL[items_K] - np.array(self._catalogue.space.offsets))
        ids = self._catalogue.item_ids.take(items_K).to_pylist()
        return [Ranked(item_id, sid, score) for item_id, sid, score in zip(ids, sids, scores_K.tolist(), strict=True)]


def fitting(warehouse: Warehouse, release: Release, *, named: str | None = None) -> TrainedOn:
    """Return the checkpoint to ask `release` with: the one called `named`, else the best of its generation.

    The best was trained on a release of the same content, or else on the latest. Raises `NotFoundError` where there is none, and
    `StaleReleaseError` where those there are, or the one named, are of another generation; both name them and say what to do.
    """
    there = [one for one in checkpoints(warehouse) if named in (None, one.name)]
    if not there:
        what = f"no checkpoint {named!r}" if named else "no trained model"
        all_names = ", ".join(one.name for one in checkpoints(warehouse)) or "none"
        msg = f"{what} in {warehouse.url} (there are: {all_names}); train one with: sidlake run retrain"
        raise NotFoundError(msg, checkpoint=named)
    fits = [one for one in there if (one.generation, one.codebook_hash) == (release.generation, release.codebook_hash)]
    if not fits:
        others = ", ".join(f"{one.name} of generation {one.generation}" for one in there)
        msg = (
            f"release {release.release_id} is of generation {release.generation}, and no checkpoint is: {others};"
            f" train one with: sidlake run retrain, or serve the release that it was trained on with --release"
        )
        raise StaleReleaseError(msg, trained=[one.generation for one in there], asked=release.generation)
    alike = {one.release_id for one in history(warehouse) if one.content_hash == release.content_hash}
    return max(fits, key=lambda one: (one.release_id in alike, one.release_id, one.name))


def read_model(warehouse: Warehouse, trained: TrainedOn) -> Model:
    """Return the model of the checkpoint `trained`, in eval mode, with the tables of its release; reads both, which takes seconds.

    Raises `NotFoundError` where that release was vacuumed, and what `load_checkpoint` raises.
    """
    import torch

    from sidlake.generative.catalogue import ItemCatalogue
    from sidlake.generative.checkpoint import load_checkpoint
    from sidlake.generative.models.tiger import GenerativeModel
    from sidlake.generative.recommenders import DecoderRecommender, TigerRecommender
    from sidlake.generative.trie_tensors import TrieTensors
    from sidlake.tokenizers.trie import Trie

    origin = get(warehouse, trained.release_id)
    model = load_checkpoint(
        warehouse.fetched(warehouse.checkpoints_dir / trained.name),
        generation=trained.generation,
        codebook_hash=trained.codebook_hash,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    widths = model.space.widths if isinstance(model, GenerativeModel) else model.widths
    sids = warehouse.read("semantic_ids", version=origin.tables["semantic_ids"], columns=["item_id", "codes"])
    catalogue = ItemCatalogue.from_table(sids, widths=widths)
    trie = TrieTensors.from_trie(Trie.from_table(warehouse.read("sid_trie", version=origin.tables["sid_trie"])), catalogue)
    recommender = (
        TigerRecommender(model, catalogue, trie) if isinstance(model, GenerativeModel) else DecoderRecommender(model, trie)
    )
    return Model(trained, origin, model.config.exclude_seen, recommender, catalogue, SortedIds(pl.Series(catalogue.item_ids)))


def _one_user(rows: list[int]) -> Histories:
    import pyarrow as pa

    from sidlake.generative.sequences import Histories

    ends = np.array([len(rows)], dtype=np.int64)
    return Histories(pa.array(["asked"]), np.array(rows, dtype=np.int64), np.zeros(1, np.int64), ends, np.full(1, -1, np.int64))
