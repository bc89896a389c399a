"""Looking up one SID, one item, one prefix at a time, against DuckDB on the same release and LMDB on the same rows.

    python benchmarks/lookup.py [--json] [--items 1000000] [--lookups 20000]

A release of random unique SIDs of 3 x 1,024 codes is written and its lookup file made; the questions are drawn with a seed, half of
those for items of items that are not there. Peers: DuckDB on the release's Parquet files (as `catalog.duckdb` reads them), DuckDB
on a table of its own with an index, and LMDB (`pip install lmdb`) where it is installed. Opening the file has read it once before.
Exit code 1 where ours has a p99 of 1 ms or more, or an answer differs.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from machine import machine

from sidlake.tokenizers.semantic_id import format_sids, parse_sid
from sidlake.warehouse.contracts import CONTRACTS, conform
from sidlake.warehouse.embeddings import as_code_lists
from sidlake.warehouse.outlets.lookup import Lookup, open_lookup
from sidlake.warehouse.outlets.lookup_file import key_of, write_lookup
from sidlake.warehouse.releases import Release, get
from sidlake.warehouse.tables import Warehouse

SEED = 20_261_127
WIDTHS = (1024, 1024, 1024)
LIMIT_US = 1000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--lookups", type=int, default=20_000, help="of each kind; DuckDB gets a hundredth")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), arguments.items, arguments.lookups)
    result |= {"seed": SEED, "machine": machine("duckdb", "deltalake")}
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))
    if not result["equal"] or max(times["p99_us"] for times in result["ours"].values()) >= LIMIT_US:
        sys.exit(1)


def measured(folder: Path, num_items: int, num_lookups: int) -> dict[str, Any]:
    warehouse = Warehouse.create_or_open(folder / "lake")
    release, item_ids, sids = released(warehouse, num_items)
    start = time.perf_counter()
    path = write_lookup(warehouse)
    written = time.perf_counter() - start
    rng = np.random.default_rng(SEED)
    items = [item_ids[row] if row % 2 else f"x{row}" for row in rng.integers(0, num_items, num_lookups).tolist()]
    asked = [sids[row] for row in rng.integers(0, num_items, num_lookups).tolist()]
    prefixes = [sid[: sid.index(">", sid.index(">") + 1) + 1] for sid in asked]
    with open_lookup(warehouse) as lookup:
        ours, equal = our_times(lookup, items, asked, prefixes)
        found = [lookup.item(item) for item in items[:200]]
    expected = [one.sid if one else None for one in found]
    few = max(num_lookups // 100, 20)
    files = warehouse.files("semantic_ids", version=release.tables["semantic_ids"])
    peers = duckdb_times(files, folder, items[:few], prefixes[:few], expected)
    if importlib.util.find_spec("lmdb"):
        peers["lmdb"] = lmdb_times(folder, item_ids, sids, items, expected)
    return {
        "items": num_items,
        "lookups": num_lookups,
        "written_seconds": round(written, 2),
        "file_megabytes": round(path.stat().st_size / 1e6, 1),
        "ours": ours,
        "peers": peers,
        "ratio_duckdb_parquet": round(peers["duckdb on parquet"]["p50_us"] / ours["item"]["p50_us"], 1),
        "equal": equal and all(peer.pop("equal", True) for peer in peers.values()),
    }


def released(warehouse: Warehouse, num_items: int) -> tuple[Release, list[str], list[str]]:
    """Write `semantic_ids` and one row of `releases` over it: what a lookup reads, without the rest of a release."""
    keys = np.sort(np.random.default_rng(SEED).choice(np.prod(WIDTHS), num_items, replace=False))
    codes_NL = np.stack(np.unravel_index(keys, WIDTHS), axis=1).astype(np.int32)
    item_ids, sids = [f"item-{number:08d}" for number in range(num_items)], format_sids(codes_NL)
    now = pa.scalar(datetime(2026, 11, 27, tzinfo=UTC), pa.timestamp("us", tz="UTC"))
    codes = as_code_lists(codes_NL)

    def repeated(value: object, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), num_items)

    table = pa.table(
        {"item_id": item_ids, "generation": repeated("g0001", pa.string()), "codes": codes}
        | {f"code_{level}": codes_NL[:, level] for level in range(3)}
        | {
            "sid": sids,
            "sid_key": keys.astype(np.int64),
            "modalities": repeated(["text"], pa.list_(pa.string())),
            "raw_codes": codes,
        }
        | {"moved": repeated(False, pa.bool_()), "move_cost": repeated(0.0, pa.float32())}
        | {"residual_norm": repeated(0.5, pa.float32()), "assigned_at": pa.repeat(now, num_items)}
    )
    version = warehouse.append("semantic_ids", conform(table, "semantic_ids", num_levels=3), run_id="run", num_levels=3)
    row: dict[str, Any] = dict.fromkeys(CONTRACTS["releases"].names) | {
        "release_id": "r000001", "parent": None, "generation": "g0001", "created_at": now.as_py(), "status": "published",
        "tables": json.dumps({"semantic_ids": version}), "codebook_hash": "", "code_version": "", "content_hash": "", "reason": "",
        **dict.fromkeys(("inputs", "encoders", "config", "metrics", "steps"), "{}"),
    }  # fmt: skip
    warehouse.append("releases", pa.Table.from_pylist([row], CONTRACTS["releases"]), run_id="run")
    return get(warehouse), item_ids, sids


def timed(ask: Callable[[str], Any], questions: Sequence[str]) -> tuple[dict[str, float], list[Any]]:
    """Return p50 and p99 in microseconds, and the answers."""
    ask(questions[0])
    answers, nanoseconds = [], []
    for question in questions:
        start = time.perf_counter_ns()
        answers.append(ask(question))
        nanoseconds.append(time.perf_counter_ns() - start)
    p50, p99 = np.percentile(nanoseconds, [50, 99]) / 1000
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}, answers


def our_times(lookup: Lookup, items: list[str], sids: list[str], prefixes: list[str]) -> tuple[dict[str, dict[str, float]], bool]:
    by_item, _ = timed(lookup.item, items)
    by_sid, found = timed(lookup.sid, sids)
    by_prefix, below = timed(lambda prefix: lookup.under(prefix, limit=100), prefixes)
    back = [lookup.item(one.item_id) for one in found]
    equal = [one.sid if one else None for one in back] == sids and all(
        one.sid.startswith(p) for p, o in zip(prefixes, below, strict=True) for one in o
    )
    return {"item": by_item, "sid": by_sid, "prefix, at most 100 items": by_prefix}, equal


def duckdb_times(files: list[str], folder: Path, items: list[str], prefixes: list[str], expected: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with duckdb.connect(str(folder / "peer.duckdb")) as connection:
        source = f"read_parquet({files})"
        connection.execute(f"CREATE TABLE sids AS SELECT item_id, sid FROM {source}")
        connection.execute("CREATE UNIQUE INDEX by_item ON sids (item_id)")
        for name, place in (("duckdb on parquet", source), ("duckdb table with index", "sids")):
            times, rows = timed(
                lambda item, at=place: connection.execute(f"SELECT sid FROM {at} WHERE item_id = ?", [item]).fetchone(), items
            )
            answers = [row[0] if row else None for row in rows]
            found[name] = times | {"equal": answers[: len(expected)] == expected[: len(answers)]}
        by_prefix, _ = timed(
            lambda p: connection.execute(f"SELECT item_id FROM {source} WHERE sid LIKE ? LIMIT 100", [p + "%"]).fetchall(), prefixes
        )
        found["duckdb on parquet, prefix"] = by_prefix
    return found


def lmdb_times(folder: Path, item_ids: list[str], sids: list[str], items: list[str], expected: list[Any]) -> dict[str, Any]:
    import lmdb

    environment = lmdb.open(str(folder / "lmdb"), map_size=2**32, max_dbs=2)
    by_item, by_sid = environment.open_db(b"items"), environment.open_db(b"sids")
    start = time.perf_counter()
    with environment.begin(write=True) as writing:
        writing.cursor(by_item).putmulti(((i.encode(), s.encode()) for i, s in zip(item_ids, sids, strict=True)), append=True)
        pairs = ((key_of(parse_sid(s)), i.encode()) for i, s in zip(item_ids, sids, strict=True))
        writing.cursor(by_sid).putmulti(pairs, append=True)
    seconds = time.perf_counter() - start

    def ask(item: str) -> str | None:
        with environment.begin(db=by_item) as reading:
            value = reading.get(item.encode())
        return bytes(value).decode() if value is not None else None

    times, answers = timed(ask, items)
    size = (folder / "lmdb" / "data.mdb").stat().st_size
    more = {"written_seconds": round(seconds, 2), "file_megabytes": round(size / 1e6, 1)}
    return times | more | {"equal": answers[: len(expected)] == expected}


if __name__ == "__main__":
    main()
