"""Law 4 to the bit: one catalogue with text, pictures, categories and events, retrained on several threads and instruction sets.

    python benchmarks/same_hash.py [--items N] [--threads 1 2 4] [--instructions native avx2] [--given] [--json]

Each retrain runs in a process and a warehouse of its own, whose libraries are told their threads (OpenMP, OpenBLAS, MKL, Numba,
Polars) and, for ``avx2``, to leave AVX-512 alone (OpenBLAS' Haswell kernels, oneDNN's and ATen's AVX2, Numba without AVX-512).
With `--given` a table of vectors takes the place of the text model, whose products no two instruction sets add up alike.
Titles are drawn from a small language with its own categories; pictures are shapes in colours; events follow popularity.

Printed: one row per run with the content hash, a digest of each table's rows and the seconds; `equal_threads` and
`equal_instructions` say whether the content hash was one, and `differing` names the tables that were not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from machine import machine

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
INSTRUCTIONS = {
    "native": {},
    "avx2": {
        "OPENBLAS_CORETYPE": "Haswell",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "NUMBA_CPU_NAME": "haswell",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    },
}
RECIPE = """
name = "same"
[sources.items]
path = "items.parquet"
[sources.events]
path = "events.parquet"
[items]
source = "items"
item_id = "id"
title = {{ column = "title" }}
category = {{ column = "kind" }}
image = "picture"
[interactions]
source = "events"
user_id = "user"
item_id = "item"
ts = "at"
[split]
kind = "leave_one_out"
{encoder}
[encoders.image]
[encoders.behaviour]
dim = 8
min_count = 1
[encoders.fusion.{modality}]
dim = 24
[encoders.fusion.image]
dim = 8
[encoders.fusion.behaviour]
dim = 8
[tokenizer]
widths = [16, 16, 32]
"""
TEXT = '[encoders.text]\nprecision = "float32"'
GIVEN = '[encoders.precomputed.given]\npath = "given.parquet"'
WORDS = ("red", "blue", "green", "white", "hanging", "paper", "wooden", "glass", "small", "large", "vintage", "striped")
THINGS = ("mug", "lamp", "candle", "bag", "clock", "card", "plate", "frame", "box", "bell")


def write_catalogue(folder: Path, num_items: int, *, given: bool) -> None:
    """Write sources and recipe of `num_items` items and ten times as many events into `folder`."""
    import numpy as np
    import polars as pl
    from PIL import Image

    rng = np.random.default_rng(5)

    def picture(number: int) -> bytes:
        image = Image.new("RGB", (32, 32), tuple(int(value) for value in rng.integers(0, 256, 3)))
        image.paste((20, 30, 40), (number % 9, 4, 12 + number % 17, 25))
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()

    kinds = rng.integers(0, len(THINGS), num_items)
    words = rng.integers(0, len(WORDS), (num_items, 3))
    titles = [" ".join((*(WORDS[word] for word in row), THINGS[kind])) for row, kind in zip(words, kinds, strict=True)]
    frame = {
        "id": [f"I{number:06}" for number in range(num_items)],
        "title": [f"{title} no {number % 97}" for number, title in enumerate(titles)],
        "kind": [THINGS[kind] for kind in kinds],
        "picture": [picture(number) if number % 7 else None for number in range(num_items)],
    }
    pl.DataFrame(frame).write_parquet(folder / "items.parquet")
    items = np.minimum(rng.zipf(1.3, 10 * num_items), num_items) - 1
    users = rng.integers(0, max(4, num_items // 3), 10 * num_items)
    start, step = datetime(2024, 1, 1), timedelta(days=365) / (10 * num_items)  # a year, however many they are
    events = {
        "user": [f"u{user}" for user in users],
        "item": [f"I{item:06}" for item in items],
        "at": [start + number * step for number in range(10 * num_items)],
    }
    pl.DataFrame(events).write_parquet(folder / "events.parquet")
    vectors = rng.standard_normal((num_items, 48)).astype(np.float32)
    pl.DataFrame({"item_id": frame["id"], "vector": vectors}).write_parquet(folder / "given.parquet")
    recipe = RECIPE.format(encoder=GIVEN if given else TEXT, modality="given" if given else "text")
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")


def retrain(recipe: Path, warehouse: Path) -> dict[str, Any]:
    """Retrain into a new warehouse; return its content hash and a digest of the rows of each table that has an order."""
    from sidlake.pipelines.recipe import load_recipe
    from sidlake.pipelines.run import RunContext
    from sidlake.pipelines.steps import run_job
    from sidlake.warehouse.releases import get
    from sidlake.warehouse.tables import Warehouse

    lake = Warehouse.create_or_open(warehouse)
    run_job(RunContext.open(lake, load_recipe(recipe), run_id="run", job="retrain"), without=["report"])
    release = get(lake)
    return {
        "content_hash": release.content_hash,
        "tables": {name: _digest(lake, name, version) for name, version in release.tables.items()},
    }


def _digest(lake: Any, name: str, version: int) -> str:  # noqa: ANN401  a warehouse, imported by the process alone
    """Return a digest of a table's rows, whatever their order, without what says when or by which run."""
    frame = lake.scan(name, version=version).collect()
    frame = frame.select(column for column in frame.columns if not column.endswith(("_at", "run_id")))
    rows = sorted(hashlib.sha256(repr(row).encode()).digest() for row in frame.rows())
    return hashlib.sha256(b"".join(rows)).hexdigest()[:16]


