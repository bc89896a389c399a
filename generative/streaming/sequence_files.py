"""The rows of a release's `user_sequences`, a row group at a time, from wherever the warehouse lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from sidlake.errors import ContractError, NotFoundError
from sidlake.generative.streaming.row_ranges import RowRange
from sidlake.warehouse.places.parquet_files import dataset_of
from sidlake.warehouse.releases import get
from sidlake.warehouse.tables import Warehouse

__all__ = ["COLUMNS", "SPLITS", "SequenceFiles", "SequenceRow"]

COLUMNS = ("user_id", "item_ids", "codes", "target")
SPLITS = ("train", "valid", "test")


class SequenceRow(TypedDict):
    """One user's history: items oldest first, their codes end to end, and the item to predict (None in split train)."""

    user_id: str
    item_ids: list[str]
    codes: list[int]
    target: str | None


class SequenceFiles:
    """The row groups of the table as one release has it; pickles by name, so that each process opens files of its own.

    Raises `NotFoundError` for a release without sequences or one that is not there, and `ContractError` for a split that is none.
    """

    def __init__(self, warehouse: str, release: str = "current", *, split: str = "train") -> None:
        if split not in SPLITS:
            msg = f"unknown split {split!r}; the splits are {', '.join(SPLITS)}"
            raise ContractError(msg, split=split)
        lake = Warehouse(warehouse)
        found = get(lake, release)
        version = found.tables.get("user_sequences")
        if version is None or not lake.num_rows("user_sequences", version):
            msg = f"release {found.release_id} has no sequences: its catalogue has no interactions, so there is nothing to train on"
            raise NotFoundError(msg, release=found.release_id, table="user_sequences")
        self.warehouse, self.release, self.split, self.version = str(lake.url), found.release_id, split, version
        self.content_hash = found.content_hash
        self._groups: list[pads.Fragment] | None = None
        self.group_rows = [int(group.row_groups[0].num_rows) for group in self._opened()]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_groups": None}

    def tables(self, ranges: Iterable[RowRange]) -> Iterator[pa.Table]:
        """Yield the rows of each range that are of the split, with the columns of `SequenceRow`; one group is in memory."""
        for group, start, stop in ranges:
            rows = self._opened()[group].to_table(columns=[*COLUMNS, "split"]).slice(start, stop - start)
            yield rows.filter(pc.equal(rows.column("split"), self.split)).select(COLUMNS)

    def _opened(self) -> list[pads.Fragment]:
        if self._groups is None:
            lake = Warehouse(self.warehouse)
            schema = lake.schema("user_sequences", version=self.version)
            files = lake.files("user_sequences", version=self.version)
            dataset = dataset_of(lake.location, "user_sequences", lake.table_url("user_sequences"), schema, files)
            self._groups = [group for fragment in dataset.get_fragments() for group in fragment.split_by_row_group()]
        return self._groups
