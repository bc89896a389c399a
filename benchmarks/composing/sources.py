"""Acts on the sources: items and events that come, change, leave and return; files that are late, repeated or lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from composing.model import DAY, World
from composing.shop import Shop
from composing.state import Composition, set_recipe

__all__ = ["add_events", "add_items", "begin", "change_item", "lose_file", "remove_items", "return_item"]

USERS = ("u0", "u1", "u2", "u3")
MAX_ITEMS = 24


def begin(folder: Path, kind: str) -> Composition:
    """Return a shop of ten items, or nineteen where quiet ones retire, and two events of each in `folder`; it has not run yet."""
    folder.mkdir(parents=True)
    state = Composition(Shop(folder, kind), World(kind))
    names = [f"I{number:02d}" for number in range(19 if kind in ("sales", "quiet") else 10)]
    state.world.versions = dict.fromkeys(names, 0)
    if kind != "sales":
        state.world.titles = {item: f"thing {item}" for item in names}
    _sell(state, names * 2, 0, day=0)
    state.world.day = 1
    _write_sources(state)
    set_recipe(state, state.settings)
    return state


def _new_file(state: Composition, rows: list[tuple[str, str, int, str]]) -> None:
    world = state.world
    if rows:
        name = f"{world.num_files:03d}"
        world.num_files += 1
        world.files[name] = rows
        state.shop.write_file(name, rows)


def _write_sources(state: Composition) -> None:
    if state.world.kind != "sales":
        state.shop.write_items(state.world.titles)
    state.shop.write_vectors(state.world.versions)


def _minute(state: Composition, day: int) -> int:
    """Return a minute of `day` at which nothing has happened yet."""
    taken = {row[2] for row in state.world.rows}
    return next(minute for minute in range(day * DAY, (day + 1) * DAY) if minute not in taken)


def _known(state: Composition) -> list[str]:
    return sorted(state.world.described())


def _sell(state: Composition, items: Sequence[str], pick: int, *, day: int, titles: dict[str, str] | None = None) -> None:
    described, rows = state.world.described() | (titles or {}), []
    minute = _minute(state, day)
    taken = {row[2] for row in state.world.rows}
    for place, item in enumerate(items):
        while minute in taken:
            minute += 1
        rows.append((USERS[(pick + place) % len(USERS)], item, minute, described.get(item, f"thing {item}")))
        minute += 1
    _new_file(state, rows)


def add_items(state: Composition, num: int, pick: int) -> None:
    """Add one to three items that were never there."""
    world = state.world
    first = len(world.versions)
    new = [f"I{number:02d}" for number in range(first, min(first + 1 + num % 3, MAX_ITEMS))]
    world.versions |= dict.fromkeys(new, 0)
    if world.kind == "sales":
        _sell(state, new, pick, day=world.day)
    else:
        world.titles |= {item: f"thing {item}" for item in new}
    _write_sources(state)


def change_item(state: Composition, pick: int) -> None:
    """Give an item another title and another vector."""
    world = state.world
    if known := _known(state):
        item = known[pick % len(known)]
        world.versions[item] += 1
        title = f"thing {item}, edition {world.versions[item]}"
        if world.kind == "sales":
            _sell(state, [item], pick, day=world.day, titles={item: title})
        else:
            world.titles[item] = title
        _write_sources(state)


def remove_items(state: Composition, pick: int, num: int) -> None:
    """Take items out of the list; where quiet items retire, let days pass in which few are sold."""
    world, known = state.world, _known(state)
    if world.kind in ("sales", "quiet") and num % 2:
        world.day += 2 + num // 2 % 4
        _sell(state, [known[(pick + step) % len(known)] for step in range(1 + pick % 9)], pick, day=world.day)
        return
    for step in range(1 + num // 2 % 2):
        if len(world.titles) > 9:
            item = sorted(world.titles)[(pick + step) % len(world.titles)]
            world.titles.pop(item)
            world.gone.append(item)
    _write_sources(state)


def return_item(state: Composition, pick: int, num: int) -> None:
    """Bring back an item that had left, with another title every third time."""
    world = state.world
    away = sorted(world.gone) or sorted(world.quiet())
    if not away:
        return
    item = away[pick % len(away)]
    world.versions[item] += num % 3 == 0
    title = f"thing {item}" + (f", edition {world.versions[item]}" if world.versions[item] else "")
    if item in world.gone:
        world.gone.remove(item)
        world.titles[item] = title
    else:
        _sell(state, [item], pick, day=world.day, titles={item: title})
    _write_sources(state)


def add_events(state: Composition, pick: int, num: int, how: int) -> None:
    """Add a file of one to five events: of today, of earlier days, or some that are there already; then a day passes or not."""
    world, known = state.world, _known(state)
    items = [known[(pick * 7 + step * 3) % len(known)] for step in range(1 + num % 5)]
    if how % 4 == 1 and world.day:
        _sell(state, items, pick, day=pick % world.day)
    elif how % 4 == 2 and world.rows:
        _new_file(state, [world.rows[(pick + step) % len(world.rows)] for step in range(1 + num % 3)])
    else:
        _sell(state, items, pick, day=world.day)
        world.day += how % 4 == 3


def lose_file(state: Composition, pick: int) -> None:
    """Remove a file of events, or write it again without its last row."""
    world = state.world
    if len(world.files) < 3:
        return
    name = sorted(world.files)[1 + pick % (len(world.files) - 1)]
    if pick % 2 and len(world.files[name]) > 1:
        world.files[name] = world.files[name][:-1]
        state.shop.write_file(name, world.files[name])
    else:
        del world.files[name]
        state.shop.remove_file(name)
