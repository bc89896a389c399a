"""Progress of long steps: what runs and how fast on a terminal, a rate line every few seconds in a log.

`Progress.running(step)` shows that a step is under way, `Progress.track(label)` gives a callback ``(done, total)``,
which is what the encoders and the trainer accept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.progress_bar import ProgressBar
from rich.text import Text

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
        self._bars: RichProgress | None = None

    def say(self, line: str) -> None:
        """Print one line, or log it."""
        if self._console is not None:
            self._console.print(visible(line), highlight=False, markup=False)
        else:
            self._log(line)

    @contextmanager
    def running(self, step: str) -> Iterator[None]:
        """Show on a terminal that `step` is under way, and for how long; what it tracks meanwhile gets a bar below."""
        if self._console is None or not self._console.is_terminal:
            yield
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), _Rate(), _Bar())
        with RichProgress(*columns, console=self._console, transient=True) as self._bars:
            self._bars.add_task(step, total=None)
            try:
                yield
            finally:
                self._bars = None

    @contextmanager
    def track(self, label: str) -> Iterator[Callable[[int, int], None]]:
        """Give a callback that takes (done, total): a bar with its rate while a step is shown, else a line now and then."""
        bars = self._bars
        if bars is None:
            yield self._lines(label)
            return
        task = bars.add_task(f"  {label}", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
        bars.remove_task(task)

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


class _Rate(ProgressColumn):
    """How much of a task is done, how fast, and how long the rest will take; nothing where there is no telling."""

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text()
        speed, left = task.speed or 0.0, task.time_remaining
        rate = f", {speed:,.{0 if speed >= 10 else 1}f}/s" if speed else ""
        return Text(f"{task.completed:,.0f} of {task.total:,.0f}{rate}{f', {left:,.0f} s left' if left else ''}")


class _Bar(BarColumn):
    """A bar for what has an end."""

    def render(self, task: Task) -> Text | ProgressBar:  # type: ignore[override]
        return super().render(task) if task.total is not None else Text()
