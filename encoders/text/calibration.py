"""Which precision a text model should run in on this machine: by what its processor can do, never by a clock.

bfloat16 is three times as fast where the CPU has AMX, and slower than float32 where it does not; on GPUs it is faster. A stopwatch
said so too, but answered otherwise under load, and methods were then compared on different vectors. So the instruction set
proposes a precision, and it is taken if its vectors of fixed texts point the same way as those of float32. The answer is the same
each time on one kind of machine, stands in the encoder's id, and a warehouse keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sidlake.encoders.text.model import KernelChoice, Precision, TextModel

__all__ = ["MIN_COSINE", "Calibration", "choose_precision", "reduced_precision"]

MIN_COSINE = 0.9999
_TOKENS_PER_BATCH = 512

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
    """The `precision` to use, the `candidate` that this device's instructions propose, and the smallest cosine between the two.

    `row_independent` says whether every fixed text kept all its bits when the order of the texts was reversed; it is about the
    chosen precision. False means that this machine's kernels break the promise of `fixed_batches`.
    """

    precision: Precision
    candidate: Precision
    min_cosine: float
    row_independent: bool
    device: str


def reduced_precision(device: str) -> Precision:
    """Return the precision that `device` multiplies matrices in faster than in float32, ``"float32"`` where there is none.

    On a CPU that is bfloat16 with AMX, and nothing without: AVX-512's bfloat16 is slower than float32 here.
    """
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "bfloat16" if torch.cpu.get_capabilities().get("amx_bf16", False) else "float32"


def choose_precision(folder: Path, *, device: str, max_length: int | None, kernel: KernelChoice = "auto") -> Calibration:
    """Return the calibration of the model in `folder` on `device`; deterministic. It loads the model, twice where two are compared.

    A reduced precision is refused where a vector's cosine with that of float32 is below `MIN_COSINE`, or where it depends on the
    other rows.
    """
    candidate = reduced_precision(device)
    vectors, independent = _vectors(
        TextModel.load(folder, device=device, max_length=max_length, precision="float32", kernel=kernel)
    )
    chosen: Precision = "float32"
    min_cosine = 1.0
    if candidate != "float32":
        low, independent_low = _vectors(
            TextModel.load(folder, device=device, max_length=max_length, precision=candidate, kernel=kernel)
        )
        cosine = np.sum(vectors * low, axis=1) / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(low, axis=1))
        min_cosine = float(np.nan_to_num(cosine, nan=-1.0).min())
        if min_cosine >= MIN_COSINE and independent_low:
            chosen, independent = candidate, independent_low
    return Calibration(precision=chosen, candidate=candidate, min_cosine=min_cosine, row_independent=independent, device=device)


def _vectors(model: TextModel) -> tuple[NDArray[np.float32], bool]:
    """Return the vectors of the fixed texts, and whether reversing the texts changes no bit."""
    tokens = model.tokenise(_TEXTS)
    reversed_vectors = model.vectors(tokens[::-1], tokens_per_batch=_TOKENS_PER_BATCH)
    vectors = model.vectors(tokens, tokens_per_batch=_TOKENS_PER_BATCH)
    return vectors, bool(np.array_equal(vectors, reversed_vectors[::-1]))
