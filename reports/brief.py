"""The state of a release, and what differs between two, on one screen: what a person needs first, and what was left out.

At most `HEIGHT` lines of the width given, wrapped here and not by the terminal. First what is wrong with what to try, then what
changed, then sizes; the last line counts what is not shown and names the command that shows it. Not done here: reading the release
(`summary`, `warehouse.diff`), printing, and the whole tables, which `--all` and `--json` give.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sidlake.quality.gates import remedy_for
from sidlake.reports.text import visible
from sidlake.warehouse.diff import MetricChange, ReleaseDiff

__all__ = ["HEIGHT", "diff_lines", "status_lines"]

HEIGHT = 25
_LEAST_WIDTH = 40
_MAX_WORD = 48
_SETTING = 16  # characters of a setting's value, such as a digest

Block = list[str]
"""Lines that are shown together or not at all."""


def status_lines(
    state: Mapping[str, Any], findings: Sequence[Mapping[str, Any]], former: Mapping[str, Any], width: int
) -> list[str]:
    """Return the lines on a release: `state` as `summary.status_of` gives it, `findings` and `former` as `summary` does too.

    `findings` are the rows of `sid_quality` that warn or refuse, `former` the parent's id and rows by table (empty without one).
    """
    page = _Page(width)
    page.add(f"release {state['release']} of generation {state['generation']}, {state['created_at']}: {state['verdict']}")
    if state["override"]:
        page.add(f"published against its gates by {state['published_by']}: {state['override']}", most=2)
    if state["hold"]:
        page.add(f'{state["hold"]}; runs publish nothing until: sidlake resume --reason "…"', most=3)
    below = _Page(width)
    if former:
        below.add(
            f"since {former['release']}: {_changed_rows(former['rows'], state)}; more: sidlake diff {former['release']}", most=2
        )
    below.add("tables: " + ", ".join(f"{row['table']} {row['rows']:,}" for row in state["tables"]), most=3)
    if state["rejected"]:
        rules = ", ".join(f"{row['target']}: {row['rule']} {row['rows']:,}" for row in state["rejected"])
        below.add(f"rejected rows: {rules}", most=2)
    if state["models"]:
        below.add("models: " + _models(state["models"]), most=2)
    room = HEIGHT - len(page.lines) - len(below.lines) - 2  # lines on what is left out
    shown = page.fill([_finding(row, width) for row in findings], room, title=_count(len(findings), "finding"))
    if not findings:
        page.add(f"nothing wrong: {_count(len(state['quality']), 'figure')}, none beyond its limit")
    left = [_count(len(findings) - shown, "finding")] if shown < len(findings) else []
    left += [_count(len(state["quality"]) - len(findings), "other figure"), "versions of tables"]
    below.add(f"sidlake status --all shows what is left out here: {', '.join(left)}; sidlake report explains it", most=2)
    return (page.lines + below.lines)[:HEIGHT]


def diff_lines(found: ReleaseDiff, width: int) -> list[str]:
    """Return the lines on what differs between two releases."""
    page = _Page(width)
    page.add(f"{found.before} (generation {found.generation_before}) to {found.after} (generation {found.generation_after})")
    if found.same_content:
        page.add("the same content, by its hash")
    _add_items_and_sids(page, found)
    below = _Page(width)
    if found.rows:
        rows = ", ".join(f"{table} {_number(old)} to {_number(new)}" for table, (old, new) in found.rows.items() if old != new)
        below.add(f"rows: {rows or 'as many in every table'}", most=2)
    settings = [
        _cut([f"  {key}: {_word(old, _SETTING)} to {_word(new, _SETTING)}"], 1, width) for key, (old, new) in found.settings.items()
    ]
    num_settings = below.fill(settings, 4, title="made of")
    verdicts = [one for one in found.metrics if one.verdict_before != one.verdict_after]
    others = sorted((one for one in found.metrics if one.verdict_before == one.verdict_after), key=_rank)
    blocks = [_cut([_metric(one)], 1, width) for one in (*verdicts, *others)]
    room = HEIGHT - len(page.lines) - len(below.lines) - 2  # lines on what is left out
    num_metrics = page.fill(blocks, room, title=f"{_count(len(blocks), 'metric')} changed, verdicts first, then by share")
    left = [
        _count(number, name)
        for number, name in ((len(blocks) - num_metrics, "metric"), (len(settings) - num_settings, "setting"))
        if number
    ]
    if left:
        below.add(f"sidlake diff {found.before} {found.after} --all shows what is left out here: {', '.join(left)}", most=2)
    return (page.lines + below.lines)[:HEIGHT]


class _Page:
    """Lines of one width."""

    def __init__(self, width: int) -> None:
        self.width = max(width, _LEAST_WIDTH)
        self.lines: list[str] = []

    def add(self, text: str, *, most: int = 1) -> None:
        """Add `text`, wrapped, in at most so many lines."""
        self.lines += _cut([text], most, self.width)

    def fill(self, blocks: Sequence[Block], room: int, *, title: str) -> int:
        """Add a title and the first blocks that fit into `room` lines, title included, and return how many blocks."""
        if not blocks:
            return 0
        taken, used = 0, 1
        for block in blocks:
            if used + len(block) > room:
                break
            taken, used = taken + 1, used + len(block)
        shown = "" if taken == len(blocks) else f", {taken} shown"
        self.add(f"{title}{shown}")
        self.lines += [line for block in blocks[:taken] for line in block]
        return taken


def _cut(texts: Sequence[str], most: int, width: int) -> Block:
    """Return the texts wrapped to `width`, later lines further in, cut to `most` lines each."""
    lines = []
    for text in texts:
        indent = " " * (len(text) - len(text.lstrip()) + 2)
        plain = visible(text.replace("\n", " "))
        lines += textwrap.wrap(
            plain, max(width, _LEAST_WIDTH), subsequent_indent=indent, max_lines=most, placeholder=" …", break_on_hyphens=False
        )
    return lines


def _finding(row: Mapping[str, Any], width: int) -> Block:
    level = "" if row["level"] is None else f" of level {row['level']}"
    reason = row["reason"] or f"{row['value']} beyond {row['threshold']}"
    return _cut([f"  {row['verdict']}: {row['metric']}{level}: {reason}; try: {remedy_for(row['metric'])}"], 3, width)


def _changed_rows(former: Mapping[str, int], state: Mapping[str, Any]) -> str:
    changed = [
        f"{row['table']} {former[row['table']]:,} to {row['rows']:,}"
        for row in state["tables"]
        if former.get(row["table"], row["rows"]) != row["rows"]
    ]
    return ", ".join(changed) or "as many rows in every table"


def _models(rows: Sequence[Mapping[str, Any]]) -> str:
    tested = [row for row in rows if row["split"] == "test" and row["metric"] == "recall@10"] or list(rows)
    return ", ".join(f"{row['model']} {row['metric']} {row['value']:.4f}" for row in tested)


def _add_items_and_sids(page: _Page, found: ReleaseDiff) -> None:
    items, sids = found.items, found.sids
    page.add(
        f"items  {items.before:,} to {items.after:,}: {items.added:,} added, {items.retired:,} retired, "
        f"{items.changed:,} with changed content",
        most=2,
    )
    for kind, ids in items.examples.items():
        if ids:
            page.add(f"       {kind}: {', '.join(map(_word, ids))}{', …' if getattr(items, kind) > len(ids) else ''}")
    page.add(f"SIDs   {sids.kept:,} kept, {sids.moved:,} moved, {sids.added:,} added, {sids.retired:,} retired", most=2)
    both = sids.kept + sids.moved
    if not sids.same_generation and both:
        page.add("       kept to the depth of 1, 2, ... codes: " + ", ".join(f"{count / both:.1%}" for count in sids.kept_prefixes))
    for one in sids.examples[:2]:
        page.add(f"       {_word(one['item_id'])}: {one['before']} became {one['after']}")


def _metric(one: MetricChange) -> str:
    level = "" if one.level is None else f" of level {one.level}"
    verdict = (
        "" if one.verdict_before == one.verdict_after else f" ({one.verdict_before or 'none'} to {one.verdict_after or 'none'})"
    )
    return f"  {one.metric}{level}: {_figure(one.before)} to {_figure(one.after)}{verdict}"


def _rank(one: MetricChange) -> tuple[bool, float, str]:
    """Return what puts metrics with a limit first, then those that changed by the greatest share."""
    judged = one.verdict_after not in (None, "info")
    if one.before is None or one.after is None or not one.before:
        return not judged, -1.0, one.metric
    return not judged, -abs(one.after - one.before) / abs(one.before), one.metric


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _number(rows: int | None) -> str:
    return "none" if rows is None else f"{rows:,}"


def _word(value: object, most: int = _MAX_WORD) -> str:
    spelled = str(value)
    return spelled if len(spelled) <= most else spelled[: most - 1] + "…"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
