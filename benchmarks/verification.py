"""What verifying a release costs: a first publication, a day's, and a day's with everything read, beside the way of before.

    python benchmarks/verification.py [--items 1000000] [--events 5000000] [--new 50000] [--json] [--folder DIR]

Writes a lawful release straight into a warehouse (`scaling/lawful.py`), dates its files an hour back (files just written are not
believed), and takes the seconds of the laws and of the content hash, each in this process and warm:

- ``first``: nothing is known of any file;
- ``events``: new events, appended; the rest is known;
- ``day``: that, and the tables written anew that a day with new items writes anew: items, sequences, trie;
- ``before``: what both were of the day's release: the content hash by all rows in order, and of the laws the one that took most
  of the time, that sequences carry their items' codes, which put a list of codes together for each sequence;
- ``day, reread``: what `sidlake check` and the upkeep do.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from scaling.lawful import events, item_ids, write_release

from sidlake.warehouse.content import content_hash
from sidlake.warehouse.hashing.sorted_rows import sorted_hash
from sidlake.warehouse.hashing.verified_files import Verified
from sidlake.warehouse.laws import verify
from sidlake.warehouse.sessions import session
from sidlake.warehouse.sql import table_at
from sidlake.warehouse.tables import Warehouse

_SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--new", type=int, default=50_000, help="events that the day brings")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = measured(Path(folder), arguments.items, arguments.events, arguments.new)
    result = {"rows": rows, "machine": machine("sidlake", "duckdb", "pyarrow", "numba")}
    print(json.dumps(result) if arguments.json else shown(rows))


def measured(folder: Path, num_items: int, num_events: int, num_new: int) -> list[dict[str, Any]]:
    """Return a row per way: what, seconds of laws and of the hash, and of processor."""
    warm = Warehouse.create_or_open(folder / "warm")
    content_hash(warm, write_release(warm, 100, 200, seed=_SEED), "g1")
    warehouse = Warehouse.create_or_open(folder / "lake")
    tables = write_release(warehouse, num_items, num_events, seed=_SEED)
    _age(warehouse)
    known = Verified(warehouse, trusting=True)
    rows = [_row("first", warehouse, tables, known)]
    known.save()
    new = events(item_ids(num_items), num_new, np.random.default_rng(_SEED + 1), first_user=num_events, day=1)
    day = {**tables, "interactions": warehouse.append("interactions", new, run_id="day")}
    rows.append(_row("events", warehouse, day, Verified(warehouse, trusting=True)))
    for table in ("items", "user_sequences", "sid_trie"):
        day[table] = warehouse.overwrite(table, warehouse.read(table, version=day[table]), run_id="day")
    rows.append(_row("day", warehouse, day, Verified(warehouse, trusting=True)))
    _, seconds, cpu = _timed(lambda: sorted_hash(warehouse, day, "g1"))
    _, laws, laws_cpu = _timed(lambda: _sequences_as_before(warehouse, day))
    rows.append({"what": "before", "laws_s": laws, "laws_cpu_s": laws_cpu, "hash_s": seconds, "hash_cpu_s": cpu})
    rows.append(_row("day, reread", warehouse, day, Verified(warehouse)))
    assert rows[1]["hash"] == rows[2]["hash"] == rows[4]["hash"], "a sum that was remembered is not that of the rows"
    return rows


def _row(what: str, warehouse: Warehouse, tables: dict[str, int], known: Verified) -> dict[str, Any]:
    _, laws, laws_cpu = _timed(lambda: verify(warehouse, tables, generation="g1", verified=known))
    found, seconds, cpu = _timed(lambda: content_hash(warehouse, tables, "g1", verified=known))
    return {"what": what, "laws_s": laws, "laws_cpu_s": laws_cpu, "hash_s": seconds, "hash_cpu_s": cpu, "hash": found}


def _sequences_as_before(warehouse: Warehouse, tables: dict[str, int]) -> None:
    sequences, sids = (f"({table_at(warehouse, name, tables[name])})" for name in ("user_sequences", "semantic_ids"))
    places = f"SELECT user_id, split, unnest(item_ids) AS item_id, unnest(range(len(item_ids))) AS place FROM {sequences}"
    spelled = (
        "SELECT user_id, split, flatten(list(codes ORDER BY place)) AS codes "
        f"FROM ({places}) LEFT JOIN {sids} USING (item_id) GROUP BY user_id, split"
    )
    with session(warehouse) as connection:
        found = connection.sql(
            f"SELECT count(*) FROM {sequences} u JOIN ({spelled}) s USING (user_id, split) WHERE u.codes IS DISTINCT FROM s.codes"
        ).fetchall()
    assert found == [(0,)], "the release is lawful"


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, round(time.perf_counter() - wall, 2), round(time.process_time() - cpu, 2)


def _age(warehouse: Warehouse) -> None:
    for path in (warehouse.root / "delta").rglob("*.parquet"):
        then = path.stat().st_mtime - 3600
        os.utime(path, (then, then))


def shown(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table of seconds."""
    lines = [f"{'':12} {'laws':>8} {'(cpu)':>8} {'hash':>8} {'(cpu)':>8}"]
    for row in rows:
        cells = [row.get(name, "") for name in ("laws_s", "laws_cpu_s", "hash_s", "hash_cpu_s")]
        lines.append(f"{row['what']:12} " + " ".join(f"{cell:>8}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
