"""Small pictures for an asset's page, drawn without a display and stored inline in its metadata (about 15 kB each)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["code_usage"]


def code_usage(title: str, counts: Sequence[npt.NDArray[np.int64]]) -> dg.MetadataValue:
    """Return a picture of how many items each code of each level has, most used first; a flat line is even use.

    `counts` holds one array per level, with one entry per code.
    """
    from matplotlib.figure import Figure  # takes a second to import, and definitions are loaded by many processes

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots(1, len(counts), squeeze=False)[0]
    for level, (axis, counts_K) in enumerate(zip(axes, counts, strict=True)):
        axis.fill_between(np.arange(len(counts_K)), np.sort(counts_K)[::-1], step="post", color="#4f6bed")
        used = int(np.count_nonzero(counts_K))
        axis.set_title(f"level {level}: {used} of {len(counts_K)} codes used", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("items", fontsize=8)
    figure.suptitle(title, fontsize=9)
    return _inline(figure, title)


def _inline(figure: Figure, title: str) -> dg.MetadataValue:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()})")
