"""Which releases are live, and why: what a vacuum keeps, and whose SIDs may not be given to another item.

A release is live if it is current, among the last `keep`, younger than `days`, pinned, named by a checkpoint, or being read under a
lease (which only a vacuum finds out, see `vacuum`). A vacuumed one never is again. Not done here: removing anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sidlake.warehouse.checkpoint_files import checkpoints
from sidlake.warehouse.keep.pins import pins
from sidlake.warehouse.releases import Release, readable
from sidlake.warehouse.tables import Warehouse

__all__ = ["Retention", "live_releases"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Retention:
    """How many of the last releases are kept, and those of how many days; either may be None: it keeps none then.

    >>> Retention(keep=10, days=7.0).spelled()
    'kept: the last 10, 7 days, pins, checkpoints'
    """

    keep: int | None = 10
    days: float | None = 7.0

    def __post_init__(self) -> None:
        if (self.keep is not None and self.keep < 1) or (self.days is not None and not self.days >= 0):
            msg = f"keep must be >= 1 and days >= 0, got keep {self.keep}, days {self.days}"
            raise ValueError(msg)

    def spelled(self) -> str:
        """Return the rule in words, as `vacuumed` records it."""
        last = [f"the last {self.keep}"] if self.keep else ["current"]
        return ", ".join(["kept: " + last[0], *([f"{self.days:g} days"] if self.days is not None else []), "pins, checkpoints"])


def live_releases(warehouse: Warehouse, retention: Retention, *, now: datetime | None = None) -> dict[str, str]:
    """Return why each live release is kept, by id, oldest first."""
    known = readable(warehouse)
    if not known:
        return {}
    pinned: dict[str, list[str]] = {}
    for one in pins(warehouse):
        pinned.setdefault(str(one.release_id), []).append(one.name)
    trained: dict[str, list[str]] = {}
    for checkpoint in checkpoints(warehouse):
        trained.setdefault(checkpoint.release_id, []).append(checkpoint.name)
    last = {release.release_id for release in known[-retention.keep :]} if retention.keep else set()
    since = None if retention.days is None else (now or datetime.now(UTC)) - timedelta(days=retention.days)

    def why(release: Release) -> list[str]:
        name = release.release_id
        reasons = ["current"] if release is known[-1] else []
        reasons += [f"pinned as {', '.join(pinned[name])}"] if name in pinned else []
        reasons += [f"checkpoint {', '.join(trained[name])}"] if name in trained else []
        reasons += [f"among the last {retention.keep}"] if name in last else []
        return reasons + ([f"younger than {retention.days:g} days"] if since is not None and release.created_at >= since else [])

    reasons = {release.release_id: why(release) for release in known}
    return {name: "; ".join(found) for name, found in reasons.items() if found}
