"""The report's charts as inline SVG, drawn by matplotlib without a display: the same numbers give the same bytes.

Charts are five inches wide, so that a telephone shows them whole with text of a readable size. Text stays text (searchable, in the
page's font); element ids come from a fixed salt, and no date is written. Margins are given in inches: matplotlib's layout engines
draw a chart again and again to find them, which was half of the report's time. Not done here: the small histories beside each
metric, which the page draws itself.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

__all__ = ["Rate", "collision_chart", "hit_rate_chart", "level_heat_map"]

_WIDTH = 5.0  # inches: 480 pixels on a page
_CELLS = 128  # columns of a heat map: wider levels put several codes in one
_BEFORE, _AFTER, _GREY, _FLOOR = "#c2410c", "#1d4ed8", "#6b7280", "#4b5563"
_SIZES = ("1", "2", "3", "4", "5-9", "10-19", "20+")
_BOUNDS = (1, 2, 3, 4, 5, 10, 20, np.inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A bar: a rate in [0, 1], or None for a gap, and half the width of its interval."""

    label: str
    value: float | None
    half_width: float = 0.0


def level_heat_map(counts: Sequence[npt.NDArray[np.int64]]) -> Markup:
    """Return a row per level and a cell per code, darker where more items use it, white where none does; codes by use."""
    figure = _figure(0.55 * len(counts), left=0.65, right=0.95, top=0.25, bottom=0.1, hspace=1.0)
    rows = [_binned(np.sort(counts_K)[::-1]) for counts_K in counts]
    norm = LogNorm(vmin=1, vmax=max(2.0, *(float(row.max()) for row in rows)))
    blues = LinearSegmentedColormap.from_list("use", mpl.colormaps["Blues"](np.linspace(0.2, 1.0, 256)))  # no use alone is white
    axes = figure.subplots(len(counts), 1, squeeze=False)[:, 0]
    for level, (axis, row) in enumerate(zip(axes, rows, strict=True)):
        image = axis.imshow(np.ma.masked_equal(row[None, :], 0), aspect="auto", cmap=blues, norm=norm, interpolation="nearest")
        axis.set_yticks([0], [f"level {level}"])
        axis.set_xticks([])
        axis.spines[:].set_visible(True)
        used, width, most = int(np.count_nonzero(counts[level])), len(counts[level]), int(counts[level].max())
        axis.set_title(f"{used:,} of {width:,} codes used, the fullest by {most:,} items", loc="left", size=9)
    height = figure.get_figheight()
    place = figure.add_axes((1 - 0.85 / _WIDTH, 0.1 / height, 0.12 / _WIDTH, 1 - 0.35 / height))
    bar = figure.colorbar(image, cax=place, label="items per code")
    bar.ax.minorticks_off()
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return _svg(figure, "Use of the codes of each level")


def _binned(counts_K: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the mean use of at most `_CELLS` neighbouring groups of codes."""
    parts = np.array_split(counts_K, min(len(counts_K), _CELLS))
    return np.array([part.mean() for part in parts], dtype=np.float64)


def collision_chart(before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]]) -> Markup:
    """Return how many items share their SID with how many, before uniqueness and after; pairs are (items of a SID, SIDs)."""
    figure = _figure(2.0, left=0.75, bottom=0.5)
    axis = figure.subplots()
    for shift, (label, colour, groups) in enumerate((("nearest SIDs", _BEFORE, before), ("published SIDs", _AFTER, after))):
        items = [sum(size * num for size, num in groups if low <= size < high) for low, high in itertools.pairwise(_BOUNDS)]
        bars = axis.bar(np.arange(len(_SIZES)) + (shift - 0.5) * 0.42, items, 0.42, label=label, color=colour)
        axis.bar_label(bars, labels=[_short(count) if count else "" for count in items], fontsize=8)
    axis.set_xticks(np.arange(len(_SIZES)), _SIZES)
    axis.set_xlabel("items on one SID")
    axis.set_ylabel("items")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.margins(y=0.12)
    axis.legend(frameon=False, loc="upper right")
    return _svg(figure, "Items by how many share their SID, before and after uniqueness")


def _short(count: float) -> str:
    """Return a count in at most six characters."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**4, "k")):
        if count >= size:
            return f"{count / (1000 if letter == 'k' else size):.3g}{letter}"
    return f"{count:,.0f}"


def hit_rate_chart(series: Mapping[str, Sequence[Rate]], *, floor: float | None = None) -> Markup:
    """Return bars of rates, the series side by side; a missing rate leaves a gap, `floor` is a dashed line."""
    legend = len(series) > 1 or floor is not None
    lines = 1 + max(rate.label.count("\n") for rate in next(iter(series.values())))
    figure = _figure(2.0, left=0.65, top=0.3 if legend else 0.1, bottom=0.15 + 0.17 * lines)
    axis = figure.subplots()
    width = 0.84 / len(series)
    for place, (name, rates) in enumerate(series.items()):
        at = np.arange(len(rates)) + (place - (len(series) - 1) / 2) * width
        _bars(axis, at, width, name if len(series) > 1 else "_nolegend_", rates, (_GREY, _AFTER, _BEFORE)[place % 3])
    labels = [rate.label for rate in next(iter(series.values()))]
    if floor is not None:
        axis.axhline(floor, color=_FLOOR, linestyle="--", linewidth=1, label=f"by chance: {floor:.1%}")
    axis.set_xticks(np.arange(len(labels)), labels, fontsize=9)
    axis.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axis.set_ylabel("hit rate")
    axis.margins(y=0.2)
    axis.set_ylim(bottom=0)
    if legend:
        figure.legend(*axis.get_legend_handles_labels(), frameon=False, ncols=2, loc="upper center", borderaxespad=0, fontsize=9)
    return _svg(figure, "Embedding hit rates")


def _bars(axis: Axes, at: npt.NDArray[np.floating], width: float, name: str, rates: Sequence[Rate], colour: str) -> None:
    errors = [rate.half_width for rate in rates] if any(rate.half_width for rate in rates) else None
    heights = [rate.value or 0.0 for rate in rates]
    bars = axis.bar(at, heights, width, label=name, color=colour, yerr=errors, capsize=3, ecolor="#111827")
    axis.bar_label(bars, labels=["" if rate.value is None else f"{rate.value:.1%}" for rate in rates], fontsize=8, padding=2)


def _figure(
    inner: float, *, left: float, bottom: float, top: float = 0.1, right: float = 0.1, hspace: float | None = None
) -> Figure:
    """Return a figure whose axes are `inner` inches high, with these margins in inches."""
    height = inner + top + bottom
    figure = Figure(figsize=(_WIDTH, height))
    edges = {"left": left / _WIDTH, "right": 1 - right / _WIDTH, "bottom": bottom / height, "top": 1 - top / height}
    figure.subplots_adjust(**edges, hspace=hspace)
    return figure


def _svg(figure: Figure, about: str) -> Markup:
    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sidlake"}):
        for axis in figure.axes:
            axis.spines[["top", "right"]].set_visible(False)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    drawn = stream.getvalue()
    inner = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    inner = re.sub(r' id="[A-Za-z.]+_\d+"', "", inner)  # nothing refers to them, and two charts would have the same
    tagged = inner.replace("<svg ", f'<svg role="img" aria-label="{about}" class="chart" ', 1)
    return Markup(tagged)  # noqa: S704  matplotlib escapes the texts that it draws
