"""Items to look at first where a gate does not pass, by metric: the largest group, the furthest moved, the worst reconstructed.

Each example names an item by id and title, or a group by its codes, size and two of its items. Only metrics that did not pass are
asked for. Not done here: what to try (`quality.gates.REMEDIES`).

Shapes: N items in the order of `items`, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from sidlake.quality.gates import Verdict

__all__ = ["Offenders", "with_examples"]

_NUM = 5
_TITLE = 60  # characters of a title

_CROWDED = ("raw_collision_rate", "raw_uniquely_identified_share", "raw_largest_group", "raw_largest_group_share", "raw_leaf_gini")
_LEVEL = (
    "level_utilisation",
    "level_dead_codes",
    "level_entropy",
    "level_normalised_entropy",
    "level_perplexity",
    "level_largest_share",
)
_MOVED = ("moved_share", "mean_move_cost", "move_cost_p50", "move_cost_p90", "move_cost_p99", "move_cost_max", "spill_rate")
_FAR = ("relative_reconstruction_error", "prefix_reconstruction_error", "ehr_quantized", "ehr_reconstructed", "ehr_unmoved")
_CHURN = ("code_churn", "code_churn_relabelled", "prefix_churn", "prefix_churn_relabelled")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Offenders:
    """What examples are drawn from: a row per item with item_id, title, move_cost and residual_norm, and arrays in its order.

    Attributes:
        former_NL: codes of the current release, −1 for new items; None without one to compare with.
        leaked: user_id, ts and item_id of events that a session asks for though the generation learned from them.
        foreign_N: whether the item is new and lies farther out than published items do.
    """

    items: pl.DataFrame
    codes_NL: npt.NDArray[np.integer[Any]]
    raw_codes_NL: npt.NDArray[np.integer[Any]]
    former_NL: npt.NDArray[np.integer[Any]] | None
    leaked: pl.DataFrame
    foreign_N: npt.NDArray[np.bool_]

    def examples(self, metric: str, level: int | None) -> tuple[str, ...]:
        """Return up to five examples of what breaks `metric`; none for a metric that no item can be blamed for."""
        if metric in _CROWDED:
            return self._groups(self.raw_codes_NL)
        if metric == "unique_share":
            return self._groups(self.codes_NL)
        if metric in _LEVEL and level is not None:
            return self._groups(self.raw_codes_NL[:, level : level + 1], what=f"level {level}, code", least=1)
        if metric in _MOVED:
            return self._furthest("move_cost")
        if metric in _FAR:
            return self._furthest("residual_norm")
        if metric in _CHURN and level is not None and self.former_NL is not None:
            before_N = self.former_NL[:, level]
            return self._named(np.flatnonzero((before_N >= 0) & (before_N != self.codes_NL[:, level])))
        if metric == "foreign_item_share":
            return self._named(np.flatnonzero(self.foreign_N))
        if metric == "leaked_session_share":
            return tuple(f"{item} of user {user} at {ts:%Y-%m-%d %H:%M}" for user, ts, item in self.leaked.head(_NUM).iter_rows())
        return ()

    def _named(self, rows: npt.NDArray[np.integer[Any]]) -> tuple[str, ...]:
        chosen = self.items[rows[:_NUM]]
        return tuple(f"{item}: {title[:_TITLE]}" for item, title in chosen.select("item_id", "title").iter_rows())

    def _furthest(self, column: str) -> tuple[str, ...]:
        values_N = self.items[column].to_numpy()
        rows = np.argsort(-values_N, kind="stable")[:_NUM]
        return tuple(f"{name} ({values_N[row]:.3g})" for row, name in zip(rows, self._named(rows), strict=True))

    def _groups(self, codes_NL: npt.NDArray[np.integer[Any]], *, what: str = "codes", least: int = 2) -> tuple[str, ...]:
        """Return the largest groups of equal codes that have `least` items, each with two of its items."""
        distinct, group_N, sizes = np.unique(codes_NL, axis=0, return_inverse=True, return_counts=True)
        lines = []
        for group in np.argsort(-sizes, kind="stable")[:_NUM]:
            if sizes[group] >= least:
                named = self._named(np.flatnonzero(group_N.reshape(-1) == group)[:2])
                lines.append(f"{sizes[group]} items of {what} {'-'.join(map(str, distinct[group]))}: {'; '.join(named)}")
        return tuple(lines)


def with_examples(verdicts: Sequence[Verdict], offenders: Offenders) -> list[Verdict]:
    """Return the verdicts, those that warn or refuse with examples of what breaks them."""
    return [
        replace(one, examples=offenders.examples(one.metric, one.level)) if one.verdict in ("warn", "refuse") else one
        for one in verdicts
    ]
