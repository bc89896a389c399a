"""Which releases can no longer be read, because a vacuum removed files of theirs, or died while it did.

The record is written before the first file goes: a reader finds a release whole, or is told by name that it is gone. Rows of
`releases` stay, so what a vacuumed release was made of can still be told. Not done here: choosing and removing (see `vacuum`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow as pa

from sidlake.errors import NotFoundError
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.tables import Warehouse

__all__ = ["Vacuumed", "record_vacuumed", "refuse_vacuumed", "vacuumed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Vacuumed:
    """One row of `vacuumed`."""

    release_id: str
    vacuumed_at: datetime
    vacuumed_by: str
    reason: str


def vacuumed(warehouse: Warehouse) -> dict[str, Vacuumed]:
    """Return the releases that can no longer be read, by id."""
    version = warehouse.version("vacuumed")
    return {} if version is None else dict(warehouse.made_of("vacuumed", version, "rows", lambda: _read(warehouse, version)))


def _read(warehouse: Warehouse, version: int) -> dict[str, Vacuumed]:
    return {row["release_id"]: Vacuumed(**row) for row in warehouse.read("vacuumed", version=version).to_pylist()}


def refuse_vacuumed(warehouse: Warehouse, release_id: str) -> None:
    """Raise `NotFoundError`, saying when, by whom and why, where `release_id` was vacuumed."""
    gone = vacuumed(warehouse).get(release_id)
    if gone is not None:
        msg = (
            f"release {release_id} was vacuumed on {gone.vacuumed_at:%Y-%m-%d %H:%M} UTC by {gone.vacuumed_by} ({gone.reason}): "
            "its files are gone; read a later release, and pin what must stay: sidlake pin NAME RELEASE"
        )
        raise NotFoundError(msg, release_id=release_id, vacuumed_at=gone.vacuumed_at.isoformat())


def record_vacuumed(warehouse: Warehouse, rows: Iterable[Vacuumed], *, run_id: str) -> None:
    """Add `rows` in one commit; `ReleaseConflict` where another process wrote the table meanwhile. Nothing is removed before."""
    data = pa.Table.from_pylist([asdict(row) for row in rows], CONTRACTS["vacuumed"])
    if data.num_rows:
        warehouse.append_at("vacuumed", data, head=warehouse.version("vacuumed"), run_id=run_id)
