"""Several publishers at once on one warehouse: who wins, what the others are told, and whether any release mixes two runs' tables.

    python benchmarks/publishers.py [--rounds R] [--seed S] [--json]

Two, then four processes start from the same release in every round, and each makes one of its own as a run does: its new item gets
the first SID that the ledger has free, its vector and its event are added to those there are, the other tables are written, and all
is published. One must win; the others must be told why by name (`WarehouseBusy`, `ReleaseConflict`) and try again from what is then
current, until theirs is published as well. Twice: with the writer lock that all share, and as machines that share the tables but no
lock, each with a root of its own in which only `delta` is a link to the common folder; there the conditioned commits alone decide
(and in a round in which the first table's commit goes to one and a later one's to the other, both try again). Afterwards each
release is checked: its parent is the one before, its content hash is that of its tables read again, every table it names was
written by the run that published it (the run's id in the log; vectors may be anybody's), the laws hold, and it has the items and
events of all that were published before it.

Printed per case: releases, rounds in which one first attempt won, refusals by name, retries, and what must be 0: double (two
releases of one parent), interleaved (tables of another run), wrong_hash, lost (published, and not there), unlawful (duplicate
events, vectors or SIDs, and every other law), shared (SIDs that two items had in any two releases), unnamed errors.
"""

import argparse
import itertools
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

import pyarrow as pa
import pyarrow.parquet as pq
import warehouse_sample as sample

from sidlake.errors import LawBroken, ReleaseConflict, WarehouseBusy
from sidlake.warehouse.laws import verify
from sidlake.warehouse.ledger import taken
from sidlake.warehouse.releases import Release, content_hash, current, history, publish
from sidlake.warehouse.tables import Warehouse

MUST_BE_ZERO = ("double", "interleaved", "wrong_hash", "lost", "unlawful", "shared", "unnamed")
MAX_TRIES = 200
NUM_ITEMS = 12
WIDTHS = (8, 8, 8)


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
        _publish(common, "first", sample.item_ids(NUM_ITEMS), None)
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
            outcome = _attempt(warehouse, run_id, f"item of p{number}-{turn}", parent)
            told.append({"run": run_id, "first": attempt == 0, "turn": turn, **outcome})
            if outcome["error"] is None:
                break
            time.sleep(draw.uniform(0.0, 0.1))
            parent = current(warehouse)
    queue.put(told)


def _attempt(warehouse: Warehouse, run_id: str, item: str, parent: Release) -> dict[str, Any]:
    """Publish a release with one more `item` on `parent`, under the lock as a run does; return what it ended in."""
    try:
        with warehouse.writing(run_id):
            release = _publish(warehouse, run_id, [item], parent)
    except (WarehouseBusy, ReleaseConflict) as error:
        return {"release": None, "error": type(error).__name__, "message": str(error)}
    except Exception as error:
        return {"release": None, "error": "unnamed", "message": f"{type(error).__name__}: {error}"}
    return {"release": release.release_id, "error": None, "message": ""}


def _publish(warehouse: Warehouse, run_id: str, new: list[str], parent: Release | None) -> Release:
    """Write the tables of a release that adds the items `new` to those of `parent`, and publish it."""
    before = {} if parent is None else _sids(warehouse, parent)
    sids = before | _given(warehouse, new)
    names, codes = list(sids), list(sids.values())
    content = {
        "items": sample.items(names, run_id),
        "codebooks": sample.codebooks(widths=WIDTHS),
        "semantic_ids": sample.semantic_ids(names, codes, widths=WIDTHS),
        "sid_quality": sample.quality(),
        "user_sequences": sample.sequences(names, codes),
        "sid_trie": sample.trie(names, codes),
    }
    tables = {"item_embeddings": _embedded(warehouse, new, run_id), "interactions": _with_events(warehouse, new, parent, run_id)}
    tables |= {table: warehouse.overwrite(table, data, run_id=run_id) for table, data in content.items()}
    return publish(warehouse, sample.draft(tables, run_id=run_id), expected_parent=parent and parent.release_id)


