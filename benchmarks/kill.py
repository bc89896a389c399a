"""What SIGKILL leaves behind: refresh, retrain, release, rollback and vacuum, killed at random moments on a small real shop.

    python benchmarks/kill.py [--kills N] [--finish-every K] [--seed S] [--json]

Each kill takes a real process. A parent that has imported everything, and has used no thread pool yet, forks one process per
operation, so that a kill costs a second and not twenty. The process says which phase it enters (each step of a job, each commit
of a table, the verification, the catalogue); the driver waits for the phase whose turn it is, then for a random part of what that
phase took before, and sends SIGKILL. So all phases are hit equally often, however short they are.

After each kill another process reads the warehouse: the current release must be the old or the new one whole (its content hash
computed again, its rows those expected), every law must hold, every other release must still be there. Then the operation runs
again, to its end, and what it published is read in the same way (with `--finish-every`, after so many kills in a row). Not
covered: a machine that loses power, which may lose what the operating system has not written yet.

Interrupted (SIGINT), it ends after the kill under way and prints what it found. Drivers with different seeds may run at once.

Printed: kills, torn (a release that is neither the old nor the new one whole, or cannot be read), lost and duplicated (rows),
law_failures, recovered (operations that finished when run again), and kills by operation and phase.
"""

import argparse
import gc
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "POLARS_MAX_THREADS": "1"}

import kill_shop  # after the settings above, which are read on import

KILLS_PER_WAREHOUSE = 10  # then a fresh copy: a warehouse of many releases takes longer to read
PATIENCE = 300  # seconds without a word after which a process counts as hanging; those in which all are suspended do not count
COUNTERS = ("torn", "lost", "duplicated", "law_failures", "not_recovered")


@dataclass
class Tally:
    """What was found so far."""

    kills: int = 0
    recovered: int = 0
    new_after_kill: int = 0
    found: Counter[str] = field(default_factory=Counter)
    by_phase: Counter[tuple[str, str]] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def note(self, what: str, count: int, where: str) -> None:
        """Add to what was found, where there is anything."""
        if count:
            self.found[what] += count
            self.notes.append(f"{what} {count}: {where}"[:2000])


class Process:
    """A forked process that runs `body(tell)`; what it tells are lines on a pipe, and its output goes to `log`."""

    def __init__(self, body: Callable[[Callable[[str], None]], None], log: Path) -> None:
        self.log = log
        self._read, write = os.pipe()
        self._pending = b""
        self.hangs = False
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            _run_and_exit(body, write, log)
        os.close(write)

    def lines(self) -> Iterator[str]:
        """Yield what the process tells, until it ends or `hangs`."""
        silent = 0
        while not self.hangs:
            head, newline, rest = self._pending.partition(b"\n")
            if newline:
                self._pending, silent = rest, 0
                yield head.decode()
                continue
            ready, _, _ = select.select([self._read], [], [], 1.0)
            if not ready:
                silent += 1
                self.hangs = silent > PATIENCE
                continue
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                return
            self._pending += chunk

    def end(self, *, kill: bool) -> int:
        """Return the exit status (negative: the signal), after SIGKILL if `kill`."""
        if kill:
            os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        os.close(self._read)
        return os.waitstatus_to_exitcode(status)


