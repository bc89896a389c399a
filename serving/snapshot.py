"""One release, open for answering: its lookup file, its titles and, where one fits, its model.

A snapshot never changes. What it needs after opening is in memory or in a file that stays open, so whatever is published, rolled
back or vacuumed meanwhile, it answers of its own release. Memory: the titles and ids, 8 bytes per item more, and the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from sidlake.errors import SidlakeError
from sidlake.serving.recommender import Model, fitting, read_model
from sidlake.serving.sorted_ids import SortedIds
from sidlake.warehouse.checkpoint_files import TrainedOn
from sidlake.warehouse.outlets.lookup import Lookup
from sidlake.warehouse.releases import Release
from sidlake.warehouse.tables import Warehouse

__all__ = ["Snapshot", "open_snapshot", "wanted_model"]


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A release with what answers for it; `model` is None where none fits, and `no_model` says why and what to do.

    `in_force_N` says which of the model's items the release has.
    """

    release: Release
    lookup: Lookup
    model: Model | None
    no_model: str | None
    in_force_N: npt.NDArray[np.bool_]
    _titles: pl.Series
    _rows: SortedIds

    def title(self, item_id: str) -> str | None:
        """Return the item's title; None for one that has none, or has left."""
        row = self._rows.row(item_id)
        return None if row is None else self._titles[row]


def wanted_model(warehouse: Warehouse, release: Release, *, named: str | None) -> TrainedOn | str:
    """Return the checkpoint to read for `release`, or why there is none (see `recommender.fitting`)."""
    try:
        return fitting(warehouse, release, named=named)
    except SidlakeError as error:  # lookups go on without a model, and whoever asks it is told this
        return str(error)


def open_snapshot(warehouse: Warehouse, release: Release, wanted: TrainedOn | str, known: Model | None = None) -> Snapshot:
    """Return `release` opened, with the model `wanted`, which is not read again where it is `known`.

    Raises `StorageError` where the release's tables cannot be read; of a model that cannot, the snapshot says why.
    """
    model, reason = _model(warehouse, wanted, known)
    in_force_N = np.zeros(0, np.bool_) if model is None else model.in_force(warehouse, release)
    items = warehouse.scan("items", version=release.tables["items"]).select("item_id", "title").collect()
    rows = SortedIds(items["item_id"])
    return Snapshot(release, Lookup(warehouse, release), model, reason, in_force_N, items["title"], rows)


def _model(warehouse: Warehouse, wanted: TrainedOn | str, known: Model | None) -> tuple[Model | None, str | None]:
    if isinstance(wanted, str):
        return None, wanted
    if known is not None and known.trained == wanted:
        return known, None
    try:
        return read_model(warehouse, wanted), None
    except SidlakeError as error:
        return None, f"checkpoint {wanted.name} cannot be used: {error}"
