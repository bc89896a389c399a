"""What says how well a metric of SIDs goes with what a recommender makes of them: correlations, their intervals, and a prediction.

Rows are assignments: each has metrics by name, and the figure of a trained model. A metric that does not vary, or that fewer than
`MIN_ROWS` assignments have, has no correlation. Intervals are percentiles of 2,000 bootstrap samples of assignments. The partial
correlation is that of the ranks' residuals after the ranks of the length of the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import pearsonr, rankdata, spearmanr

__all__ = ["MIN_ROWS", "SUBSETS", "best_pair", "correlations"]

MIN_ROWS = 8
_SAMPLES = 2_000
_CANDIDATES = 12
"""Metrics among which the best two are looked for: those of the highest correlation."""
Floats = npt.NDArray[np.float64]
Row = dict[str, Any]

SUBSETS: dict[str, Callable[[Row], bool]] = {
    "all": lambda row: True,
    "ordered": lambda row: bool(row["ordered"]),
    "unique": lambda row: row["metrics"]["raw_collision_rate"] == 0,
    "published": lambda row: not row["damaged"],
}
"""Of which assignments: all; those whose first code says most; those without collisions; all but those damaged on purpose."""


def correlations(rows: Sequence[Row], figure: str) -> list[dict[str, Any]]:
    """Return, for each metric and subset, its Spearman and Pearson correlation with `figure`; strongest over all rows first."""
    found = [
        one
        for subset, belongs in SUBSETS.items()
        for name in _names(rows)
        if (one := _correlation([row for row in rows if belongs(row)], name, figure, subset)) is not None
    ]
    strength = {one["metric"]: abs(one["spearman"]) for one in found if one["subset"] == "all"}
    return sorted(found, key=lambda one: (-strength.get(one["metric"], 0.0), one["metric"], list(SUBSETS).index(one["subset"])))


def _names(rows: Sequence[Row]) -> list[str]:
    return sorted({name for row in rows for name in row["metrics"]})


def _columns(rows: Sequence[Row], names: Sequence[str], figure: str) -> tuple[list[Row], list[Floats], Floats]:
    whole = [row for row in rows if all(row["metrics"].get(name) is not None for name in names)]
    columns = [np.array([row["metrics"][name] for row in whole], dtype=np.float64) for name in names]
    return whole, columns, np.array([row[figure] for row in whole], dtype=np.float64)


def _correlation(rows: Sequence[Row], name: str, figure: str, subset: str) -> dict[str, Any] | None:
    whole, (x_N,), y_N = _columns(rows, [name], figure)
    if len(whole) < MIN_ROWS or np.ptp(x_N) == 0 or np.ptp(y_N) == 0:
        return None
    low, high = _interval(x_N, y_N)
    levels_N = np.array([row["levels"] for row in whole], dtype=np.float64)
    return {
        "metric": name,
        "subset": subset,
        "assignments": len(whole),
        "spearman": _round(spearmanr(x_N, y_N).statistic),
        "spearman_low": low,
        "spearman_high": high,
        "pearson": _round(pearsonr(x_N, y_N).statistic),
        "spearman_given_length": _partial(x_N, y_N, levels_N),
    }


def _interval(x_N: Floats, y_N: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval of Spearman's correlation over bootstrap samples of the rows in which both vary."""
    rng, found = np.random.default_rng(0), []
    for _ in range(_SAMPLES):
        rows = rng.integers(0, len(x_N), len(x_N))
        if np.ptp(x_N[rows]) and np.ptp(y_N[rows]):
            found.append(np.corrcoef(rankdata(x_N[rows]), rankdata(y_N[rows]))[0, 1])
    low, high = np.percentile(found, [2.5, 97.5])
    return _round(low), _round(high)


def _partial(x_N: Floats, y_N: Floats, given_N: Floats) -> float | None:
    """Return Spearman's correlation of what `given_N` leaves unexplained of both, None where nothing is left."""
    left = [_residual(rankdata(values), rankdata(given_N)) for values in (x_N, y_N)]
    if min(np.ptp(one) for one in left) < 1e-9:
        return None
    return _round(np.corrcoef(*left)[0, 1])


def _residual(y_N: Floats, x_N: Floats) -> Floats:
    design = np.column_stack([np.ones_like(x_N), x_N])
    residual: Floats = y_N - design @ np.linalg.lstsq(design, y_N, rcond=None)[0]
    return residual


def best_pair(rows: Sequence[Row], figure: str) -> dict[str, Any] | None:
    """Return the two metrics whose linear model predicts an assignment left out best, with R² and mean error.

    Metrics are taken as ranks. The choice of the two sees all rows, so the R² is that of a hindsight.
    """
    ranked = [one["metric"] for one in correlations(rows, figure) if one["subset"] == "all"][:_CANDIDATES]
    found = [one for names in combinations(ranked, 2) if (one := _left_out(rows, names, figure)) is not None]
    return max(found, key=lambda one: one["r2"], default=None)


def _left_out(rows: Sequence[Row], names: Sequence[str], figure: str) -> dict[str, Any] | None:
    whole, columns, y_N = _columns(rows, names, figure)
    if len(whole) < max(MIN_ROWS, len(rows) // 2):
        return None
    design = np.column_stack([np.ones(len(y_N)), *(rankdata(column) for column in columns)])
    # leaving one out of least squares needs no second fit: the residual over one minus its leverage
    leverage_N = np.diag(design @ np.linalg.pinv(design))
    error_N = (y_N - design @ np.linalg.lstsq(design, y_N, rcond=None)[0]) / (1.0 - leverage_N)
    return {
        "metrics": list(names),
        "assignments": len(whole),
        "r2": _round(1.0 - float(np.square(error_N).sum() / np.square(y_N - y_N.mean()).sum())),
        "mean_error": _round(float(np.abs(error_N).mean())),
    }


def _round(value: float) -> float:
    return round(float(value), 4)