def _sids(warehouse: Warehouse, release: Release) -> dict[str, list[int]]:
    rows = warehouse.read("semantic_ids", version=release.tables["semantic_ids"], columns=["item_id", "codes"])
    return dict(zip(*rows.to_pydict().values(), strict=True))


def _given(warehouse: Warehouse, new: list[str]) -> dict[str, list[int]]:
    """Return the SID that each item of `new` had, or the next that nobody of its generation has."""
    rows = taken(warehouse, "g1").to_pydict()
    had = dict(zip(*rows.values(), strict=True))
    used = set(map(tuple, had.values()))
    free = (list(codes) for codes in itertools.product(*map(range, WIDTHS)) if codes not in used)
    return {item: had[item] if item in had else next(free) for item in new}


def _embedded(warehouse: Warehouse, new: list[str], run_id: str) -> int:
    """Return the version of `item_embeddings` that has the newest one's vectors and those of `new`."""
    head = warehouse.version("item_embeddings")
    known = set() if head is None else set(warehouse.read("item_embeddings", version=head)["item_id"].to_pylist())
    rows = [
        {"item_id": item, "modality": "text", "encoder_id": "e@1", "content_hash": "00", "vector": [1.0, 0.0]}
        for item in new
        if item not in known
    ]
    if head is not None and not rows:
        return head
    file = warehouse.staging(run_id) / "vectors.parquet"
    pq.write_table(pa.Table.from_pylist(rows, sample.CONTRACTS["item_embeddings"]), file)
    return warehouse.append_files("item_embeddings", [file], head=head, run_id=run_id)


def _with_events(warehouse: Warehouse, new: list[str], parent: Release | None, run_id: str) -> int:
    events = sample.interactions(new)
    if parent is None:
        return warehouse.overwrite("interactions", events, run_id=run_id)
    return warehouse.extend("interactions", parent.tables["interactions"], events, run_id=run_id)


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
        if table != "item_embeddings" and writer_of[table].get(version) != run_of.get(release.release_id)
    ]
    parents = Counter(release.parent for release in known)
    unlawful = [f"{release.release_id}: {error}" for release in known if (error := _unlawful(warehouse, release))]
    return {
        "releases": len(known) - 1,
        "rounds_with_one_winner": sum(count == 1 for count in first_wins.values()),
        "refused": dict(refused),
        "retries": sum(not one["first"] for one in told),
        "double": sum(count - 1 for count in parents.values()) + sum(count > 1 for count in first_wins.values()),
        "interleaved": len(foreign),
        "wrong_hash": sum(content_hash(warehouse, one.tables, one.generation) != one.content_hash for one in known),
        "lost": len(run_of.keys() - {release.release_id for release in known}) + _forgotten(warehouse, known),
        "unlawful": len(unlawful),
        "shared": _shared(warehouse, known),
        "unnamed": len(unnamed),
        "notes": [*foreign[:5], *unlawful[:5], *dict.fromkeys(unnamed)][:10],
        "told": list(dict.fromkeys(one["message"].split("; ")[-1] for one in told if one["error"]))[:4],
    }


def _unlawful(warehouse: Warehouse, release: Release) -> str:
    """Return which laws `release` breaks, empty for none."""
    try:
        verify(warehouse, release.tables, generation=release.generation)
    except LawBroken as error:
        return str(error)
    return ""


def _forgotten(warehouse: Warehouse, known: list[Release]) -> int:
    """Return how many items or events of a release are not in the next one: each only adds."""
    lost = 0
    for table in ("items", "interactions"):
        held = [set(warehouse.read(table, version=release.tables[table])["item_id"].to_pylist()) for release in known]
        lost += sum(len(before - after) for before, after in itertools.pairwise(held))
    return lost


def _shared(warehouse: Warehouse, known: list[Release]) -> int:
    """Return how many SIDs belonged to different items in any two releases."""
    owners: dict[tuple[int, ...], set[str]] = {}
    for release in known:
        for item, codes in _sids(warehouse, release).items():
            owners.setdefault(tuple(codes), set()).add(item)
    return sum(len(items) > 1 for items in owners.values())


if __name__ == "__main__":
    main()
