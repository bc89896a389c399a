"""Bad luck for `compositions`: a death at a chosen write, and a clock that was set back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sidlake.pipelines import run as runs
from sidlake.warehouse import holds, releases, tables
from sidlake.warehouse.keep import pins, retention, vacuum
from sidlake.warehouse.tables import Warehouse

__all__ = ["Crash", "crashing", "set_clock"]


class Crash(BaseException):
    """The process ends here: nothing of sidlake catches it, as nothing catches SIGKILL."""


@contextmanager
def crashing(at: int | None, *, kill: bool) -> Iterator[None]:
    """End the process at the `at`-th write of the block, or raise `Crash` there where not `kill`; nothing where `at` is None.

    A write is a commit, or a file that is written, put in place or removed; its beginning and its end count, each.
    """
    left = at or 0

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            if kill:
                os._exit(77)
            raise Crash

    with ExitStack() as stack:
        for owner, name in _WRITES if at else ():
            stack.enter_context(_ticking(owner, name, tick))
        yield


_WRITES: list[tuple[Any, str]] = [
    (tables, "write_deltalake"),
    (tables, "add_files"),
    (Warehouse, "restore"),
    (Warehouse, "upsert"),
    (Path, "replace"),
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "write_bytes"),
    (Path, "write_text"),
]


@contextmanager
def _ticking(owner: Any, name: str, tick: Callable[[], None]) -> Iterator[None]:  # noqa: ANN401
    original = getattr(owner, name)

    def counted(*arguments: Any, **settings: Any) -> Any:  # noqa: ANN401
        tick()
        result = original(*arguments, **settings)
        tick()
        return result

    setattr(owner, name, counted)
    try:
        yield
    finally:
        setattr(owner, name, original)


_CLOCKS = [runs, releases, holds, pins, retention, vacuum]


def set_clock(back: timedelta) -> None:
    """Set the clock that sidlake reads back by so much."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # noqa: ANN401
            return datetime.now(tz) - back

    for module in _CLOCKS:
        module.datetime = Clock if back else datetime  # type: ignore[attr-defined]
