"""What a GPU does for sidlake, in the order of what one wants to know first; each stage prints one JSON line as it ends.

    python benchmarks/gpu.py --minutes 12 [--out FOLDER]
    python benchmarks/gpu.py --minutes 5 --dry    # the same stages on a CPU, on a hundredth of the rows

Stages: `tests` (pytest -m gpu), `encode` (512 dimensions, 3×8192; vectors/s, the share of what bf16 products of the same shape
could give, measured beside it, and the share of rows whose codes equal the CPU's), `fit` (10 million rows, of which
`max_fit_rows` are sampled as ever), `text` (texts/s), `beauty` (the recommender's figures and seconds), `study` (as many models
of the metric study as fit). A stage's line is kept in ``FOLDER/STAGE.json`` ($OUT where it is set): a run that was cut off goes on
with the next stage. A stage with less than its share of time left, or without its data, says so in `left_out`; one that fails
says `error` and the rest goes on, exit code 1.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode import codebooks, vectors
from machine import machine

from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig

ROOT = Path(__file__).resolve().parent.parent
SHOP = ROOT / "data" / "online_retail.parquet"
DIM, LEVELS = 512, 3
CHECKED_ROWS = 4096

Found = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Run:
    """How large the stages are, where they compute and when all must be over (seconds of `time.monotonic`)."""

    dry: bool
    device: str
    out: Path
    deadline: float

    @property
    def width(self) -> int:
        """Return the codes of a level."""
        return 256 if self.dry else 8192

    @property
    def left_s(self) -> float:
        """Return the seconds left."""
        return self.deadline - time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=12.0, help="of the whole run")
    parser.add_argument("--dry", action="store_true", help="on the CPU, small")
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-out")))
    arguments = parser.parse_args()
    if not arguments.dry and not torch.cuda.is_available():
        parser.error("no CUDA device; --dry runs the same stages on the CPU")
    arguments.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * arguments.minutes
    run = Run(dry=arguments.dry, device="cpu" if arguments.dry else "cuda", out=arguments.out.resolve(), deadline=deadline)
    failed = False
    for name in arguments.only:
        line = stage(name, run)
        print(json.dumps(line), flush=True)
        failed |= "error" in line
    return int(failed)


def stage(name: str, run: Run) -> Found:
    """Return the line of a stage: as an earlier run of the same kind kept it, else measured now and kept unless it was left out."""
    kept = run.out / f"{name}.json"
    if kept.exists():
        line: Found = json.loads(kept.read_text(encoding="utf-8"))
        if line["dry"] == run.dry:
            return line | {"resumed": True}
    measure, least_s = STAGES[name]
    about = {"stage": name, "dry": run.dry, "device": _device_name(run)}
    if run.left_s < (1 if run.dry else least_s):
        return about | {"left_out": f"{max(run.left_s, 0):.0f} s left, it needs {least_s}"}
    begin = time.monotonic()
    try:
        found = measure(run)
    except Exception as error:
        return about | {"error": f"{type(error).__name__}: {error}"}
    line = about | found | {"stage_s": round(time.monotonic() - begin, 1), "machine": machine("torch", "numpy")}
    if not {"left_out", "error"} & found.keys():
        kept.write_text(json.dumps(line), encoding="utf-8")
    return line


def tests(run: Run) -> Found:
    """Return how many tests marked gpu passed and were skipped."""
    files = [str(path) for path in sorted((ROOT / "tests").glob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(run.left_s, 1), check=False)
    counts = {what: int(number) for number, what in re.findall(r"(\d+) (passed|skipped|failed|error)", done.stdout)}
    return counts if done.returncode == 0 else counts | {"error": done.stdout[-2000:] + done.stderr[-500:]}


def encode(run: Run) -> Found:
    """Return the speed of encoding, the limit of its products, and whether the device's codes are the CPU's."""
    rows, fit_rows = (16_384, 4_096) if run.dry else (1_048_576, 65_536)
    drawn = vectors(fit_rows + rows, DIM)
    x = drawn[fit_rows:]
    tokenizer = ResidualKMeans(*codebooks(drawn[:fit_rows], run.width), ResidualKMeansConfig(widths=(run.width,) * LEVELS))
    tokenizer.encode(x[:CHECKED_ROWS], device=run.device)
    codes, seconds = _timed(lambda: tokenizer.encode(x, device=run.device))
    limit_s = _products_s(rows, run)
    equal = (codes[:CHECKED_ROWS] == tokenizer.encode(x[:CHECKED_ROWS])).all(axis=1).mean()
    return {
        "rows": rows,
        "width": run.width,
        "vectors_per_s": round(rows / seconds),
        "bf16_limit_vectors_per_s": round(rows / limit_s),
        "share_of_limit": round(limit_s / seconds, 4),
        "equal_share": float(equal),
        "equal_rows": CHECKED_ROWS,
    }


def fit(run: Run) -> Found:
    """Return the seconds of a fit, and what is left of the rows' length behind it."""
    rows = 100_000 if run.dry else 10_000_000
    x = np.concatenate([_unit_rows(min(1_000_000, rows - start), seed=start) for start in range(0, rows, 1_000_000)])
    config = ResidualKMeansConfig(widths=(run.width,) * LEVELS, device=run.device, max_fit_rows=16_384 if run.dry else 262_144)
    model, seconds = _timed(lambda: ResidualKMeans.fit(x, config))
    some = x[:CHECKED_ROWS]
    residual = float(np.square(some - model.decode(model.encode(some, device=run.device))).sum() / np.square(some).sum())
    return {"rows": rows, "fit_rows": config.max_fit_rows, "width": run.width, "fit_s": round(seconds, 2), "residual": residual}