def run_all(num_items: int, threads: list[int], instructions: list[str], *, given: bool = False) -> list[dict[str, Any]]:
    """Return a row for every number of threads and every instruction set; threads vary under the first of those alone."""
    runs = [(number, instructions[0]) for number in threads] + [(threads[-1], name) for name in instructions[1:]]
    with tempfile.TemporaryDirectory(prefix="same-hash-") as top:
        write_catalogue(Path(top), num_items, given=given)
        return [_in_process(Path(top), number, name) for number, name in runs]


def _in_process(top: Path, threads: int, instructions: str) -> dict[str, Any]:
    told = dict.fromkeys(THREADS, str(threads)) | INSTRUCTIONS[instructions]
    command = [sys.executable, __file__, "--one", str(top / "recipe.toml"), str(top / f"lake-{threads}-{instructions}")]
    begun = time.perf_counter()
    done = subprocess.run(command, env=os.environ | told, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{threads} threads, {instructions}: {done.stderr[-2000:]}")
    row = {"threads": threads, "instructions": instructions, "seconds": round(time.perf_counter() - begun, 1)}
    return row | json.loads(done.stdout.splitlines()[-1])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return whether threads and instruction sets gave one content hash, and which tables differ."""
    first = rows[0]["instructions"]
    by_threads = {row["content_hash"] for row in rows if row["instructions"] == first}
    tables = {name for row in rows for name in row["tables"]}
    differing = sorted(name for name in tables if len({row["tables"].get(name) for row in rows}) > 1)
    return {
        "equal_threads": len(by_threads) == 1,
        "equal_instructions": len({row["content_hash"] for row in rows}) == 1,
        "differing": differing,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--instructions", nargs="+", default=["native", "avx2"], choices=list(INSTRUCTIONS))
    parser.add_argument("--given", action="store_true", help="vectors from a table instead of a text model")
    parser.add_argument("--one", nargs=2, type=Path, metavar=("RECIPE", "WAREHOUSE"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(retrain(*given.one)))
        return 0
    rows = run_all(given.items, given.threads, given.instructions, given=given.given)
    result = summary(rows) | {"items": given.items, "runs": rows, "machine": machine("numpy", "torch", "polars", "numba")}
    print(json.dumps(result, indent=1) if given.json else _told(result))
    return 0 if result["equal_threads"] else 1


def _told(result: dict[str, Any]) -> str:
    lines = [
        f"{row['threads']} threads, {row['instructions']:<8}{row['content_hash'][:16]} {row['seconds']} s" for row in result["runs"]
    ]
    return "\n".join(
        [
            *lines,
            f"one hash by threads: {result['equal_threads']}; by instructions: {result['equal_instructions']}",
            f"differing: {result['differing']}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
