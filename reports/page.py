"""The quality report as one HTML page that needs nothing else: no server, no script, no address outside it.

The verdict comes first, then what was judged, the charts, the items that moved, the tree to browse, and every other metric.
All text of the catalogue and the recipe is escaped, and the page forbids the browser to load anything. Not done here: numbers
(`report`), charts (`report_plots`), rows of metrics (`report_metrics`) and of items (`report_items`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from sidlake.reports.items import Pictures, moved_items, tree_of_items
from sidlake.reports.metrics import grouped_metrics, judged_metrics, named
from sidlake.reports.plots import Rate, collision_chart, hit_rate_chart, level_heat_map
from sidlake.reports.report import Comparison, Report
from sidlake.reports.text import count, number, text

__all__ = ["page_of"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = Path(__file__).with_name("report.css")
_ABOUT = (
    "A semantic ID (SID) spells an item as a few codes, coarse to fine, so that alike items begin with the same codes. "
    "This page says whether these can be trusted."
)
_HEADLINES = {"pass": "Passed", "warn": "Passed with warnings", "refuse": "Refused by its gates"}
_SECTIONS = {
    "judged": "What was judged",
    "use": "How the codes are used",
    "hits": "What SIDs predict",
    "change": "What changed",
    "moved": "Items that moved furthest",
    "tree": "Browse the SIDs",
    "others": "All other metrics",
    "origin": "Where this comes from",
}
_RATES = {"vectors\n(ceiling)": "ehr_raw", "nearest\nSIDs": "ehr_quantized", "published\nSIDs": "ehr_reconstructed"}
_BUCKETS = ("rarest", "rare", "popular", "most\npopular")


def page_of(report: Report) -> str:
    """Return the page; the same report gives the same text."""
    title = f"{text(report.recipe)} {text(report.release.release_id)}: quality of its semantic IDs"
    pictures = Pictures(report.items)
    sections = {
        "judged": _judged(report),
        "use": _use(report),
        "hits": _hit_rates(report),
        "change": _changes(report.comparison),
        "moved": _moved(report, pictures),
        "tree": _tree(report, pictures),
        "others": _others(report),
        "origin": _origin(report),
    }
    links = " ".join(f'<a href="#{key}">{_SECTIONS[key]}</a>' for key in sections)
    body = [
        f"<h1>Semantic IDs of {text(report.recipe)}, release {text(report.release.release_id)}</h1><p class=soft>{_ABOUT}</p>",
        _verdict(report),
        _overrides(report),
        _facts(report),
        f"<nav>{links}</nav>",
        *(f'<section id="{key}"><h2>{_SECTIONS[key]}</h2>{inner}</section>' for key, inner in sections.items()),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>{title}</title>'
        f"<style>{_STYLE.read_text(encoding='utf-8')}{pictures.style()}</style>"
    )
    joined = "\n".join(part for part in body if part)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n{joined}\n</body></html>\n'


def _verdict(report: Report) -> str:
    asked = [one for one in report.metrics if one.verdict != "info"]
    failing = [one for one in asked if one.verdict != "pass"]
    kept = len(asked) - len(failing)
    if not asked:
        line = "No limit was set: nothing was asked of these metrics."
    elif failing:
        line = f"{kept} of {len(asked)} limits kept. Not kept: {'; '.join(named(one) for one in failing)}."
    else:
        line = f"All {kept} limits kept." if kept > 1 else "The one limit was kept."
    headline = "Published against its gates" if report.release.override else _HEADLINES[report.verdict]
    return f'<div class="verdict {report.verdict}"><b>{headline}</b><br>{line}</div>'


def _overrides(report: Report) -> str:
    """Return who published against the gates and why, this release's in a box, earlier ones' in a line each."""
    lines = []
    for one in reversed(report.overrides):
        who = f" by {text(one.published_by)}" if one.published_by else ""
        kind = "override" if one is report.overrides[-1] and one.release_id == report.release.release_id else "overridden"
        what = f"{text(one.release_id)} was published against its gates{who}, {one.created_at:%Y-%m-%d}"
        lines.append(f'<div class="{kind}">{what}. The reason given: {text(one.override or "", limit=400)}</div>')
    return "".join(lines)


def _facts(report: Report) -> str:
    widths = " by ".join(f"{width:,}" for width in report.widths)
    facts = {
        "items": f"{report.num_items:,}",
        f"possible SIDs ({widths} codes)": count(math.prod(report.widths)),
        "items moved to be unique": f"{report.num_moved:,} ({number(report.num_moved / max(report.num_items, 1), 'share')})",
        "generation of codes": text(report.release.generation),
        "published (UTC)": f"{report.release.created_at:%Y-%m-%d %H:%M}",
    }
    return '<div class="facts">' + "".join(f"<div><b>{fact}</b>{name}</div>" for name, fact in facts.items()) + "</div>"


def _judged(report: Report) -> str:
    rows = judged_metrics(report.metrics)
    return rows or "<p>The recipe sets no limits; add some under <code>[[gates]]</code>.</p>"


def _others(report: Report) -> str:
    about = (
        "Measured and kept in <code>sid_quality</code>, without a limit. Several values are those of the levels, coarse to fine."
    )
    rows = grouped_metrics(report.metrics)
    return f"<p class=soft>{about}</p>{rows}" if rows else "<p>There are none.</p>"


def _use(report: Report) -> str:
    return (
        "<div class=charts><div><h3>Items per code, most used first</h3>"
        f"{level_heat_map(report.code_counts)}<p class=soft>An even row uses its level well. White codes are used by nobody. "
        "Counted on nearest SIDs, before any item had to move.</p></div>"
        "<div><h3>Items that want the same SID</h3>"
        f"{collision_chart(report.groups_before, report.groups_after)}<p class=soft>Before uniqueness and after: items move until "
        "each has a SID of its own. Those that shared one are what the vectors cannot tell apart.</p></div></div>"
    )


def _hit_rates(report: Report) -> str:
    values = {one.metric: one.value for one in report.metrics if one.level is None}
    if all(values.get(name) is None for name in _RATES.values()):
        return "<p>No hit rate was measured: there are no users' histories to ask.</p>"
    rates = [
        Rate(label=label, value=values.get(name), half_width=values.get(f"{name}_ci_half_width") or 0.0)
        for label, name in _RATES.items()
    ]
    return (
        f"<div class=charts><div><h3>Hit rate</h3>{hit_rate_chart({'hit rate': rates}, floor=values.get('ehr_random_floor'))}"
        "<p class=soft>How often what a user took next is among the 30 items nearest to what they had. The vectors are the "
        f"ceiling; what SIDs keep of it is what they are worth.</p></div>{_by_popularity(values)}</div>"
    )


def _by_popularity(values: Mapping[str, float | None]) -> str:
    names = [name for name in ("cold", *(f"popularity_{number}" for number in range(1, 10))) if f"ehr_raw_{name}" in values]
    if not names:
        return ""
    buckets = [name for name in names if name != "cold"]
    words = {"cold": "new"} | dict(zip(buckets, _BUCKETS if len(buckets) == len(_BUCKETS) else buckets, strict=True))
    series = {
        title: [
            Rate(
                label=f"{words[name]}\n{values.get(f'ehr_num_sessions_{name}') or 0:,.0f}",
                value=values[f"{metric}_{name}"],
            )
            for name in names
        ]
        for title, metric in (("vectors", "ehr_raw"), ("published SIDs", "ehr_reconstructed"))
    }
    return (
        f"<div><h3>Hit rate by popularity</h3>{hit_rate_chart(series)}<p class=soft>By how often the item that was asked for had "
        "been taken before; below each group, how many users were asked. New items had never been taken.</p></div>"
    )


def _changes(found: Comparison | None) -> str:
    if found is None:
        return "<p>This is the first release: there is nothing to compare with.</p>"
    against = f"Against {text(found.against.release_id)} (generation {text(found.against.generation)})"
    line = f"<p>{against}: {found.num_common:,} items in both, {found.num_new:,} new, {found.num_gone:,} gone.</p>"
    if not found.churn:
        return line
    if not any(one.changed for one in found.churn):
        return f"{line}<p>Every item in both kept its SID.</p>"
    rows = "".join(
        f"<tr><td>{one.level}"
        + "".join(
            f"<td>{number(share, 'share')}"
            for share in (one.changed, one.prefix_changed, one.changed_relabelled, one.prefix_changed_relabelled)
        )
        for one in found.churn
    )
    head = "<tr><th>level<th>code changed<th>prefix changed<th>code, renamed<th>prefix, renamed"
    about = (
        "Shares of the items in both. Codebooks that were fitted again number their codes anew; <i>renamed</i> is what is left "
        "after the best renaming of the codes, so what really moved. A model trained on the other release has to learn these again."
    )
    return f"{line}<div class=scroll><table>{head}{rows}</table></div><p class=soft>{about}</p>"


def _moved(report: Report, pictures: Pictures) -> str:
    if not report.moved:
        return "<p>No item had to move.</p>"
    rows = {item.item_id: row for row, item in report.items.items()}
    about = (
        "Another item has the SID that was nearest to these, so they got a free one. The numbers are the distance from the item's "
        "vector to its SID's: before and after."
    )
    return f"<p class=soft>{about}</p>{moved_items(report.moved, pictures, rows)}"


def _tree(report: Report, pictures: Pictures) -> str:
    about = "Open a prefix to see what shares it. Its words are those that its titles have more often than all titles."
    return f"<p class=soft>{about}</p>{tree_of_items(report, pictures)}"


def _origin(report: Report) -> str:
    release = report.release
    facts = {
        "release": f"{release.release_id}, after {release.parent or 'none'}: {release.reason}",
        "published by": release.published_by or "not recorded",
        "content hash": release.content_hash,
        "codebook hash": release.codebook_hash,
        "sidlake version": release.code_version,
    } | {f"encoder of {modality}": str(encoder) for modality, encoder in sorted(release.encoders.items())}
    rows = "".join(f"<tr><th>{text(name)}<td class=sid>{text(fact, limit=300)}" for name, fact in facts.items())
    return f"<table>{rows}</table>"
