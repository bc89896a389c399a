"""The acts of `compositions`: what users, schedules, machines and bad luck do to a catalogue and its warehouse.

An act is a name and numbers, so that a sequence of acts is JSON, and stays one that can be played when acts are left out of it:
numbers pick from what is there by their remainder, and an act that has nothing to act on does nothing. `play` does an act, brings
the model up to date and returns what is wrong, in words; nothing if all is well.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

from composing.faults import set_clock
from composing.jobs import Run, crash, die, import_sids, partial, refresh, retrain, run_again, run_job, second_writer
from composing.laws import check_all, check_history, check_pins
from composing.sources import add_events, add_items, change_item, lose_file, remove_items, return_item
from composing.state import Composition, adopt, set_recipe

from sidlake.errors import SidlakeError
from sidlake.warehouse.keep.vacuumed import vacuumed
from sidlake.warehouse.releases import history

__all__ = ["ACTS", "Act", "draw", "finish", "forget_clock", "play"]

Act = tuple[str, dict[str, int]]

RECIPES = (
    {"widths": (3, 4, 8)},
    {"widths": (2, 3, 8)},
    {"widths": (4, 8)},
    {"fusion": ("style",)},
    {"fusion": ("style", "usage")},
    {"fusion": ("style", "behaviour")},
    {"uniqueness": "reassign"},
    {"uniqueness": "append"},
    {"uniqueness": "sinkhorn"},
    {"seed": 1},
)


def edit_recipe(state: Composition, pick: int) -> None:
    """Change a setting that belongs to a generation."""
    set_recipe(state, replace(state.settings, **RECIPES[pick % len(RECIPES)]))  # type: ignore[arg-type]


def edit_gate(state: Composition, pick: int) -> None:
    """Set a gate that always refuses, or take it away, which is the more frequent."""
    set_recipe(state, replace(state.settings, gate=pick % 3 == 0))


def rollback(state: Composition, pick: int) -> list[str]:
    """Go back to a release that can be read."""
    names = [name for name in sorted(state.book.releases) if name not in state.gone][:-1]
    if not names:
        return []
    target = names[pick % len(names)]
    state.shop.rollback(target)
    broken, (found, wanted) = adopt(state, "rollback"), (state.book.current, state.book.releases[target])
    if found is None or (found.codes, found.events, found.content_hash) != (wanted.codes, wanted.events, wanted.content_hash):
        broken.append(f"rolling back to {target} made another content")
    return broken


def lift(state: Composition) -> list[str]:
    """Lift the hold that a rollback has put on runs, if there is one."""
    if state.held:
        state.shop.lift()
        state.held = False
    return []


def pin(state: Composition, pick: int, name: int) -> list[str]:
    """Point a name at a release that can be read."""
    if names := [one for one in sorted(state.book.releases) if one not in state.gone]:
        state.shop.pin(f"p{name % 2}", names[pick % len(names)])
        state.pins[f"p{name % 2}"] = names[pick % len(names)]
    return check_pins(state.shop.warehouse, state.pins)


def unpin(state: Composition, pick: int) -> list[str]:
    """Take a name away."""
    if names := sorted(state.pins):
        state.shop.unpin(names[pick % len(names)])
        del state.pins[names[pick % len(names)]]
    return check_pins(state.shop.warehouse, state.pins)


def vacuum(state: Composition, keep: int, grace: int) -> list[str]:
    """Free what no live release needs; every third time without grace for work under way."""
    if not state.book.releases:
        return []
    readable = [name for name in sorted(state.book.releases) if name not in state.gone]
    live = {*readable[-(1 + keep % 4) :], *state.pins.values()}
    lost = set(state.shop.vacuum(keep=1 + keep % 4, grace=timedelta(0) if grace % 3 == 0 else timedelta(days=1)))
    state.gone |= lost
    broken = [f"vacuum took {sorted(lost & live)}, which were to stay"] if lost & live else []
    if set(vacuumed(state.shop.warehouse)) != state.gone:
        broken.append(f"recorded as vacuumed are {sorted(vacuumed(state.shop.warehouse))}, told were {sorted(state.gone)}")
    return broken + check_history(state.book, history(state.shop.warehouse))


def maintain(state: Composition) -> list[str]:
    """Do the weekly upkeep: another release at most, with the content of the one before; or a named refusal."""
    before = state.book.current
    try:
        state.shop.maintain()
    except SidlakeError as error:
        may = {"NotFoundError"} if before is None else {"StaleStepError", "RetrainNeeded"}
        may |= {"HoldError"} if state.held else set()
        return [] if type(error).__name__ in may else [f"upkeep raised {type(error).__name__}: {error}"]
    broken, after = adopt(state, "refresh"), state.book.current
    if before is None or after is None or after.content_hash != before.content_hash:
        broken.append("upkeep made another content")
    return broken


def clock(state: Composition, pick: int) -> None:
    """Set the clock back by up to some months, or right again."""
    state.back = timedelta(days=(0, 0, 1, 40, 200)[pick % 5])
    set_clock(state.back)


ACTS: dict[str, tuple[Callable[..., list[str] | None], int]] = {
    "add_items": (add_items, 6),
    "change_item": (change_item, 4),
    "remove_items": (remove_items, 5),
    "return_item": (return_item, 4),
    "add_events": (add_events, 8),
    "lose_file": (lose_file, 1),
    "edit_recipe": (edit_recipe, 2),
    "edit_gate": (edit_gate, 2),
    "refresh": (refresh, 14),
    "retrain": (retrain, 4),
    "partial": (partial, 4),
    "crash": (crash, 3),
    "die": (die, 2),
    "run_again": (run_again, 4),
    "second_writer": (second_writer, 2),
    "rollback": (rollback, 4),
    "lift": (lift, 4),
    "pin": (pin, 2),
    "unpin": (unpin, 1),
    "vacuum": (vacuum, 3),
    "maintain": (maintain, 2),
    "import_sids": (import_sids, 2),
    "clock": (clock, 2),
}
"""Each act and how often it is drawn."""


def draw(rng: random.Random, without: Sequence[str] = ()) -> Act:
    """Return an act with its numbers, none of `without`."""
    names = [name for name in ACTS if name not in without]
    name = rng.choices(names, [ACTS[one][1] for one in names])[0]
    wanted = ACTS[name][0].__code__.co_varnames[1 : ACTS[name][0].__code__.co_argcount]
    return name, {one: rng.randrange(1 << 16) for one in wanted}


def forget_clock() -> None:
    """Set the clock right, for whatever this process does next."""
    set_clock(timedelta(0))


def play(state: Composition, act: Act) -> list[str]:
    """Do `act` and return what is wrong after it; whatever an act raises is wrong."""
    name, numbers = act
    try:
        return ACTS[name][0](state, **numbers) or []
    except Exception as error:
        return [f"{name} raised {type(error).__name__}: {error}"]


def finish(state: Composition) -> list[str]:
    """Bring everything in order, as an operator would, and return what is wrong then: with any release, or with a last retrain."""
    clock(state, 0)
    lift(state)
    set_recipe(state, replace(state.settings, gate=False))
    broken = run_job(state, Run(job="retrain", override=True))
    return broken + (check_all(state.shop.warehouse, state.book) if state.book.releases else [])
