"""Pins: names such as ``prod`` that point at a release, to be moved in one commit and never to be vacuumed under a reader.

`pins` only grows: the row with a name's highest number is in force, and one without a release takes the name away. So a pin's past
can be read, and of two people who move pins at once one is refused, by the condition of the commit itself. Not done here: pins that
follow other pins; a name is resolved when it is set, and points at that release until somebody moves it.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa

from sidlake.errors import NotFoundError
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.identity import user_at_host
from sidlake.warehouse.keep.vacuumed import refuse_vacuumed
from sidlake.warehouse.tables import Warehouse

__all__ = ["Pin", "checked_name", "pin", "pins", "resolve", "unpin"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
_TAKEN = re.compile(r"[rg]\d+|current", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    """One row of `pins`; `release_id` is None where the row takes the name away."""

    name: str
    number: int
    release_id: str | None
    set_at: datetime
    set_by: str
    reason: str | None


def pins(warehouse: Warehouse) -> list[Pin]:
    """Return the pins in force, sorted by name."""
    return sorted(_in_force(warehouse, warehouse.version("pins")).values(), key=lambda one: one.name)


def resolve(warehouse: Warehouse, name: str) -> str | None:
    """Return the release that `name` points at, or None where there is no such pin."""
    found = _in_force(warehouse, warehouse.version("pins")).get(name)
    return found.release_id if found else None


def pin(warehouse: Warehouse, name: str, release_id: str, *, reason: str | None = None, set_by: str | None = None) -> Pin:
    """Return the pin `name` after pointing it at `release_id` in one commit, wherever it pointed before.

    Raises ValueError for a name that is none, `NotFoundError` for a release that does not exist or was vacuumed, `WarehouseBusy`
    while a run or a vacuum writes, and `ReleaseConflict` when another process moved a pin meanwhile.
    """
    run_id = f"pin-{uuid.uuid4().hex}"
    with warehouse.writing(run_id):
        known = warehouse.read("releases", columns=["release_id"])["release_id"].to_pylist() if warehouse.exists("releases") else []
        if release_id not in known:
            msg = f"no release {release_id!r} in {warehouse.url} to point {name!r} at; list them with: sidlake releases"
            raise NotFoundError(msg, release_id=release_id)
        refuse_vacuumed(warehouse, release_id)
        return _append(warehouse, checked_name(name), release_id, run_id=run_id, reason=reason, set_by=set_by)


def unpin(warehouse: Warehouse, name: str, *, reason: str | None = None, set_by: str | None = None) -> Pin:
    """Return the pin `name` as it was, after taking the name away; `NotFoundError` lists the pins there are. Else as `pin`."""
    run_id = f"unpin-{uuid.uuid4().hex}"
    with warehouse.writing(run_id):
        found = _in_force(warehouse, warehouse.version("pins"))
        if name not in found:
            msg = f"no pin {name!r} in {warehouse.url}; there are {', '.join(sorted(found)) or 'none'}"
            raise NotFoundError(msg, name=name, known=sorted(found))
        _append(warehouse, name, None, run_id=run_id, reason=reason, set_by=set_by)
        return found[name]


def checked_name(name: str) -> str:
    """Return `name`, or raise ValueError where it cannot be a pin's.

    >>> checked_name("prod")
    'prod'
    """
    if not _NAME.fullmatch(name) or _TAKEN.fullmatch(name):
        msg = (
            f"{name!r} cannot name a pin: a name is 1 to 63 of A-Z a-z 0-9 _ -, starts with a letter, and is neither 'current' nor "
            "spelled like a release (r000001) or a generation (g0001)"
        )
        raise ValueError(msg)
    return name


def _in_force(warehouse: Warehouse, version: int | None) -> dict[str, Pin]:
    if version is None:
        return {}
    rows = sorted(warehouse.read("pins", version=version).to_pylist(), key=lambda row: row["number"])
    latest = {row["name"]: Pin(**row) for row in rows}
    return {name: one for name, one in latest.items() if one.release_id is not None}


def _append(warehouse: Warehouse, name: str, release_id: str | None, *, run_id: str, reason: str | None, set_by: str | None) -> Pin:
    version = warehouse.version("pins")
    made = Pin(
        name=name,
        number=0 if version is None else warehouse.num_rows("pins", version),
        release_id=release_id,
        set_at=datetime.now(UTC),
        set_by=set_by or user_at_host(),
        reason=reason or None,
    )
    warehouse.append_at("pins", pa.Table.from_pylist([asdict(made)], CONTRACTS["pins"]), head=version, run_id=run_id)
    return made
