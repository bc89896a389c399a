"""The HTTP service: how long a lookup takes, how many it answers, and what fails while the release changes under load.

    python benchmarks/serve.py [--json] [--items 200000] [--lookups 5000] [--seconds 15]

A release of random unique SIDs of 3 x 1,024 codes is served by `sidlake serve` in a process of its own and asked over keep-alive
connections from this machine. Peer in the same run: DuckDB on a view of that release's files, as `catalog.duckdb` has it, in this
process and without HTTP. Then rows of `releases` go in for some seconds, naming two contents in turn, as releases and rollbacks do,
while threads ask: every answer must be that of the release it names. Exit code 1 where a request failed or an answer is wrong.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import numpy as np
import pyarrow as pa
from lookup import SEED, released, timed
from machine import machine

from sidlake.warehouse.contracts import CONTRACTS
from sidlake.warehouse.outlets.lookup_file import write_lookup
from sidlake.warehouse.releases import Release, get
from sidlake.warehouse.tables import Warehouse

CLIENTS = 2
THREADS = 4
EVERY = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--lookups", type=int, default=5_000, help="of each kind; DuckDB gets a hundredth")
    parser.add_argument("--seconds", type=float, default=15.0, help="of changing the release under load")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder) / "lake", arguments.items, arguments.lookups, arguments.seconds)
    result |= {"seed": SEED, "machine": machine("duckdb", "fastapi", "uvicorn")}
    print(json.dumps(result) if arguments.json else json.dumps(result, indent=1))
    if not result["equal"] or result["under_load"]["failed"] or result["under_load"]["wrong"]:
        sys.exit(1)


def measured(folder: Path, num_items: int, num_lookups: int, seconds: float) -> dict[str, Any]:
    warehouse = Warehouse.create_or_open(folder)
    _, item_ids, sids = released(warehouse, num_items)
    contents = two_contents(warehouse, item_ids)
    append(warehouse, contents[0])
    write_lookup(warehouse)
    rows = np.random.default_rng(SEED).integers(0, num_items, num_lookups).tolist()
    asked = [item_ids[row] for row in rows]
    with serving(folder) as port:
        connection = Connection(port)
        times, answers = timed(lambda item: connection.get(f"/items/{item}")[1]["sid"], asked)
        by_sid, _ = timed(lambda sid: connection.get(f"/sids/{quote(sid)}"), [sids[row] for row in rows])
        prefixes = [quote(sids[row][: sids[row].index("<c_")]) for row in rows]
        by_prefix, _ = timed(lambda prefix: connection.get(f"/prefix/{prefix}?limit=100"), prefixes)
        per_second = throughput(port, asked)
        load = under_load(warehouse, port, contents, (item_ids, sids), seconds)
    few = max(num_lookups // 100, 20)
    files = warehouse.files("semantic_ids", version=contents[0].tables["semantic_ids"])
    with duckdb.connect() as catalogue:
        catalogue.execute(f"CREATE VIEW semantic_ids AS SELECT * FROM read_parquet({files}) WHERE generation = 'g0001'")
        sql = "SELECT sid FROM semantic_ids WHERE item_id = ?"
        peer, theirs = timed(lambda item: catalogue.execute(sql, [item]).fetchall()[0][0], asked[:few])
    return {
        "items": num_items,
        "lookups": num_lookups,
        "item": milliseconds(times),
        "sid": milliseconds(by_sid),
        "prefix, at most 100 items": milliseconds(by_prefix),
        "items_per_second": per_second,
        "clients": CLIENTS,
        "peer": {"duckdb view": milliseconds(peer)},
        "ratio_duckdb": round(peer["p50_us"] / times["p50_us"], 1),
        "equal": theirs == answers[:few] and answers == [sids[row] for row in rows],
        "under_load": load,
    }


def two_contents(warehouse: Warehouse, item_ids: list[str]) -> tuple[Release, Release]:
    """Write titles, and a second version in which each item has the SID of the next; return a release of each."""
    release, count = get(warehouse), len(item_ids)
    now = pa.repeat(pa.scalar(release.created_at, pa.timestamp("us", tz="UTC")), count)
    columns: dict[str, Any] = {name: pa.nulls(count, CONTRACTS["items"].field(name).type) for name in CONTRACTS["items"].names}
    columns |= {"item_id": item_ids, "title": [f"thing {item}" for item in item_ids], "text": item_ids}
    columns |= {"content_hash": item_ids, "first_seen": now, "updated_at": now}
    columns["category"] = pa.array([[]] * count, CONTRACTS["items"].field("category").type)
    items = warehouse.append("items", pa.table(columns, CONTRACTS["items"]), run_id="run")
    table = warehouse.read("semantic_ids", version=release.tables["semantic_ids"]).sort_by("item_id")
    turned = pa.concat_tables([table.slice(1), table.slice(0, 1)]).set_column(0, table.schema.field(0), table.column("item_id"))
    second = warehouse.overwrite("semantic_ids", turned, run_id="run", num_levels=3)
    values = asdict(release)
    tables = [{"items": items, "semantic_ids": version} for version in (release.tables["semantic_ids"], second)]
    return Release(**values | {"tables": tables[0]}), Release(**values | {"tables": tables[1]})


def append(warehouse: Warehouse, content: Release) -> str:
    """Append a row of `releases` with this content and return its id."""
    latest = get(warehouse)
    row = asdict(content) | {"release_id": f"r{int(latest.release_id[1:]) + 1:06d}", "parent": latest.release_id}
    row["created_at"] = latest.created_at + timedelta(seconds=1)
    json_columns = ("tables", "inputs", "encoders", "config", "metrics", "steps")
    row |= {name: json.dumps(row[name]) for name in json_columns}
    warehouse.append("releases", pa.Table.from_pylist([row], CONTRACTS["releases"]), run_id="run")
    return str(row["release_id"])


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    command = [str(Path(sys.executable).parent / "sidlake"), "serve", "-w", str(folder), "--port", "0", "--every", str(EVERY)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline().split("http://127.0.0.1:")[1].split(";")[0])
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


class Connection:
    """A keep-alive connection that costs as little as may be: what is measured is the service."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path: str) -> tuple[int, Any]:
        """Return the status and the JSON; OSError or ValueError where there is none."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += self._more()
        return int(head[9:12]), json.loads(body)

    def _until(self, mark: bytes) -> bytes:
        data = b""
        while mark not in data:
            data += self._more()
        return data

    def _more(self) -> bytes:
        data = self._socket.recv(65_536)
        if not data:
            msg = "the service closed the connection"
            raise OSError(msg)
        return data


def ask_all(port: int, items: list[str]) -> int:
    connection = Connection(port)
    return sum(connection.get(f"/items/{item}")[0] == 200 for item in items)


def throughput(port: int, items: list[str]) -> float:
    """Return how many items a second are answered to `CLIENTS` processes, each with one connection."""
    with ProcessPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask_all, [port] * CLIENTS, [items[:1]] * CLIENTS))
        start = time.perf_counter()
        found = sum(pool.map(ask_all, [port] * CLIENTS, [items] * CLIENTS))
        taken = time.perf_counter() - start
    assert found == CLIENTS * len(items)
    return round(found / taken)


def under_load(
    warehouse: Warehouse, port: int, contents: tuple[Release, Release], expected: tuple[list[str], list[str]], seconds: float
) -> dict[str, Any]:
    item_ids, sids = expected
    places = {get(warehouse).release_id: 0}
    answers: list[tuple[str, int, str]] = []
    failed: list[str] = []
    over = threading.Event()

    def ask(seed: int) -> None:
        rng = np.random.default_rng(seed)
        connection = Connection(port)
        while not over.is_set():
            row = int(rng.integers(0, len(item_ids)))
            try:
                status, answer = connection.get(f"/items/{item_ids[row]}")
                answers.append((answer["release"], row, answer["sid"]))
                if status != 200:
                    failed.append(str(status))
            except (OSError, ValueError, KeyError) as error:
                failed.append(repr(error))
                connection = Connection(port)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        turn = len(places) % 2
        places[append(warehouse, contents[turn])] = turn
        write_lookup(warehouse)  # as the release step and `sidlake rollback` do
        time.sleep(2 * EVERY)
    time.sleep(2 * EVERY)
    over.set()
    for thread in threads:
        thread.join()
    wrong = sum(sid != sids[(row + places[release]) % len(sids)] for release, row, sid in answers)
    seen = len({release for release, _, _ in answers})
    return {"requests": len(answers), "releases": len(places), "releases_seen": seen, "failed": len(failed), "wrong": wrong}


def milliseconds(times: dict[str, float]) -> dict[str, float]:
    return {name.replace("_us", "_ms"): round(value / 1000, 3) for name, value in times.items()}


if __name__ == "__main__":
    main()
