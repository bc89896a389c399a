"""What the quality metrics cost: seconds and peak memory of all but the hit rate on a large table, and of the hit rate.

    python benchmarks/metrics_cost.py [--json] [--items N] [--levels L] [--gallery N] [--queries Q] [--approximate]

*codes*: raw codes, final codes, the former release's codes and a category per item, streamed from a Parquet file; a pair of
consecutive items per item; the vectors of a sample of items for what needs vectors (their reconstruction errors, neighbourhoods,
rank correlation). Counted: reading, counting, sorting, everything in `quality` but hit rates. *hit_rate*: EHR@30, exact, of
`--queries` sessions with one item each, over a gallery in a memory-mapped file.

Each runs in a process of its own, whose peak resident memory is the figure; `peak_anonymous_gib` leaves out pages of the mapped
gallery, which the system drops when it needs them; `cpu_seconds` counts all threads since the process began, and far fewer of
them than seconds and cores say that the machine was busy elsewhere. The files are made in a temporary folder, by yet another
process, not timed. Codes are drawn, not fitted: levels of 256 codes used unevenly, a tenth of the items on a SID that another
has.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from machine import machine

from sidlake.quality.metrics.approximate import IVF, ApproximateSearch, recall
from sidlake.quality.metrics.categories import category_match
from sidlake.quality.metrics.churn import ChurnCounter, CodeOverlap
from sidlake.quality.metrics.code_use import CodeCounter
from sidlake.quality.metrics.consecutive import consecutive_share
from sidlake.quality.metrics.fidelity import ReconstructionError
from sidlake.quality.metrics.hit_rate import embedding_hit_rate
from sidlake.quality.metrics.neighbourhoods import near_pairs, neighbourhood_preservation, prefix_spearman, random_pairs
from sidlake.quality.metrics.neighbours import ExactSearch
from sidlake.quality.metrics.sessions import Sessions
from sidlake.quality.metrics.uniqueness_cost import uniqueness_cost

WIDTH = 256
BATCH = 2**19
NUM_CATEGORIES = 500
SAMPLED_ITEMS = 100_000
DIMENSIONS = 64
GALLERY_DIMENSIONS = 512
COLUMNS = ("raw_codes", "codes", "former_codes")
SEED = 0
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--items", type=int, default=10_000_000)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--gallery", type=int, default=500_000)
    parser.add_argument("--queries", type=int, default=5_000)
    parser.add_argument("--approximate", action="store_true", help="also search the gallery by faiss IVF")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(STEPS[arguments.step](arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        steps = ["write_codes", "codes", "write_gallery", "hit_rate", *(["approximate"] if arguments.approximate else [])]
        found = {step: in_process(step, arguments, Path(folder)) for step in steps if size_of(step, arguments)}
    result = {step: row for step, row in found.items() if not step.startswith("write")}
    result |= {"machine": machine("numpy", "pyarrow", "scipy")}
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    for step in result:
        if step != "machine":
            row = result[step]
            print(f"{step}: {row['seconds']:.1f} s, peak {row['peak_rss_gib']:.2f} GiB; {row}")


def size_of(step: str, arguments: argparse.Namespace) -> int:
    """Return how many items the step is about; 0 leaves it out."""
    return int(arguments.items if step in ("write_codes", "codes") else arguments.gallery)


def in_process(step: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return what the step reports from a process of its own."""
    sizes = [f"--{name}={getattr(arguments, name)}" for name in ("items", "levels", "gallery", "queries")]
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), *sizes]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write_codes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the Parquet file batch by batch, and the sample's vectors with their reconstructions."""
    rng = np.random.default_rng(SEED)
    shares = 1.0 / np.arange(1, WIDTH + 1) ** 0.5
    cumulated = np.cumsum(shares / shares.sum())
    renamed_LK = np.stack([rng.permutation(WIDTH) for _ in range(arguments.levels)]).astype(np.int32)
    schema = pa.schema([(name, pa.list_(pa.int32())) for name in COLUMNS] + [("category", pa.int32()), ("next_row", pa.int64())])
    with pq.ParquetWriter(arguments.folder / "codes.parquet", schema) as writer:
        for start in range(0, arguments.items, BATCH):
            num = min(BATCH, arguments.items - start)
            raw_NL = np.searchsorted(cumulated, rng.random((num, arguments.levels))).clip(max=WIDTH - 1).astype(np.int32)
            raw_NL[: num // 20] = raw_NL[num // 20 : num // 20 * 2]  # a tenth shares its SID
            codes_NL, former_NL = raw_NL.copy(), raw_NL.copy()
            codes_NL[: num // 20, -1] = (codes_NL[: num // 20, -1] + rng.integers(1, 9, num // 20)) % WIDTH
            again = rng.random(num) < 0.1
            former_NL[again, -1] = rng.integers(0, WIDTH, int(again.sum()))
            for level in range(arguments.levels):
                former_NL[:, level] = renamed_LK[level, former_NL[:, level]]
            lists = [as_lists(codes) for codes in (raw_NL, codes_NL, former_NL)]
            category = (raw_NL[:, 0] + rng.integers(0, 3, num)) % NUM_CATEGORIES
            next_row = rng.integers(0, arguments.items, num)
            writer.write_table(pa.table([*lists, pa.array(category, pa.int32()), pa.array(next_row)], schema=schema), BATCH)
    books_LKD = rng.normal(size=(arguments.levels, WIDTH, DIMENSIONS)) / 2.0 ** np.arange(arguments.levels)[:, None, None]
    np.save(arguments.folder / "books.npy", books_LKD.astype(np.float32))
    return {}


def as_lists(codes_NL: np.ndarray) -> pa.Array:
    offsets = np.arange(0, codes_NL.size + 1, codes_NL.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, codes_NL.reshape(-1))


def batches(folder: Path, *columns: str) -> Iterator[list[np.ndarray]]:
    """Yield the columns of the file batch by batch, codes as (N, L)."""
    with pq.ParquetFile(folder / "codes.parquet") as file:
        for batch in file.iter_batches(BATCH, columns=list(columns)):
            yield [as_array(batch.column(name), len(batch)) for name in columns]


def as_array(column: pa.Array, num_rows: int) -> np.ndarray:
    return column.flatten().to_numpy().reshape(num_rows, -1) if pa.types.is_list(column.type) else column.to_numpy()


def measure_codes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the cost of everything but hit rates, and a few of the values, so that nobody can say they were not computed."""
    folder, widths = arguments.folder, (WIDTH,) * arguments.levels
    took: dict[str, float] = {}
    begin = time.perf_counter()
    raw, final, overlap = CodeCounter(widths), CodeCounter(widths), CodeOverlap(widths, widths)
    moved, first = [], None
    for raw_NL, codes_NL, former_NL in batches(folder, *COLUMNS):
        raw.update(raw_NL)
        final.update(codes_NL)
        overlap.update(former_NL, codes_NL)
        first = (raw_NL[:SAMPLED_ITEMS].copy(), codes_NL[:SAMPLED_ITEMS].copy()) if first is None else first
        moved.append(np.count_nonzero((raw_NL != codes_NL).any(axis=1)))
    assert first is not None
    raw_use, final_use = raw.finalize(), final.finalize()
    del raw, final
    took["use_tree_collisions_s"] = lap(begin, took)
    counter = ChurnCounter(overlap.best_relabelling())
    for codes_NL, former_NL in batches(folder, "codes", "former_codes"):
        counter.update(former_NL, codes_NL)
    churn = counter.finalize()
    took["churn_s"] = lap(begin, took)
    codes_NL, category_N, next_N = columns_of(folder, arguments)
    matches = category_match(codes_NL, widths, category_N)
    took["categories_s"] = lap(begin, took)
    shares = consecutive_share(codes_NL, widths, np.stack([np.arange(len(codes_NL)), next_N], axis=1))
    took["consecutive_s"] = lap(begin, took)
    vectors = measure_sample(folder, *first)
    took["sample_s"] = lap(begin, took)
    return (
        cost(begin)
        | {
            "items": arguments.items,
            "levels": arguments.levels,
            **{name: round(value, 2) for name, value in took.items()},
            "raw_unique": raw_use.collisions.num_unique,
            "final_unique": final_use.collisions.num_unique,
            "moved": int(sum(moved)),
            "prefix_gini": [round(prefix.gini, 4) for prefix in final_use.prefixes],
            "conditional_entropy": [round(prefix.conditional_entropy, 4) for prefix in raw_use.prefixes],
            "code_churn": [round(level.changed, 4) for level in churn],
            "code_churn_relabelled": [round(level.changed_relabelled, 4) for level in churn],
            "category_nmi": [round(match.nmi, 4) for match in matches],
            "consecutive_share": [round(share.share, 5) for share in shares],
        }
        | {name: round(value, 4) for name, value in vectors.items()}
    )


def lap(begin: float, took: dict[str, float]) -> float:
    return time.perf_counter() - begin - sum(took.values())


def columns_of(folder: Path, arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns that need all items at once, a byte per code, read batch by batch."""
    codes_NL = np.empty((arguments.items, arguments.levels), dtype=np.uint8)
    category_N, next_N = np.empty(arguments.items, dtype=np.int32), np.empty(arguments.items, dtype=np.int32)
    start = 0
    for codes, category, next_row in batches(folder, "codes", "category", "next_row"):
        some = slice(start, start + len(codes))
        codes_NL[some], category_N[some], next_N[some] = codes, category, next_row
        start += len(codes)
    return codes_NL, category_N, next_N


def measure_sample(folder: Path, raw_NL: np.ndarray, codes_NL: np.ndarray) -> dict[str, float]:
    """Return what needs vectors, on the first items: reconstructions of their codes, and vectors scattered around the raw ones."""
    books_LKD = np.load(folder / "books.npy")

    def decode(codes: np.ndarray, depth: int) -> np.ndarray:
        return np.sum([books_LKD[level][codes[:, level]] for level in range(depth)], axis=0)

    levels = raw_NL.shape[1]
    x_ND = decode(raw_NL, levels)
    x_ND = (x_ND + 0.05 * np.random.default_rng(SEED).standard_normal(x_ND.shape)).astype(np.float32)
    final_ND = decode(codes_NL, levels)
    errors = ReconstructionError(levels + 1)
    errors.update(x_ND, [*(decode(raw_NL, depth) for depth in range(1, levels + 1)), final_ND])
    moved_N = (raw_NL != codes_NL).any(axis=1)
    before_N, after_N = (np.linalg.norm(x_ND - decode(codes, levels), axis=1)[moved_N] for codes in (raw_NL, codes_NL))
    price = uniqueness_cost(raw_NL, codes_NL, after_N - before_N)
    kept = neighbourhood_preservation(x_ND, final_ND)
    return {
        "sampled_items": len(x_ND),
        "relative_reconstruction_error": errors.finalize()[-1],
        "mean_move_cost": price.mean_cost,
        "neighbourhood_jaccard": kept.jaccard,
        "neighbourhood_rbo": kept.rank_biased_overlap,
        "prefix_spearman": prefix_spearman(x_ND, codes_NL, random_pairs(len(x_ND), 100_000)),
        "prefix_spearman_near": prefix_spearman(x_ND, codes_NL, near_pairs(x_ND)),
    }


def write_gallery(arguments: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(SEED)
    centres = rng.standard_normal((2000, GALLERY_DIMENSIONS), dtype=np.float32)
    shape = (arguments.gallery, GALLERY_DIMENSIONS)
    gallery_ND = np.lib.format.open_memmap(arguments.folder / "gallery.npy", mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, len(gallery_ND), 2**15):
        rows = slice(start, min(start + 2**15, len(gallery_ND)))
        noise = rng.standard_normal((rows.stop - start, GALLERY_DIMENSIONS), dtype=np.float32)
        gallery_ND[rows] = centres[rng.integers(0, len(centres), rows.stop - start)] + noise
    return {}


def gallery_of(arguments: argparse.Namespace) -> tuple[np.ndarray, Sessions]:
    gallery_ND = np.load(arguments.folder / "gallery.npy", mmap_mode="r")
    rng = np.random.default_rng(SEED + 1)
    items = rng.choice(len(gallery_ND), arguments.queries, replace=False).astype(np.int64)
    targets = rng.integers(0, len(gallery_ND), arguments.queries)
    return gallery_ND, Sessions(items_flat=items, offsets=np.arange(arguments.queries + 1), targets=targets)


def measure_hit_rate(arguments: argparse.Namespace) -> dict[str, Any]:
    gallery_ND, sessions = gallery_of(arguments)
    begin = time.perf_counter()
    with AnonymousPeak() as peak:
        rate = embedding_hit_rate(gallery_ND, sessions)
    sizes = {"gallery": arguments.gallery, "queries": arguments.queries, "dimensions": GALLERY_DIMENSIONS, "k": rate.k}
    return cost(begin) | {"peak_anonymous_gib": round(peak.gib, 3)} | sizes | {"value": rate.value, "floor": rate.random_floor}


def measure_approximate(arguments: argparse.Namespace) -> dict[str, Any]:
    gallery_ND, sessions = gallery_of(arguments)
    begin = time.perf_counter()
    search = ApproximateSearch(gallery_ND, IVF(num_probes=64))
    found, _ = search.nearest(sessions.items_flat, 30)
    figures = cost(begin)
    some = sessions.items_flat[:200]
    return figures | {"recall_of_200_queries": recall(ExactSearch(gallery_ND).nearest(some, 30)[0], found[:200])}


def cost(begin: float) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    return {
        "seconds": round(time.perf_counter() - begin, 2),
        "cpu_seconds": round(time.process_time(), 2),
        "peak_rss_gib": round(peak, 3),
    }


class AnonymousPeak:
    """The most memory held that is not pages of a file, looked at twenty times a second; 0 where the system does not tell."""

    def __enter__(self) -> "AnonymousPeak":
        self.gib, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists() and not self._done.wait(0.05):
            lines = status.read_text(encoding="ascii").splitlines()
            self.gib = max([self.gib, *(int(line.split()[1]) * 1024 / GIB for line in lines if line.startswith("RssAnon"))])


STEPS = {
    "write_codes": write_codes,
    "codes": measure_codes,
    "write_gallery": write_gallery,
    "hit_rate": measure_hit_rate,
    "approximate": measure_approximate,
}


if __name__ == "__main__":
    main()
