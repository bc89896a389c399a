"""Random compositions: whatever is done to a catalogue and its warehouse, in whatever order, every law holds after each act.

    python benchmarks/compositions.py [--minutes M | --sequences N] [--acts K] [--seed S] [--json]

A sequence begins with a first retrain and draws acts (`composing.acts`): items and events that come, change, leave and return,
files that are late or written again, refresh, retrain, recipes edited, gates that refuse, overrides, rollbacks and their holds,
pins, vacuums, some steps of a job only, a death at a random write (by an exception that nothing catches, or by the process ending
at once), the dead run executed again, a second machine that does not see the lock, a clock set back.

After each act the warehouse is compared with a model in plain Python: items, events, sequences, the SIDs of every release ever
published, pins, what was vacuumed, and which errors may come out. Now and then a copy of the shop reads all files again and must
publish the same content hash. At the end everything is set right, a last retrain must succeed, and every release that can be read
is read again with its files' digests, its content hash and its laws.

A sequence that fails is shortened to the fewest acts that still fail in the same way. Each runs in a process forked from a parent
that has imported everything and used nothing, so that a death may be real. Interrupted, the driver prints what it found.

Printed: sequences, acts, failures, failing (kinds of failure, each with its acts and what was wrong), ms per act, and by act.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

from composing.acts import ACTS, Act, draw, finish, forget_clock, play  # after the settings above, which are read on import
from composing.jobs import expect_death, mourn
from composing.sources import begin

KINDS = ("list", "missing", "quiet", "sales")
DIED = 77
PATIENCE = 300  # seconds after which a process counts as hanging
SHORTENINGS = 80  # tries to leave acts out of a failing sequence


@dataclass
class Played:
    """What a sequence came to: how many acts were done, what was wrong after the last of them, and the seconds of each act."""

    done: int
    wrong: list[str]
    seconds: list[tuple[str, float]] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)


def play_all(kind: str, acts: list[Act], folder: Path) -> Played:
    """Return what `acts` come to in a new shop in `folder`; each process that dies is followed by one that goes on."""
    shutil.rmtree(folder, ignore_errors=True)
    seconds: list[tuple[str, float]] = []
    resumed = False
    try:
        while True:
            answer = _in_process(kind, acts, folder, resumed=resumed)
            if answer is not None:
                answer.seconds = seconds + answer.seconds
                return answer
            resumed = True
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(folder.name + "-twin"), ignore_errors=True)
        folder.with_name(folder.name + ".pickle").unlink(missing_ok=True)


def _in_process(kind: str, acts: list[Act], folder: Path, *, resumed: bool) -> Played | None:
    """Return what a forked process found, None where it died as an act of dying wanted it."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.close(reader)
        try:
            found = _play_on(kind, acts, folder, resumed=resumed)
        except BaseException:
            found = Played(0, [f"the driver broke: {traceback.format_exc()[-1500:]}"])
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(found, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code == DIED:
        return None
    if code or not told:
        return Played(0, [f"the process ended with {code}"])
    return pickle.loads(told)  # our own child's words


def _play_on(kind: str, acts: list[Act], folder: Path, *, resumed: bool) -> Played:
    saved = folder.with_name(folder.name + ".pickle")
    if resumed:
        state, start = pickle.loads(saved.read_bytes())
        if wrong := mourn(state):
            return Played(start, wrong)
    else:
        state, start = begin(folder, kind), 0
    seconds = []
    for place in range(start, len(acts)):
        if acts[place][0] == "die":
            expect_death(state, **acts[place][1])
            saved.write_bytes(pickle.dumps((state, place + 1)))
        begun = time.perf_counter()
        wrong = play(state, acts[place])
        seconds.append((acts[place][0], time.perf_counter() - begun))
        if wrong:
            return Played(place + 1, wrong, seconds)
    begun = time.perf_counter()
    wrong = finish(state)
    seconds.append(("(the end)", time.perf_counter() - begun))
    forget_clock()
    return Played(len(acts), wrong, seconds, sorted(sys.modules))


# ----------------------------------------------------------------------------------------------------------- failures


def signature(wrong: list[str]) -> str:
    """Return what kind of failure `wrong` is: its first words without names and numbers.

    >>> signature(["r000004: I03 was published in g0001 as (1, 2), now it is (1, 3)"])
    'r#: I# was published in g# as (#), now it is (#)'
    """
    text = re.sub(r"\(\d[\d, ]*\)", "(#)", wrong[0].splitlines()[0])
    return re.sub(r"\d+", "#", re.sub(r"'[^']*'|/\S+|\[.*?\]", "~", text))[:90]


def shortened(kind: str, acts: list[Act], wrong: list[str], folder: Path) -> tuple[list[Act], list[str]]:
    """Return the fewest acts found that still fail as `wrong` does, and what is wrong after them: delta debugging."""
    wanted, size, tries = signature(wrong), max(1, len(acts) // 2), 0
    while size and tries < SHORTENINGS:
        start, shorter = 1, False  # the first act, a retrain, stays
        while start < len(acts) and tries < SHORTENINGS:
            fewer = acts[:start] + acts[start + size :]
            tries += 1
            found = play_all(kind, fewer, folder)
            if found.wrong and signature(found.wrong) == wanted:
                acts, wrong, shorter = fewer[: found.done], found.wrong, True
            else:
                start += size
        size = size if shorter and size == 1 else size // 2
    return acts, wrong


# --------------------------------------------------------------------------------------------------------------- main


def sequence_of(seed: int, num_acts: int, without: Sequence[str] = ()) -> tuple[str, list[Act]]:
    """Return the kind of shop and the acts of the sequence `seed`, in which no act of `without` is."""
    rng = random.Random(seed)
    first: Act = ("retrain", {"override": 0})
    return KINDS[seed % len(KINDS)], [first, *(draw(rng, without) for _ in range(num_acts - 1))]


def import_all(folder: Path) -> None:
    """Import, and only import, whatever a sequence imports, so that each process need not."""
    kind, acts = sequence_of(0, 12)
    for name in play_all(kind, [act for act in acts if act[0] != "die"], folder).modules:
        if name not in sys.modules and not name.startswith("__"):
            try:
                import_module(name)
            except Exception:
                continue


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=None, help="stop after so many minutes")
    parser.add_argument("--sequences", type=int, default=None, help="stop after so many sequences (20 if neither is given)")
    parser.add_argument("--acts", type=int, default=30, help="acts of a sequence")
    parser.add_argument("--seed", type=int, default=0, help="the first sequence's seed; the next have the numbers after it")
    parser.add_argument("--folder", type=Path, default=None, help="where shops are made; in memory where there is room")
    parser.add_argument("--without", nargs="*", default=[], choices=list(ACTS), metavar="ACT", help="acts to leave out")
    parser.add_argument("--keep-long", action="store_true", help="do not shorten sequences that fail")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    shm = Path("/dev/shm")
    top = Path(tempfile.mkdtemp(prefix="compositions-", dir=given.folder or (shm if os.access(shm, os.W_OK) else None)))
    try:
        result = run(given, top)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    print(json.dumps(result, indent=1) if given.json else _told(result))
    return 1 if result["failures"] else 0


def run(given: argparse.Namespace, top: Path) -> dict[str, Any]:
    """Play sequences until time or number is up, and return what is printed."""
    import_all(top / "first")
    began, played_num, acts_done = time.monotonic(), 0, 0
    limit = given.sequences if given.sequences is not None else (20 if given.minutes is None else sys.maxsize)
    spent, counts, found = Counter[str](), Counter[str](), dict[str, dict[str, Any]]()
    try:
        while played_num < limit and (given.minutes is None or time.monotonic() - began < 60 * given.minutes):
            seed = given.seed + played_num
            kind, acts = sequence_of(seed, given.acts, given.without)
            played = play_all(kind, acts, top / "shop")
            played_num, acts_done = played_num + 1, acts_done + played.done
            for name, seconds in played.seconds:
                spent[name] += seconds
                counts[name] += 1
            if played.wrong:
                _note(found, seed, kind, acts[: played.done], played.wrong, top, shorten=not given.keep_long)
    except KeyboardInterrupt:
        pass
    return {
        "sequences": played_num,
        "acts": acts_done,
        "failures": sum(one["times"] for one in found.values()),
        "failing": list(found.values()),
        "seed": given.seed,
        "seconds": round(time.monotonic() - began, 1),
        "ms_per_act": round(1e3 * sum(spent.values()) / max(acts_done, 1), 1),
        "acts_by_name": {
            name: {"times": counts[name], "ms": round(1e3 * spent[name] / counts[name], 1)} for name in sorted(counts)
        },
        "versions": {name: version(name) for name in ("sidlake", "deltalake", "duckdb", "polars", "pyarrow")},
    }


def _note(
    found: dict[str, dict[str, Any]], seed: int, kind: str, acts: list[Act], wrong: list[str], top: Path, *, shorten: bool
) -> None:
    """Count a failure; the first of its kind is shortened and told at once."""
    name = signature(wrong)
    if name in found:
        found[name]["times"] += 1
        found[name]["seeds"].append(seed)
        return
    if shorten:
        acts, wrong = shortened(kind, acts, wrong, top / "shorter")
    found[name] = {"times": 1, "seeds": [seed], "kind": kind, "acts": acts, "wrong": wrong}
    print(f"seed {seed}, {kind}: {json.dumps(acts)}\n  " + "\n  ".join(line[:600] for line in wrong), file=sys.stderr, flush=True)


def _told(result: dict[str, Any]) -> str:
    lines = [
        f"{result['sequences']} sequences, {result['acts']} acts, {result['failures']} failures, {result['ms_per_act']} ms per act"
    ]
    lines += [f"  {name:<15}{one['times']:>7} times {one['ms']:>8.1f} ms" for name, one in result["acts_by_name"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
