"""Holds: after a rollback runs publish nothing, until somebody says that they may.

A rollback is there because what a run made was wrong, and the next scheduled run has the same inputs and would make it again. So
the hold is the rollback itself: it is in force while the current release is one, and begins with the same commit. Lifting it is a
row of `lifted_holds`, with the reason; a release that a run was told to publish nevertheless ends it too.
Not done here: telling which inputs were at fault.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa

from sidlake.errors import HoldError, NotFoundError
from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.identity import user_at_host
from sidlake.warehouse.tables import Warehouse

__all__ = ["Hold", "hold_by", "lift", "refuse_held"]

_TABLE = "lifted_holds"


class _Latest(Protocol):
    """What a hold needs of the current release."""

    @property
    def release_id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def reason(self) -> str: ...
    @property
    def published_by(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """Why runs publish nothing: the rollback that is current, when, by whom and why."""

    release_id: str
    since: datetime
    set_by: str
    reason: str

    def spelled(self) -> str:
        """Return the hold in words."""
        return f"held by rollback {self.release_id} since {self.since:%Y-%m-%d %H:%M} UTC, by {self.set_by}: {self.reason}"


def hold_by(warehouse: Warehouse, latest: _Latest | None) -> Hold | None:
    """Return the hold that `latest`, the current release, puts on runs; None where it is no rollback, or was lifted."""
    if latest is None or latest.status != "rollback":
        return None
    if warehouse.exists(_TABLE) and latest.release_id in warehouse.read(_TABLE, columns=["release_id"])["release_id"].to_pylist():
        return None
    by = latest.published_by or "unknown"
    return Hold(release_id=latest.release_id, since=latest.created_at, set_by=by, reason=latest.reason)


def refuse_held(warehouse: Warehouse, latest: _Latest | None) -> None:
    """Raise `HoldError`, which says since when, by whom, why and what ends it, where runs may not publish after `latest`."""
    hold = hold_by(warehouse, latest)
    if hold is not None:
        msg = (
            f'{hold.spelled()}. Nothing was published. Once it may be: sidlake resume --reason "…"; for one run: '
            'sidlake run JOB --despite-hold "…"'
        )
        raise HoldError(msg, release_id=hold.release_id, reason=hold.reason, since=hold.since.isoformat(), set_by=hold.set_by)


def lift(warehouse: Warehouse, latest: _Latest | None, *, reason: str, lifted_by: str | None = None) -> Hold:
    """Return the hold of `latest` after lifting it in one commit.

    Raises ValueError for an empty reason, `NotFoundError` where there is no hold, `WarehouseBusy` while a run writes, and
    `ReleaseConflict` where another process lifts it at the same time.
    """
    if not reason.strip():
        msg = "lifting a hold needs a reason, which is kept"
        raise ValueError(msg)
    run_id = f"resume-{uuid.uuid4().hex}"
    with warehouse.writing(run_id):
        head, hold = warehouse.version(_TABLE), hold_by(warehouse, latest)
        if hold is None:
            current = f"the current release is {latest.release_id}, {latest.status}" if latest else "nothing has been published"
            msg = f"no hold is in force: {current}"
            raise NotFoundError(msg)
        row = {"release_id": hold.release_id, "lifted_at": datetime.now(UTC), "lifted_by": lifted_by or user_at_host()}
        data = pa.Table.from_pylist([row | {"reason": reason.strip()}], CONTRACTS[_TABLE])
        warehouse.append_at(_TABLE, data, head=head, run_id=run_id)
    return hold
