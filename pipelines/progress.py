"""Progress of long steps: a bar on a terminal, a rate line every few seconds in a log, nothing when told so.

`Progress.track(label)` gives a callback ``(done, total)``, which is what the encoders and the trainer accept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from sidlake.reports.text import visible

__all__ = ["Progress"]

_LOG_EVERY_SECONDS = 10.0


class Progress:
    """How far a step is. On a terminal a bar, else one line about every ten seconds through `log`.

    Args:
        console: where the bar goes; None for lines only.
        log: where lines go.
    """

    def __init__(self, console: Console | None = None, log: Callable[[str], None] | None = None) -> None:
        self._console = console
        self._log = log or logging.getLogger("sidlake").info

    def say(self, line: str) -> None:
        """Print one line, or log it."""
        if self._console is not None:
            self._console.print(visible(line), highlight=False, markup=False)
        else:
            self._log(line)

    @contextmanager
    def track(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Give a callback that takes (done, total)."""
        if self._console is not None and self._console.is_terminal:
            with self._bar(label) as update:
                yield update
        else:
            yield self._lines(label)

    @contextmanager
    def _bar(self, label: str) -> Iterator[Callable[[int, int], None]]:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with RichProgress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(label, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)

    def _lines(self, label: str) -> Callable[[int, int], None]:
        start = last = time.monotonic()

        def update(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _LOG_EVERY_SECONDS:
                last = now
                rate = done / (now - start)
                left = (total - done) / max(rate, 1e-9)
                self.say(f"  {label}: {done:,} of {total:,}, {rate:,.{0 if rate >= 10 else 1}f}/s, {left:,.0f} s left")

        return update
