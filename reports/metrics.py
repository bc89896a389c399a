"""Metrics as rows of the quality report: title, value, limit, history, and a sentence on how to read it.

What broke a limit says so below its row, with examples and what to try. Not done here: the charts (`report_plots`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from sidlake.quality.gates import REMEDIES
from sidlake.quality.readings import GROUPS, Unit, reading_of
from sidlake.reports.report import Judged
from sidlake.reports.text import number, text

__all__ = ["grouped_metrics", "judged_metrics", "metric_rows", "named"]

_HALF_WIDTH = "_ci_half_width"
_MAX_EXAMPLES = 5
_VERDICTS = ("refuse", "warn", "pass", "info")
_WORDS = {"refuse": "refused", "warn": "warning", "pass": "passed", "info": ""}


def judged_metrics(every: Sequence[Judged]) -> str:
    """Return a row for each metric with a limit at any of its levels; empty without one."""
    judged = {one.metric for one in every if one.is_judged}
    return metric_rows([one for one in every if one.metric in judged], every)


def grouped_metrics(every: Sequence[Judged]) -> str:
    """Return the metrics without a limit under the question that their group answers, each group folded; empty without metrics."""
    judged = {one.metric for one in every if one.is_judged}
    others = [one for one in every if one.metric not in judged]
    by_group = {group: [one for one in others if reading_of(one.metric).group == group] for group in (*GROUPS, "")}
    return "".join(
        f"<details class=group><summary>{GROUPS.get(group, 'Others')}</summary>{metric_rows(of, every)}</details>"
        for group, of in by_group.items()
        if of
    )


def metric_rows(metrics: Sequence[Judged], every: Sequence[Judged]) -> str:
    """Return a row per metric, all its levels in one; half widths of intervals stand beside the value they belong to.

    `every` are the metrics of the release, which have the half widths.
    """
    names = {one.metric for one in every}
    halves = {(one.metric.removesuffix(_HALF_WIDTH), one.level): one.value for one in every if one.metric.endswith(_HALF_WIDTH)}
    shown = [one for one in metrics if not (one.metric.endswith(_HALF_WIDTH) and one.metric.removesuffix(_HALF_WIDTH) in names)]
    return "".join(_row(list(of), halves) for _, of in groupby(shown, key=lambda one: one.metric))


def named(metric: Judged) -> str:
    """Return the metric's title, escaped, with its level where it has one."""
    title = text(reading_of(metric.metric).title)
    return title if metric.level is None else f"{title} (level {metric.level})"


def _row(levels: list[Judged], halves: dict[tuple[str, int | None], float | None]) -> str:
    name, reading = levels[0].metric, reading_of(levels[0].metric)
    worst = next(verdict for verdict in _VERDICTS if any(one.verdict == verdict for one in levels))
    unit = _short_unit(levels)
    values = " ".join(f'<span class="{one.verdict}">{_value(one, unit, halves.get((name, one.level)))}</span>' for one in levels)
    mark = f'<span class="mark {worst}">{_WORDS[worst]}</span> ' if _WORDS[worst] else ""
    return (
        f"<div class=metric><div class=name>{mark}{text(reading.title)}<br><code class=soft>{text(name)}</code></div>"
        f"<div class=values>{values}{_across(levels)}{_limits(levels)}</div><div>{_history(levels)}</div>"
        f"<div class=reading>{text(reading.sentence, limit=400)}</div>{_reasons(levels)}</div>"
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
    return f"<br><span class=soft>{counted}levels {levels[0].level} to {levels[-1].level}</span>"


def _value(one: Judged, unit: Unit, half_width: float | None) -> str:
    if one.value is None or not half_width:
        return number(one.value, unit)
    margin = f"{100 * half_width:.1f}" if unit == "share" else f"{half_width:.2g}"
    return f"{number(one.value, unit)} ± {margin}"


def _limits(levels: Iterable[Judged]) -> str:
    found = dict.fromkeys(_limit(one) for one in levels if one.threshold is not None)
    return "".join(f"<br><span class=soft>{limit}</span>" for limit in found)


def _limit(one: Judged) -> str:
    """Return the limit in words; which side it is on follows from the verdict."""
    shown = number(one.threshold, reading_of(one.metric).unit).replace(".0%", "%")
    if one.value is None or one.threshold is None or one.value == one.threshold or one.verdict == "info":
        return f"limit {shown}"
    return f"{'at least' if (one.value > one.threshold) == (one.verdict == 'pass') else 'at most'} {shown}"


def _reasons(levels: Iterable[Judged]) -> str:
    lines = []
    for one in levels:
        if one.verdict not in ("warn", "refuse"):
            continue
        why = one.reason or f"{number(one.value)} breaks the limit {number(one.threshold)}"
        examples = "; ".join(text(example, limit=140) for example in one.examples[:_MAX_EXAMPLES])
        remedy = REMEDIES.get(one.metric)
        lines.append(
            f'<div class="reason {one.verdict}">{named(one)}: {text(why, limit=300)}.'
            f"{f' Such as: {examples}.' if examples else ''}{f' What to try: {text(remedy, limit=300)}.' if remedy else ''}</div>"
        )
    return "".join(lines)


def _history(levels: Sequence[Judged]) -> str:
    """Return what the values were in the release compared with, and a line over all releases where there are several."""
    unit = _short_unit(levels)
    if all(one.before is None for one in levels):
        was = "no earlier value"
    elif all(one.before == one.value for one in levels):
        was = "as before"
    else:
        was = f"before: {', '.join(number(one.before, unit) for one in levels)}"
    return f"<span class=soft>{was}</span>{_line(levels)}"


def _line(levels: Sequence[Judged]) -> str:
    """Return the histories of a metric's levels as small lines, the limit dashed; empty before there are two values."""
    limits = sorted({one.threshold for one in levels if one.threshold is not None})
    known = [value for one in levels for _, value in one.history if value is not None]
    releases = [release for release, _ in levels[0].history]
    if len(releases) < 2 or len(known) < 2:
        return ""
    low, high = min(known + limits), max(known + limits)

    def at(place: int, value: float) -> str:
        y = 26 - 22 * (value - low) / (high - low) if high > low else 15.0
        return f"{4 + 112 * place / (len(releases) - 1):.1f},{y:.1f}"

    parts = [f'<polyline class=limit points="{at(0, limit)} {at(len(releases) - 1, limit)}"/>' for limit in limits]
    for one in levels:
        points = [at(place, value) for place, (_, value) in enumerate(one.history) if value is not None]
        parts.append(f'<polyline points="{" ".join(points)}"/>')
        parts += [f'<circle cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="2.2"/>' for point in points[-1:]]
    about = f"{text(levels[0].metric)}, {text(releases[0])} to {text(releases[-1])}: {number(min(known))} to {number(max(known))}"
    return f'<svg class=line viewBox="0 0 120 30" role="img"><title>{about}</title>{"".join(parts)}</svg>'
