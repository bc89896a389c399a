"""What is checked after each act: the release that is current, and that nothing else has changed, against the model.

Tables are read through sidlake's reader and judged by Python alone. What costs more than some milliseconds (the files' digests, the
content hash of every release, the catalogue) is checked at the end of a sequence, by `check_all`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC

from composing.model import Book, Published
from composing.shop import FIRST_DAY

from sidlake.warehouse import catalog
from sidlake.warehouse.content import content_hash
from sidlake.warehouse.file_digests import check_files
from sidlake.warehouse.keep.pins import pins
from sidlake.warehouse.keep.vacuumed import vacuumed
from sidlake.warehouse.laws import verify
from sidlake.warehouse.releases import Release, get, history
from sidlake.warehouse.tables import Warehouse

__all__ = ["check_all", "check_history", "check_pins", "read_release", "sequences_of"]


def check_history(book: Book, known: list[Release]) -> list[str]:
    """Return what is wrong with the list of releases: one that changed or is gone, numbers or times out of order."""
    broken = []
    names = [release.release_id for release in known]
    if names != [f"r{number + 1:06d}" for number in range(len(names))]:
        broken.append(f"releases are {names}")
    times = [release.created_at for release in known]
    if times != sorted(times):
        broken.append("releases are not in the order of time")
    hashes = {release.release_id: release.content_hash for release in known}
    for name, published in book.releases.items():
        if hashes.get(name) != published.content_hash:
            broken.append(f"{name} is recorded with another content hash")
    return broken


def read_release(warehouse: Warehouse, release: Release) -> tuple[Published, list[str]]:
    """Return the rows of `release` as the model has them, and what is wrong with them by themselves."""
    tables, broken = release.tables, []
    items = _rows(warehouse, "items", ["item_id", "title"], tables)
    sids = _rows(warehouse, "semantic_ids", ["item_id", "generation", "codes"], tables)
    sids = [(item, codes) for item, generation, codes in sids if generation == release.generation]
    events = _rows(warehouse, "interactions", ["user_id", "item_id", "ts", "weight"], tables)
    codes = {item: tuple(code) for item, code in sids}
    counted = {(user, item, _minute(ts)): round(weight) for user, item, ts, weight in events}
    broken += _twice("item in items", [row[0] for row in items])
    broken += _twice("item in semantic_ids", [row[0] for row in sids])
    broken += _twice("SID", [tuple(row[1]) for row in sids])
    broken += _twice("event", [row[:3] for row in events])
    vectors = _rows(warehouse, "item_embeddings", ["item_id", "modality", "encoder_id", "content_hash"], tables)
    broken += _twice("vector", [tuple(row) for row in vectors])
    if codes.keys() != {row[0] for row in items}:
        broken.append(f"items {sorted({row[0] for row in items} ^ codes.keys())} are in items or in semantic_ids, not in both")
    if len({len(code) for code in codes.values()}) > 1:
        broken.append("SIDs of several lengths")
    if "retired_sids" in tables:
        held = _rows(warehouse, "retired_sids", ["item_id", "generation", "codes"], tables)
        held = [(item, tuple(code)) for item, generation, code in held if generation == release.generation]
        broken += _twice("retired item", [item for item, _ in held])
        broken += [f"{item} is retired and in the catalogue" for item, _ in held if item in codes]
    stored = {
        (user, split): (tuple(history), tuple(flat), target) for user, split, history, flat, target in _sequences(warehouse, tables)
    }
    if stored != (wanted := sequences_of(counted, codes)):
        users = sorted({key[0] for key in stored.keys() | wanted.keys() if stored.get(key) != wanted.get(key)})
        broken.append(f"user_sequences of {users} are not those of the events")
    published = Published(
        generation=release.generation,
        codes=codes,
        titles=dict(items),
        events=counted,
        content_hash=release.content_hash,
    )
    return published, [f"{release.release_id}: {what}" for what in broken]


def sequences_of(
    events: dict[tuple[str, str, int], int], codes: dict[str, tuple[int, ...]]
) -> dict[tuple[str, str], tuple[object, ...]]:
    """Return history, its codes and the target of each user and split: leave-one-out; no user has two events at one minute."""
    of_user: dict[str, list[tuple[int, str]]] = {}
    for user, item, minute in events:
        of_user.setdefault(user, []).append((minute, item))
    found: dict[tuple[str, str], tuple[object, ...]] = {}
    for user, timed in of_user.items():
        items = [item for _, item in sorted(timed)]
        if len(items) < 3:
            continue
        parts = {"train": (items[:-2], None), "valid": (items[:-2][-20:], items[-2]), "test": (items[:-1][-20:], items[-1])}
        for split, (before, target) in parts.items():
            flat = tuple(code for item in before for code in codes.get(item, ()))
            found[user, split] = (tuple(before), flat, target)
    return found


def check_pins(warehouse: Warehouse, expected: dict[str, str]) -> list[str]:
    """Return what is wrong with the pins."""
    found = {one.name: one.release_id for one in pins(warehouse)}
    return [] if found == expected else [f"pins are {found}, set were {expected}"]


def check_all(warehouse: Warehouse, book: Book) -> list[str]:
    """Return what is wrong with the releases that can be read, or with the catalogue: rows of all, laws, bytes and hashes of some.

    Bytes and hashes are those of the two oldest and the two newest: the oldest have been through every act.
    """
    broken = []
    gone = vacuumed(warehouse)
    kept = [release for release in history(warehouse) if release.release_id not in gone]
    for place, release in enumerate(kept):
        found, wrong = read_release(warehouse, release)
        broken += wrong
        known = book.releases[release.release_id]
        if (found.codes, found.titles, found.events) != (known.codes, known.titles, known.events):
            broken.append(f"{release.release_id} is not as it was published")
        if 2 <= place < len(kept) - 2:
            continue
        check_files(warehouse, release.tables)
        if content_hash(warehouse, release.tables, release.generation) != release.content_hash:
            broken.append(f"{release.release_id} has another content hash")
    latest = get(warehouse)
    verify(warehouse, latest.tables, generation=latest.generation)
    shown = catalog.query(warehouse, "SELECT item_id, codes FROM semantic_ids").to_pylist()
    if {row["item_id"]: tuple(row["codes"]) for row in shown} != book.releases[latest.release_id].codes:
        broken.append("the catalogue shows other SIDs than the current release")
    return broken


def _rows(warehouse: Warehouse, table: str, columns: list[str], tables: dict[str, int]) -> list[tuple]:  # type: ignore[type-arg]
    data = warehouse.read(table, version=tables[table], columns=columns).to_pydict()
    return list(zip(*(data[name] for name in columns), strict=True))


def _sequences(warehouse: Warehouse, tables: dict[str, int]) -> list[tuple]:  # type: ignore[type-arg]
    return _rows(warehouse, "user_sequences", ["user_id", "split", "item_ids", "codes", "target"], tables)


def _minute(ts) -> int:  # type: ignore[no-untyped-def]  # noqa: ANN001
    return round((ts - FIRST_DAY.replace(tzinfo=UTC)).total_seconds() / 60)


def _twice(what: str, values: Iterable[object]) -> list[str]:
    return [f"{what} {value} is there {count} times" for value, count in Counter(values).items() if count > 1]
