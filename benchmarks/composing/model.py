"""What must be there: the shop as plain Python values, and every SID that was ever published.

`World` is what the sources say, changed by the acts; `expected` gives the items and events that a reading of them makes. `Book` is
what has been published. Nothing here reads a warehouse, and nothing of sidlake is used.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DAY", "Book", "Events", "Published", "Row", "World"]

DAY = 24 * 60
AFTER_DAYS = 4

Row = tuple[str, str, int, str]
"""User, item, minute, title."""
Events = dict[tuple[str, str, int], int]
"""How many rows there are of each user, item and minute."""


@dataclass
class World:
    """The sources: items with titles (not of `kind` ``sales``), files of events, vectors' versions; `day` is today's number.

    The kinds: a ``list`` of items beside events; one whose ``missing`` items retire; one whose ``quiet`` items do; ``sales`` that
    describe their items, of which the quiet ones retire.
    """

    kind: str
    titles: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[Row]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    day: int = 0
    num_files: int = 0

    @property
    def rows(self) -> list[Row]:
        """All rows of all files."""
        return [row for rows in self.files.values() for row in rows]

    def described(self) -> dict[str, str]:
        """Return the title of each item that the sources describe now."""
        if self.kind != "sales":
            return dict(self.titles)
        newest: dict[str, tuple[int, str]] = {}
        for _, item, minute, title in self.rows:
            newest[item] = max(newest.get(item, (-1, "")), (minute, title))
        return {item: title for item, (_, title) in newest.items()}

    def quiet(self) -> set[str]:
        """Return the items of which nothing was heard for too long; without an event an item of a list is never quiet."""
        if self.kind not in ("sales", "quiet"):
            return set()
        described = self.described()
        last: dict[str, int] = {}
        for _, item, minute, _ in self.rows:
            if item in described:
                last[item] = max(last.get(item, -1), minute)
        span = AFTER_DAYS * DAY
        return {item for item, minute in last.items() if minute < _newest(list(last.values()), span) - span}

    def items(self, before: dict[str, str]) -> dict[str, str]:
        """Return the items of the next release, with titles, where the current one has `before`."""
        described, quiet = self.described(), self.quiet()
        staying = {} if self.kind == "missing" else {item: title for item, title in before.items() if item not in described}
        return {item: title for item, title in (staying | described).items() if item not in quiet}

    def events(self, items: dict[str, str]) -> Events:
        """Return the events of the next release, which has `items`."""
        described = self.described()
        return Counter((user, item, minute) for user, item, minute, _ in self.rows if item in described and item in items)


def _newest(minutes: list[int], span: int) -> int:
    """Return the newest time that is no stray: of twenty and more one may stand apart from all others by more than `span`."""
    *_, before, newest = [-1, *sorted(minutes)]
    return before if len(minutes) >= 20 and newest - before > span else newest


@dataclass
class Published:
    """A release as it must be read for ever: its generation, each item's codes and title, its events, its content hash."""

    generation: str
    codes: dict[str, tuple[int, ...]]
    titles: dict[str, str]
    events: Events
    content_hash: str
    settings: tuple[Any, ...] = ()


@dataclass
class Book:
    """Everything that was ever published, by release and by generation."""

    releases: dict[str, Published] = field(default_factory=dict)
    owners: dict[str, dict[tuple[int, ...], str]] = field(default_factory=dict)
    sids: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)

    @property
    def current(self) -> Published | None:
        """The newest release."""
        return self.releases[max(self.releases)] if self.releases else None

    def add(self, release_id: str, new: Published) -> list[str]:
        """Enter a release and return what it breaks: a SID that is another item's, an item that has another SID."""
        self.releases[release_id] = new
        owners = self.owners.setdefault(new.generation, {})
        sids = self.sids.setdefault(new.generation, {})
        broken = []
        for item, codes in sorted(new.codes.items()):
            owner, known = owners.setdefault(codes, item), sids.setdefault(item, codes)
            if owner != item:
                broken.append(f"{release_id}: {codes} of {new.generation} was published for {owner}, now it is {item}'s")
            if known != codes:
                broken.append(f"{release_id}: {item} was published in {new.generation} as {known}, now it is {codes}")
        return broken
