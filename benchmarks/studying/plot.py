"""The study as a picture: Recall@10 against each of the metrics that go with it best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["plot"]

_NUM = 9
_COLOURS = {"published": "#3b6ea5", "ours": "#d1782b", "damaged": "#8a8a8a"}


def plot(rows: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], place: Path) -> None:
    """Write a grid of scatter plots of the strongest metrics over all assignments to `place`."""
    import matplotlib.pyplot as plt

    best = [one for one in found if one["subset"] == "all"][:_NUM]
    figure, axes = plt.subplots(3, 3, figsize=(11, 9.5), constrained_layout=True)
    for axis, one in zip(axes.flat, best, strict=False):
        for kind, colour in _COLOURS.items():
            of = [row for row in rows if _kind(row) == kind and row["metrics"].get(one["metric"]) is not None]
            axis.scatter(
                [row["metrics"][one["metric"]] for row in of], [row["recall@10"] for row in of], s=16, c=colour, label=kind
            )
        axis.set_title(f"{one['metric']}\nSpearman {one['spearman']:.2f}", fontsize=9)
        axis.tick_params(labelsize=8)
    axes[0, 0].legend(fontsize=8)
    figure.supylabel("Recall@10 of a model that sees codes alone")
    figure.savefig(place, dpi=110)
    plt.close(figure)


def _kind(row: dict[str, Any]) -> str:
    return "damaged" if row["damaged"] else "ours" if row["assignment"].startswith("ours_") else "published"
