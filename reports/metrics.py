"""Metrics as rows of the quality report: value, limit, history, and what broke a limit with examples and a remedy.

Not done here: how a row looks (`templates/metrics.html.j2`), its title and sentence (`readings`), the charts (`plots`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sidlake.quality.gates import REMEDIES, worst
from sidlake.quality.reading_rows import Unit
from sidlake.quality.readings import GROUPS, Reading, reading_of
from sidlake.reports.report import Judged
from sidlake.reports.text import number

__all__ = ["History", "Reason", "Row", "grouped_metrics", "judged_metrics", "metric_rows", "named"]

_HALF_WIDTH = "_ci_half_width"
_MAX_EXAMPLES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why a metric broke its limit at a level; `remedy` is empty where none is known."""

    verdict: str
    named: str
    why: str
    examples: tuple[str, ...]
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """Small lines over the releases, on a field of 120 by 30: points of the limits and of each level's values, oldest first."""

    about: str
    limits: tuple[tuple[tuple[float, float], ...], ...]
    values: tuple[tuple[tuple[float, float], ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A metric with all its levels: (verdict, value in words) of each, what they are, their limits, and what they were before."""

    metric: str
    reading: Reading
    verdict: str
    values: tuple[tuple[str, str], ...]
    across: str
    limits: tuple[str, ...]
    before: str
    history: History | None
    reasons: tuple[Reason, ...]


def judged_metrics(every: Sequence[Judged]) -> list[Row]:
    """Return a row for each metric with a limit at any of its levels."""
    judged = {one.metric for one in every if one.is_judged}
    return metric_rows([one for one in every if one.metric in judged], every)


def grouped_metrics(every: Sequence[Judged]) -> dict[str, list[Row]]:
    """Return the metrics without a limit by the question that their group answers, groups without metrics left out."""
    judged = {one.metric for one in every if one.is_judged}
    others = [one for one in every if one.metric not in judged]
    by_group = {group: [one for one in others if reading_of(one.metric).group == group] for group in (*GROUPS, "")}
    return {GROUPS.get(group, "Others"): metric_rows(of, every) for group, of in by_group.items() if of}


def metric_rows(metrics: Sequence[Judged], every: Sequence[Judged]) -> list[Row]:
    """Return a row per metric, all its levels in one; half widths of intervals stand beside the value they belong to.

    `every` are the metrics of the release, which have the half widths.
    """
    names = {one.metric for one in every}
    halves = {(one.metric.removesuffix(_HALF_WIDTH), one.level): one.value for one in every if one.metric.endswith(_HALF_WIDTH)}
    shown = [one for one in metrics if not (one.metric.endswith(_HALF_WIDTH) and one.metric.removesuffix(_HALF_WIDTH) in names)]
    return [_row(list(of), halves) for _, of in groupby(shown, key=lambda one: one.metric)]


def named(metric: Judged) -> str:
    """Return the metric's title with its level where it has one."""
    title = reading_of(metric.metric).title
    return title if metric.level is None else f"{title} (level {metric.level})"


def _row(levels: list[Judged], halves: dict[tuple[str, int | None], float | None]) -> Row:
    name, unit = levels[0].metric, _short_unit(levels)
    return Row(
        metric=name,
        reading=reading_of(name),
        verdict=worst((one.verdict for one in levels), least="info"),
        values=tuple((one.verdict, _value(one, unit, halves.get((name, one.level)))) for one in levels),
        across=_across(levels),
        limits=tuple(dict.fromkeys(_limit(one) for one in levels if one.threshold is not None)),
        before=_before(levels, unit),
        history=_history(levels),
        reasons=tuple(_reason(one) for one in levels if one.verdict in ("warn", "refuse")),
    )


def _short_unit(levels: Sequence[Judged]) -> Unit:
    """Return the unit to write beside each value; none for several, whose unit is named once."""
    unit = reading_of(levels[0].metric).unit
    return unit if unit == "share" or len(levels) == 1 else ""


def _across(levels: Sequence[Judged]) -> str:
    """Return which levels the values belong to, and their unit; empty for one value."""
    if len(levels) == 1:
        return ""
    unit = reading_of(levels[0].metric).unit
    counted = f"{unit}, " if unit not in ("", "share", "index") else ""
    return f"{counted}levels {levels[0].level} to {levels[-1].level}"


def _value(one: Judged, unit: Unit, half_width: float | None) -> str:
    if one.value is None or not half_width:
        return number(one.value, unit)
    margin = f"{100 * half_width:.1f}" if unit == "share" else f"{half_width:.2g}"
    return f"{number(one.value, unit)} ± {margin}"


def _limit(one: Judged) -> str:
    """Return the limit in words; which side it is on follows from the verdict."""
    shown = number(one.threshold, reading_of(one.metric).unit).replace(".0%", "%")
    if one.value is None or one.threshold is None or one.value == one.threshold or one.verdict == "info":
        return f"limit {shown}"
    return f"{'at least' if (one.value > one.threshold) == (one.verdict == 'pass') else 'at most'} {shown}"


def _reason(one: Judged) -> Reason:
    return Reason(
        verdict=one.verdict,
        named=named(one),
        why=one.reason or f"{number(one.value)} breaks the limit {number(one.threshold)}",
        examples=one.examples[:_MAX_EXAMPLES],
        remedy=REMEDIES.get(one.metric, ""),
    )


def _before(levels: Sequence[Judged], unit: Unit) -> str:
    """Return what the values were in the release compared with."""
    if all(one.before is None for one in levels):
        return "no earlier value"
    if all(one.before == one.value for one in levels):
        return "as before"
    return f"before: {', '.join(number(one.before, unit) for one in levels)}"


def _history(levels: Sequence[Judged]) -> History | None:
    """Return the lines of a metric's levels; None before there are two values."""
    limits = sorted({one.threshold for one in levels if one.threshold is not None})
    known = [value for one in levels for _, value in one.history if value is not None]
    releases = [release for release, _ in levels[0].history]
    if len(releases) < 2 or len(known) < 2:
        return None
    return History(
        about=f"{levels[0].metric}, {releases[0]} to {releases[-1]}: {number(min(known))} to {number(max(known))}",
        limits=tuple(_line([limit, limit], known + limits) for limit in limits),
        values=tuple(_line([value for _, value in one.history], known + limits) for one in levels),
    )


def _line(values: Sequence[float | None], span: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Return the points of the values that are known, on a field that `span` fills from foot to head."""
    low, high = min(span), max(span)
    return tuple(
        (4 + 112 * place / (len(values) - 1), 26 - 22 * (value - low) / (high - low) if high > low else 15.0)
        for place, value in enumerate(values)
        if value is not None
    )
