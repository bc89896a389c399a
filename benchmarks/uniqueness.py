"""How many items per second get a SID of their own, and how many are left without one.

    python benchmarks/uniqueness.py [--items N ...] [--runs R] [--json]

Timed: `assign_unique`, from raw codes, residual norms and item hashes to unique codes with the cost of every move; the fitted
centroids and the vectors lie in memory, and fetching the vectors of colliding items is part of it. Not timed: making the items,
fitting, encoding, hashing (all reported), and one small call before, in which loops are compiled. An item is unresolved when
another has its SID, by a count that shares nothing with what is measured.

Items come from a seeded mixture: 2,000 clusters of unequal size whose variance falls with the dimension (64 of them, turned into
the space), as that of embeddings does. The spread within a cluster decides how many collide: *clustered* is made for 10 to 20 %,
*crowded* for a third, with prefixes of more items than last-level codes. Widths leave about 80 SIDs per item, fewer than
`default_widths`, so that more collide. The speed depends on how many move, not only on how many there are: compare at equal shares.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from sidlake.tokenizers.item_hash import item_hashes
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig
from sidlake.tokenizers.uniqueness.reassign import Assignment, assign_unique

SIZES = (200_000, 2_000_000)
NUM_CLUSTERS = 2_000
NUM_FACTORS = 64
FIT_ROWS = 50_000
SEED = 0
BLOCK = 2**17


@dataclass(frozen=True, kw_only=True)
class Case:
    """Items to make unique: how many, in how many dimensions, by which codes, and how far apart in their clusters."""

    name: str
    items: int
    dimensions: int
    widths: tuple[int, ...]
    spread: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=SIZES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    measured = [measure(case, arguments.runs) for items in arguments.items for case in cases_of(items)]
    result = {
        "items_per_s": min(row["items_per_s"] for row in measured),
        "unresolved": max(row["unresolved"] for row in measured),
        "sizes": measured,
        "seed": SEED,
        "cores": len(os.sched_getaffinity(0)),
        "blas_threads": max((library["num_threads"] for library in threadpool_info()), default=1),
        "cpu": cpu_name(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("sidlake", "numpy")},
    }
    if arguments.json:
        print(json.dumps(result))
        return
    for row in measured:
        print(
            f"{row['items']:>9,} x {row['dimensions']}-d {row['name']:<9} {row['items_per_s']:>9,} items/s  "
            f"unresolved {row['unresolved']}  collided {row['colliding_share']:.1%}  moved {row['moved_share']:.1%}  "
            f"spilled {row['spilled']:,}"
        )


def cases_of(items: int) -> list[Case]:
    """Return the two mixtures for `items`: 384 dimensions up to half a million, 64 beyond, for the memory's sake."""
    width = max(2, 2 ** round(np.log2((80 * items) ** (1 / 3))))
    large = items > 500_000
    spreads = {"clustered": 0.8 if large else 0.65, "crowded": 0.6 if large else 0.5}
    return [
        Case(name=name, items=items, dimensions=64 if large else 384, widths=(width,) * 3, spread=spread)
        for name, spread in spreads.items()
    ]


def mixture(case: Case, seed: int = SEED) -> np.ndarray:
    """Return float32 x_ND, the same for the same case and seed."""
    rng = np.random.default_rng(seed)
    deviation = (np.arange(1, NUM_FACTORS + 1) ** -0.5).astype(np.float32)
    basis = np.linalg.qr(rng.normal(size=(case.dimensions, NUM_FACTORS)))[0].T.astype(np.float32) * deviation[:, None]
    centres = rng.normal(size=(NUM_CLUSTERS, NUM_FACTORS)).astype(np.float32)
    shares = np.arange(1, NUM_CLUSTERS + 1) ** -0.5
    x_ND = np.empty((case.items, case.dimensions), dtype=np.float32)
    for start in range(0, case.items, BLOCK):
        rows = min(BLOCK, case.items - start)
        cluster = rng.choice(NUM_CLUSTERS, size=rows, p=shares / shares.sum())
        noise = rng.standard_normal((rows, NUM_FACTORS), dtype=np.float32)
        np.matmul(centres[cluster] + np.float32(case.spread) * noise, basis, out=x_ND[start : start + rows])
    return x_ND


def measure(case: Case, runs: int) -> dict[str, Any]:
    """Return the case, what it cost, and what came out."""
    begin = time.perf_counter()
    x = mixture(case)
    made = time.perf_counter()
    config = ResidualKMeansConfig(widths=case.widths, max_iterations=5)
    model = ResidualKMeans.fit(x[:FIT_ROWS], config)
    fitted = time.perf_counter()
    codes, norms = model.encode_with_norms(x)
    encoded = time.perf_counter()
    hashes = item_hashes([str(row) for row in range(case.items)])
    hashed = time.perf_counter()

    def assign(some: slice) -> Assignment:
        return assign_unique(
            codes[some], norms[some], hashes[some], centroids=model.centroids, vectors_of=lambda rows: x[some][rows]
        )

    assign(slice(0, 10_000))
    seconds, cpu_seconds = [], []
    for _ in range(runs):
        start, cpu_start = time.perf_counter(), time.process_time()
        result = assign(slice(None))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {
        "name": case.name,
        "items": case.items,
        "dimensions": case.dimensions,
        "widths": case.widths,
        "spread": case.spread,
        "items_per_s": round(case.items / statistics.median(seconds)),
        "unresolved": sharing(result.codes_NL),
        "colliding_share": round(sharing(codes) / case.items, 4),
        "moved_share": round(float(result.moved_N.mean()), 4),
        "spilled": int(result.spilled_N.sum()),
        "seconds": [round(value, 3) for value in seconds],
        "cpu_seconds": [round(value, 3) for value in cpu_seconds],
        "make_s": round(made - begin, 1),
        "fit_s": round(fitted - made, 1),
        "encode_s": round(encoded - fitted, 1),
        "hash_s": round(hashed - encoded, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def sharing(codes_NL: np.ndarray) -> int:
    """Return how many items have a SID that another has too."""
    rows = np.ascontiguousarray(codes_NL)[np.lexsort(codes_NL.T)]
    same = (rows[1:] == rows[:-1]).all(axis=1)
    return int((np.append(same, False) | np.append(False, same)).sum())


def cpu_name() -> str:
    """Return the processor's name, or what the platform calls it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()