def text(run: Run) -> Found:
    """Return the speed of embedding the shop's item descriptions, each once."""
    import polars as pl

    from sidlake.encoders.text.encoder import TextEncoder, TextEncoderConfig

    if not SHOP.exists():
        return {"left_out": f"{SHOP.name} is not there; data/README.md says where it comes from"}
    texts = pl.read_parquet(SHOP, columns=["Description"])["Description"].drop_nulls().unique().sort().to_list()
    texts = texts[:256] if run.dry else texts
    encoder = TextEncoder.load(TextEncoderConfig(device="cpu" if run.dry else "cuda"))
    encoder.encode(texts[:32])
    _, seconds = _timed(lambda: encoder.encode(texts))
    return {"texts": len(texts), "texts_per_s": round(len(texts) / seconds)}


def beauty(run: Run) -> Found:
    """Return the recommender's figures on Amazon Beauty, both judges."""
    minutes = f"{max(run.left_s / 60 * 0.6, 0.1):.2f}"
    folder = run.out / "lake"
    begin = time.monotonic()
    rows = _printed(run, "recommend.py", "--data", "beauty", "--minutes", minutes, "--warehouse", str(folder), "--json", share=0.8)
    if not rows:
        return {"left_out": "Beauty's files are absent; data/README.md says where to put them"}
    return {"figures": rows, "seconds": round(time.monotonic() - begin, 1)}


def study(run: Run) -> Found:
    """Return what the metric study prints after as many models as fit."""
    if not (ROOT / "benchmarks" / "metric_study.py").exists():
        return {"left_out": "benchmarks/metric_study.py is not in this checkout"}
    minutes = f"{max(run.left_s / 60 - 0.5, 0.1):.2f}"
    keep = ("--warehouse", str(run.out / "lake"), "--keep", str(run.out / "study"))
    return {"figures": _printed(run, "metric_study.py", "--minutes", minutes, *keep, "--json")}


STAGES: dict[str, tuple[Callable[[Run], Found], float]] = {
    "tests": (tests, 30),
    "encode": (encode, 30),
    "fit": (fit, 60),
    "text": (text, 20),
    "beauty": (beauty, 90),
    "study": (study, 60),
}
"""By name: what measures it, and the seconds without which it is not begun."""


def _printed(run: Run, script: str, *arguments: str, share: float = 1.0) -> object:
    """Return the JSON that a script of this folder prints; it is ended after `share` of the time left."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(share * run.left_s, 1), check=False)
    if done.returncode:
        msg = f"{script} ended with {done.returncode}: {done.stderr[-1500:]}"
        raise RuntimeError(msg)
    return json.loads(done.stdout)


def _products_s(rows: int, run: Run) -> float:
    """Return the seconds of the products of encoding `rows` rows in bfloat16 and nothing else, in blocks of 65,536."""
    block = torch.randn((min(rows, 65_536), DIM), device=run.device, dtype=torch.bfloat16)
    book = torch.randn((DIM, run.width), device=run.device, dtype=torch.bfloat16)
    block @ book

    def all_products() -> None:
        for _ in range(LEVELS * -(-rows // len(block))):
            block @ book
        if run.device == "cuda":
            torch.cuda.synchronize()

    return _timed(all_products)[1]


def _unit_rows(rows: int, *, seed: int) -> np.ndarray:
    """Return float32 unit rows around 2,000 centres, other rows by `seed`, the same centres."""
    centres = np.random.default_rng(0).standard_normal((2000, DIM), dtype=np.float32)
    rng = np.random.default_rng([1, seed])
    x = rng.standard_normal((rows, DIM), dtype=np.float32)
    x += centres[rng.integers(0, len(centres), rows)]
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = call()
    return result, time.perf_counter() - begin


def _device_name(run: Run) -> str:
    return torch.cuda.get_device_name() if run.device == "cuda" else "cpu"


if __name__ == "__main__":
    sys.exit(main())
