"""Several publishers at once on one warehouse: who wins, what the others are told, and whether any release mixes two runs' tables.

    python benchmarks/publishers.py [--rounds R] [--seed S] [--json]

Two, then four processes start from the same release in every round, write all tables of a release of their own and publish. One
must win; the others must be told why by name (`WarehouseBusy`, `ReleaseConflict`) and try again from what is then current, until
theirs is published as well. Twice: with the writer lock that all share, and as machines that share the tables but no lock, each
with a root of its own in which only `delta` is a link to the common folder; there the conditioned commits alone decide (and in a
round in which the first table's commit goes to one and a later one's to the other, both try again). Afterwards each release is
checked: its parent is the one before, its content hash is that of its tables read again, and every table it names was written by
the run that published it (the run's id in the log).

Printed per case: releases, rounds in which one first attempt won, refusals by name, retries, and what must be 0: double (two
releases of one parent), interleaved (tables of another run), wrong_hash, lost (published, and not there), unnamed errors.
"""

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import warehouse_sample as sample

from sidlake.errors import ReleaseConflict, SidlakeError, WarehouseBusy
from sidlake.warehouse.releases import content_hash, current, history, publish
from sidlake.warehouse.tables import Warehouse

MUST_BE_ZERO = ("double", "interleaved", "wrong_hash", "lost", "unnamed")
MAX_TRIES = 200
NUM_ITEMS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cases = [
        measured(processes, arguments.rounds, shared_lock=shared, seed=arguments.seed)
        for processes in arguments.processes
        for shared in (True, False)
    ]
    result = {"cases": cases} | {name: sum(case[name] for case in cases) for name in MUST_BE_ZERO}
    print(json.dumps(result, indent=1) if arguments.json else "\n".join(map(str, cases)))
    sys.exit(any(result[name] for name in MUST_BE_ZERO))


def measured(processes: int, rounds: int, *, shared_lock: bool, seed: int) -> dict[str, Any]:
    """Return what came of `rounds` rounds of `processes` publishers."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sidlake-publishers-") as folder:
        common = Warehouse.create_or_open(Path(folder) / "common")
        roots = [common.root if shared_lock else _machine(common, number) for number in range(processes)]
        publish(common, sample.draft(sample.write(common, NUM_ITEMS, run_id="first"), run_id="first"), expected_parent=None)
        told = _run(roots, rounds, seed)
        found = _checked(common, told)
    seconds = round(time.perf_counter() - start, 1)
    return {"processes": processes, "shared_lock": shared_lock, "rounds": rounds, **found, "seconds": seconds}


def _machine(common: Warehouse, number: int) -> Path:
    """Return the root of a machine that shares the tables of `common` and none of its locks."""
    root = common.root.with_name(f"machine-{number}")
    root.mkdir()
    (root / "delta").symlink_to(common.root / "delta")
    return root


def _run(roots: list[Path], rounds: int, seed: int) -> list[dict[str, Any]]:
    """Return what each attempt of each process ended in."""
    context = multiprocessing.get_context("spawn")
    barrier, queue = context.Barrier(len(roots)), context.Queue()
    workers = [
        context.Process(target=_publisher, args=(root, number, rounds, seed, barrier, queue)) for number, root in enumerate(roots)
    ]
    for worker in workers:
        worker.start()
    told = [line for _ in workers for line in queue.get(timeout=3600)]
    for worker in workers:
        worker.join()
    return told


def _publisher(root: Path, number: int, rounds: int, seed: int, barrier: Barrier, queue: "Queue[list[dict[str, Any]]]") -> None:
    """Publish once per round, all processes from the same release; put what every attempt ended in on the queue."""
    warehouse, draw, told = Warehouse.create_or_open(root), random.Random(seed * 100 + number), []
    for turn in range(rounds):
        barrier.wait()
        parent = current(warehouse)
        barrier.wait()
        for attempt in range(MAX_TRIES):
            assert parent is not None
            run_id = f"p{number}-{turn}-{attempt}"
            outcome = _attempt(warehouse, run_id, parent.release_id)
            told.append({"run": run_id, "first": attempt == 0, "turn": turn, **outcome})
            if outcome["error"] is None:
                break
            time.sleep(draw.uniform(0.0, 0.1))
            parent = current(warehouse)
    queue.put(told)


def _attempt(warehouse: Warehouse, run_id: str, parent: str) -> dict[str, Any]:
    """Write a release and publish it on `parent`, under the lock as a run does; return what it ended in."""
    try:
        with warehouse.writing(run_id):
            tables = sample.write(warehouse, NUM_ITEMS, run_id=run_id, title=run_id)
            release = publish(warehouse, sample.draft(tables, run_id=run_id), expected_parent=parent)
    except (WarehouseBusy, ReleaseConflict) as error:
        return {"release": None, "error": type(error).__name__, "message": str(error)}
    except (SidlakeError, OSError, ValueError) as error:
        return {"release": None, "error": "unnamed", "message": f"{type(error).__name__}: {error}"}
    return {"release": release.release_id, "error": None, "message": ""}


def _checked(warehouse: Warehouse, told: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts of the outcomes, and of all that must not be."""
    known = history(warehouse)
    run_of = {one["release"]: one["run"] for one in told if one["release"]} | {"r000001": "first"}
    refused = Counter(one["error"] for one in told if one["error"] and one["error"] != "unnamed")
    first_wins = Counter(one["turn"] for one in told if one["first"] and one["release"])
    unnamed = [one["message"] for one in told if one["error"] == "unnamed"]
    writer_of = {
        table: {entry["version"]: entry.get("run_id") for entry in warehouse.delta(table).history()} for table in known[-1].tables
    }
    foreign = [
        f"{release.release_id}: {table}@{version}"
        for release in known
        for table, version in release.tables.items()
        if writer_of[table].get(version) != run_of.get(release.release_id)
    ]
    parents = Counter(release.parent for release in known)
    return {
        "releases": len(known) - 1,
        "rounds_with_one_winner": sum(count == 1 for count in first_wins.values()),
        "refused": dict(refused),
        "retries": sum(not one["first"] for one in told),
        "double": sum(count - 1 for count in parents.values()) + sum(count > 1 for count in first_wins.values()),
        "interleaved": len(foreign),
        "wrong_hash": sum(content_hash(warehouse, one.tables, one.generation) != one.content_hash for one in known),
        "lost": len(run_of.keys() - {release.release_id for release in known}),
        "unnamed": len(unnamed),
        "notes": [*foreign[:5], *dict.fromkeys(unnamed)][:10],
        "told": list(dict.fromkeys(one["message"].split("; ")[-1] for one in told if one["error"]))[:4],
    }


if __name__ == "__main__":
    main()
