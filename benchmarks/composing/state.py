"""What a sequence of acts is about: a shop, the model of it, and what is under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from composing.laws import check_history, read_release
from composing.model import Book, Events, World
from composing.shop import Settings, Shop

from sidlake.warehouse.releases import history

__all__ = ["Composition", "adopt", "expected", "set_recipe"]


@dataclass
class Composition:
    """A shop, the model of it, and what is under way: a run that died, a clock that is wrong, a release that was rolled back."""

    shop: Shop
    world: World
    settings: Settings = field(default_factory=Settings)
    book: Book = field(default_factory=Book)
    pins: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    pending: dict[str, Any] | None = None
    back: timedelta = timedelta(0)
    held: bool = False
    dying: bool = False


def adopt(state: Composition, job: str) -> list[str]:
    """Enter what has been published since into the model, and return what is wrong with it."""
    warehouse, book = state.shop.warehouse, state.book
    known = history(warehouse)
    broken = []
    for release in known[len(book.releases) :]:
        published, wrong = read_release(warehouse, release)
        before = next((one for one in book.releases.values() if one.generation == published.generation), None)
        of_job = state.settings.of_generation if job == "retrain" else book.current and book.current.settings
        published.settings = before.settings if before else of_job  # a generation keeps what it was fitted with
        broken += wrong + book.add(release.release_id, published)
        if state.held and job != "rollback":
            broken.append(f"{release.release_id} was published by {job} though the rollback before it holds")
        state.held = job == "rollback"
    return broken + check_history(book, known)


def expected(state: Composition) -> tuple[dict[str, str], Events]:
    """Return the items and events that a job would publish now."""
    before = state.book.current
    titles = state.world.items(before.titles if before else {})
    return titles, state.world.events(titles)


def set_recipe(state: Composition, settings: Settings) -> None:
    """Write the recipe with other settings."""
    state.settings = settings
    state.shop.write_recipe(settings)