def _run_and_exit(body: Callable[[Callable[[str], None]], None], write: int, log: Path) -> None:
    """Run `body` in the forked process and leave it without the parent's cleanup."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 0
    try:
        body(lambda line: _write_all(write, line.encode() + b"\n"))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


class Driver:
    """One warehouse after another: operate, kill, read, run again, read."""

    def __init__(self, folder: Path, kills: int, *, seed: int, finish_every: int = 1) -> None:
        self.folder, self.kills, self.draw = folder, kills, random.Random(seed)
        self.finish_every = finish_every
        self.tally = Tally()
        self.durations: dict[str, dict[str, float]] = {}
        self.log = folder / "child.log"
        self.operations = kill_shop.OPERATIONS

    def run(self) -> None:
        """Kill `self.kills` processes."""
        template = self._template()
        while self.tally.kills < self.kills:
            shop = kill_shop.Shop.copy_of(template, self.folder / f"shop-{self.tally.kills:05d}")
            state = self._state(shop)
            for _ in range(KILLS_PER_WAREHOUSE):
                if self.tally.kills < self.kills:
                    state = self._kill_once(shop, state)
            shutil.rmtree(shop.folder)
            print(f"{self.tally.kills} kills, {dict(self.tally.found)}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """End after the kill under way."""
        self.kills = min(self.kills, self.tally.kills)

    def _template(self) -> "kill_shop.Shop":
        """Return a shop in which each operation ran once to its end, noting how long its phases take."""
        pool = json.loads(next(iter(self._told(kill_shop.tell_pool))))
        shop = kill_shop.Shop.create(self.folder / "template", pool)
        for operation in ("retrain", *(name for name in self.operations if name != "retrain")):
            _, self.durations[operation] = self._finish(operation, shop)
            shop.grow(self.draw)
        return shop

    def _told(self, body: Callable[[Callable[[str], None]], None]) -> list[str]:
        process = Process(body, self.log)
        lines = list(process.lines())
        if process.end(kill=process.hangs):
            raise RuntimeError(self.log.read_text())
        return lines

    def _finish(self, operation: str, shop: "kill_shop.Shop") -> tuple[dict[str, Any], dict[str, float]]:
        """Run `operation` to its end and return what is read then, and the seconds of its phases."""

        def body(tell: kill_shop.Tell) -> None:
            kill_shop.operate(operation, shop, tell)
            kill_shop.tell_state(shop, tell, every_file=operation == "vacuum")

        process = Process(body, self.log)
        start = time.monotonic()
        seconds: dict[str, float] = {}
        phase = "start"
        for line in process.lines():  # the last line is the state
            now = time.monotonic()
            seconds[phase] = seconds.get(phase, 0.0) + now - start
            start, phase = now, line
        if process.end(kill=process.hangs):
            raise RuntimeError(f"{operation} in {phase}: {self.log.read_text()[-2000:]}")
        return self._remembered(shop, phase), seconds

    def _kill_once(self, shop: "kill_shop.Shop", before: dict[str, Any]) -> dict[str, Any]:
        """Kill the operation whose turn it is, judge what is left, run it again, judge that; return the state."""
        operation = self.operations[self.tally.kills % len(self.operations)]
        if operation in ("refresh", "retrain"):
            shop.grow(self.draw)
        phase = self._killed_in(operation, shop)
        while phase is None:  # it was faster than its end
            before = self._state(shop)
            if operation in ("refresh", "retrain"):
                shop.grow(self.draw)
            phase = self._killed_in(operation, shop)
        self.tally.kills += 1
        self.tally.by_phase[operation, phase] += 1
        where = f"kill {self.tally.kills}, {operation} in {phase}"
        try:
            after = self._state(shop, every_file=operation == "vacuum")
        except RuntimeError as error:
            self.tally.note("torn", 1, f"{where}: cannot be read: {error}")
            after = before
        self._judge(operation, before, after, shop, where)
        published = after["releases"] != before["releases"]
        self.tally.new_after_kill += published
        if self.tally.kills % self.finish_every:
            return after
        try:
            again, _ = self._finish(operation, shop)
        except RuntimeError as error:
            self.tally.note("not_recovered", 1, f"{where}: {error}")
            return self._state(shop)
        self.tally.recovered += 1
        self._judge(operation, after, again, shop, f"{where}, run again", ended=True, finished=not published)
        return again

    def _judge(
        self,
        operation: str,
        before: dict[str, Any],
        now: dict[str, Any],
        shop: "kill_shop.Shop",
        where: str,
        *,
        ended: bool = False,
        finished: bool = False,
    ) -> None:
        for what, count in kill_shop.judge(operation, before, now, shop, ended=ended, finished=finished).items():
            self.tally.note(what, count, where)

    def _killed_in(self, operation: str, shop: "kill_shop.Shop") -> str | None:
        """Kill a process of `operation` in its least killed phase; return that phase, or None where it had ended before."""
        phases = self.durations[operation]
        least = min(self.tally.by_phase[operation, phase] for phase in phases)
        wanted = self.draw.choice([phase for phase in phases if self.tally.by_phase[operation, phase] == least])
        delay = self.draw.uniform(0.0, phases[wanted])
        process = Process(lambda tell: kill_shop.operate(operation, shop, tell), self.log)
        if wanted == "start" or any(line == wanted for line in process.lines()):
            time.sleep(delay)
        if process.end(kill=True) == -signal.SIGKILL:
            return wanted
        phases[wanted] *= 0.5  # the machine was busier when the phase was timed: without this, missed again and again
        return None

    def _state(self, shop: "kill_shop.Shop", *, every_file: bool = False) -> dict[str, Any]:
        """Return what another process finds."""
        return self._remembered(shop, self._told(lambda tell: kill_shop.tell_state(shop, tell, every_file=every_file))[-1])

    def _remembered(self, shop: "kill_shop.Shop", line: str) -> dict[str, Any]:
        """Return the state that was told, and remember the rows of its release."""
        state = dict(json.loads(line))
        shop.known[state["release"]] = {name: state[name] for name in kill_shop.ROWS}
        return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--finish-every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sidlake-kill-") as folder:
        kill_shop.warm_up(Path(folder))
        gc.freeze()  # a collection in a forked process would copy all that it shares with its parent
        driver = Driver(Path(folder), arguments.kills, seed=arguments.seed, finish_every=arguments.finish_every)
        signal.signal(signal.SIGINT, lambda *_: driver.stop())
        driver.run()
    result = _summary(driver, time.monotonic() - start)
    print(json.dumps(result, indent=1) if arguments.json else _spoken(result))
    sys.exit(any(result[name] for name in COUNTERS))


def _summary(driver: Driver, seconds: float) -> dict[str, Any]:
    tally = driver.tally
    phases = {
        operation: {phase: tally.by_phase[operation, phase] for phase in driver.durations.get(operation, {})}
        for operation in driver.operations
    }
    return {
        "kills": tally.kills,
        **{name: tally.found[name] for name in COUNTERS},
        "recovered": tally.recovered,
        "new_release_at_kill": tally.new_after_kill,
        "seconds": round(seconds, 1),
        "by_phase": phases,
        "notes": tally.notes[:50],
        "deltalake": version("deltalake"),
    }


def _spoken(result: dict[str, Any]) -> str:
    lines = [f"{name:<20}{result[name]}" for name in ("kills", *COUNTERS, "recovered", "new_release_at_kill", "seconds")]
    for operation, phases in result["by_phase"].items():
        lines.append(f"{operation}: " + ", ".join(f"{phase} {count}" for phase, count in phases.items()))
    return "\n".join([*lines, *result["notes"]])


if __name__ == "__main__":
    main()
