"""Fitting residual k-means against three faiss k-means runs, one after the other on what is left, same rows, same cores.

    python benchmarks/fit.py [--json] [--rows 65536] [--repeats 3]

faiss.Kmeans runs 20 iterations per level from its default start, on all rows. `residual_ratio` is our mean squared residual
after three levels divided by faiss's; `memory_mb` is the peak of our fit above the process before it, less one copy of the sample.
Exit code 1 where the residual is above 1.005 times faiss's.
"""

import argparse
import json
import sys
import threading
import time

import faiss
import numpy as np
import psutil
import torch  # noqa: F401  loaded, so that both sides run their fastest product
from encode import SEED, vectors
from machine import in_turns, machine, ratio

from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig

DIM, WIDTH, LEVELS, ITERATIONS = 384, 256, 3, 20
WORST = 1.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    x = vectors(arguments.rows, DIM)
    ours(x[:4096])  # what is compiled and loaded at the first use is not the fit's
    peak = Peak()
    with peak:
        model = ours(x)
    seconds = in_turns({"faiss": lambda: theirs(x), "ours": lambda: ours(x)}, repeats=arguments.repeats)
    result = {
        "ratio_faiss": round(1 / ratio(seconds, "faiss", "ours"), 3),
        "residual_ratio": round(float(np.square(x - model.decode(model.encode(x))).sum() / np.square(theirs(x)).sum()), 5),
        "memory_mb": round((peak.bytes - x.nbytes) / 1e6),
        "sample_mb": round(x.nbytes / 1e6),
        "ours_s": round(min(seconds["ours"]), 2),
        "faiss_s": round(min(seconds["faiss"]), 2),
        "rows": len(x),
        "dim": DIM,
        "widths": [WIDTH] * LEVELS,
        "seed": SEED,
        "machine": machine("faiss-cpu", "numba", "numpy", "torch"),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(
            f"{len(x):,} x {DIM}, 3 x {WIDTH}: ours {result['ours_s']} s, faiss {result['faiss_s']} s, {result['ratio_faiss']} "
            f"of its time, {result['residual_ratio']} of its residual, {result['memory_mb']} MB beside the sample"
        )
    if result["residual_ratio"] > WORST:
        sys.exit(1)


def ours(x: np.ndarray) -> ResidualKMeans:
    return ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(WIDTH,) * LEVELS))


def theirs(x: np.ndarray) -> np.ndarray:
    """Return what three faiss k-means leave of the rows."""
    residual = x
    for level in range(LEVELS):
        kmeans = faiss.Kmeans(x.shape[1], WIDTH, niter=ITERATIONS, seed=SEED + level, max_points_per_centroid=len(x))
        kmeans.train(residual)
        _, codes = kmeans.index.search(residual, 1)
        residual = residual - kmeans.centroids[codes[:, 0]]
    return residual


class Peak:
    """Watches this process's memory from a thread: the most above the start."""

    def __enter__(self) -> "Peak":
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self.bytes, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)
            time.sleep(0.005)


if __name__ == "__main__":
    main()
