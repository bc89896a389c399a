"""Which precision a text model should run in on this machine: measured once, recorded, then reused.

bfloat16 is three times as fast where the CPU has AMX, and slower than float32 where it does not. So both are timed on the same
fixed texts, and the reduced precision wins only if it is clearly faster and its vectors point the same way. A warehouse resolves
``auto`` once and keeps the result: a new measurement on another day must not change the encoder.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sidlake.encoders.text.model import Precision, TextModel

__all__ = ["MIN_COSINE", "MIN_RATIO", "Calibration", "choose_precision", "measure_precision"]

MIN_RATIO = 1.25
MIN_COSINE = 0.9999
_TOKENS_PER_BATCH = 512
_TIMED_RUNS = 2

# Product texts of several lengths and scripts. An empty text and one of unknown tokens alone are
# left out: they say little, and bfloat16 keeps them to 0.99988 only (all-MiniLM-L6-v2).
_TEXTS = [
    *["white hanging heart t-light holder", "SET OF 3 CAKE TINS PANTRY DESIGN", "RED", "12 pencils, small tube: woodland"],
    *["Hydrating face cream for dry skin, 50 ml, with shea butter and vitamin E, fragrance free.", "wireless mouse 2.4 GHz"],
    *["läderväska", "مصباح", "緑茶 100g", "USB-C → HDMI 4K@60Hz adapter, 1.5 m", "doormat", "ceramic mug"],
    *["A thriller about a lighthouse keeper who finds a letter. Paperback, 412 pages.", "paper chain kit 50's christmas"],
    *["regency cakestand 3 tier", "party bunting"],
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What was measured: the `precision` to use, `ratio` = float32 time / reduced time, and the smallest cosine between the two.

    `row_independent` says whether every fixed text kept all its bits when the order of the texts was reversed; it is about the
    chosen precision. False means that this machine's kernels break the promise of `fixed_batches`.
    """

    precision: Precision
    candidate: Precision
    ratio: float
    min_cosine: float
    row_independent: bool
    device: str


def choose_precision(candidate: Precision, *, ratio: float, min_cosine: float, on_cuda: bool) -> Precision:
    """Return `candidate` if its vectors agree and, on the CPU, it is at least `MIN_RATIO` times as fast; else ``"float32"``.

    >>> choose_precision("bfloat16", ratio=3.0, min_cosine=0.99995, on_cuda=False)
    'bfloat16'
    >>> choose_precision("bfloat16", ratio=1.1, min_cosine=0.99995, on_cuda=False)
    'float32'
    """
    agrees = min_cosine >= MIN_COSINE
    return candidate if agrees and (on_cuda or ratio >= MIN_RATIO) else "float32"


def measure_precision(folder: Path, *, device: str, max_length: int | None) -> Calibration:
    """Return the calibration of the model in `folder` on `device`; loads it twice, one after the other, and takes a few seconds.

    The ratio is a wall-clock time and not deterministic; the vectors and so `min_cosine` are.
    """
    candidate: Precision = "bfloat16" if device != "cuda" or torch.cuda.is_bf16_supported() else "float16"
    seconds, vectors, independent = _measure(TextModel.load(folder, device=device, max_length=max_length, precision="float32"))
    seconds_low, vectors_low, independent_low = _measure(
        TextModel.load(folder, device=device, max_length=max_length, precision=candidate)
    )
    cosine = np.sum(vectors * vectors_low, axis=1) / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(vectors_low, axis=1))
    ratio, min_cosine = seconds / seconds_low, float(np.nan_to_num(cosine, nan=-1.0).min())
    precision = choose_precision(candidate, ratio=ratio, min_cosine=min_cosine, on_cuda=device == "cuda")
    if not independent_low:
        precision = "float32"
    return Calibration(
        precision=precision,
        candidate=candidate,
        ratio=ratio,
        min_cosine=min_cosine,
        row_independent=independent if precision == "float32" else independent_low,
        device=device,
    )


def _measure(model: TextModel) -> tuple[float, NDArray[np.float32], bool]:
    """Return the best timed run in seconds, the vectors, and whether reversing the texts changed no bit."""
    tokens = model.tokenise(_TEXTS)
    reversed_vectors = model.vectors(tokens[::-1], tokens_per_batch=_TOKENS_PER_BATCH)  # also warms up
    best, vectors = float("inf"), reversed_vectors
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        vectors = model.vectors(tokens, tokens_per_batch=_TOKENS_PER_BATCH)
        best = min(best, time.perf_counter() - start)
    return best, vectors, bool(np.array_equal(vectors, reversed_vectors[::-1]))
