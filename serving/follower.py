"""The release that is served, kept up with the warehouse: what is current, or what a pin points at, and its newest model.

The next snapshot is opened whole in a thread while the former goes on answering; then one assignment on the event loop makes it the
one that new requests get. A request keeps the snapshot that it began with, which is closed when the last of them has ended. So no
request fails or mixes two releases, whatever is published meanwhile. Where the warehouse cannot be read the former snapshot stays,
and `problem` says so.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sidlake.serving.snapshot import Snapshot, open_snapshot, wanted_model
from sidlake.warehouse.checkpoint_files import TrainedOn
from sidlake.warehouse.releases import Release, get
from sidlake.warehouse.tables import Warehouse

__all__ = ["Follower"]


class _Held:
    """A snapshot and how many requests use it; touched on the event loop alone."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.users = 0
        self.retired = False

    def close_if_done(self) -> None:
        if self.retired and not self.users:
            self.snapshot.lookup.close()


class Follower:
    """Gives each request the snapshot of the release in force when it came; opening one raises as `releases.get` does.

    Attributes:
        problem: why the newest release or model is not served; None where it is.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        *,
        release: str = "current",
        checkpoint: str | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.asked = release
        self.problem: str | None = None
        self._warehouse, self._checkpoint, self._say = warehouse, checkpoint, say
        found, wanted = self._newest()
        self._key = (found.release_id, wanted)
        self._held = _Held(open_snapshot(warehouse, found, wanted))

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in force."""
        return self._held.snapshot

    @contextmanager
    def asking(self) -> Iterator[Snapshot]:
        """Yield the snapshot in force, open until the block ends."""
        held = self._held
        held.users += 1
        try:
            yield held.snapshot
        finally:
            held.users -= 1
            held.close_if_done()

    async def follow(self, every: float) -> None:
        """Look every so many seconds, for ever, and change to what is new."""
        while True:
            await asyncio.sleep(every)
            await self.look()

    async def look(self) -> None:
        """Change to the newest release and model if they are others than those served; on failure say why and keep these."""
        try:
            found, wanted = await asyncio.to_thread(self._newest)
            if (found.release_id, wanted) != self._key:
                known = self._held.snapshot.model
                opened = await asyncio.to_thread(open_snapshot, self._warehouse, found, wanted, known)
                self._change(opened, (found.release_id, wanted))
        except Exception as error:  # whatever it is: a service that stopped following would grow stale without a word
            self._complain(error)
        else:
            self.problem = None

    def _newest(self) -> tuple[Release, TrainedOn | str]:
        found = get(self._warehouse, self.asked)
        return found, wanted_model(self._warehouse, found, named=self._checkpoint)

    def _change(self, opened: Snapshot, key: tuple[str, TrainedOn | str]) -> None:
        former, self._held, self._key = self._held, _Held(opened), key
        former.retired = True
        former.close_if_done()
        self._say(f"serving {opened.release.release_id} (was {former.snapshot.release.release_id})")

    def _complain(self, error: Exception) -> None:
        problem = f"{type(error).__name__}: {error}; {self.snapshot.release.release_id} is served until this is mended"
        if problem != self.problem:
            self._say("".join(traceback.format_exception(error)) + problem)
        self.problem = problem
