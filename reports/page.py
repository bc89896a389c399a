"""The quality report as one HTML page that needs nothing else: no server, no script, no address outside it.

The verdict comes first, then what was judged, the charts, the items that moved, the tree to browse, and every other metric. What
is said and how it looks is in `templates/page.html.j2`, by which the browser is forbidden to load anything. Not done here: numbers
(`report`), charts (`plots`), rows of metrics (`metrics`) and of items (`items`), escaping (`rendering`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from markupsafe import Markup

from sidlake.reports.items import thumbnails, tree_of_items
from sidlake.reports.metrics import grouped_metrics, judged_metrics, named
from sidlake.reports.plots import Rate, collision_chart, hit_rate_chart, level_heat_map
from sidlake.reports.rendering import render
from sidlake.reports.report import Report

__all__ = ["page_of"]

_RATES = {"vectors\n(ceiling)": "ehr_raw", "nearest\nSIDs": "ehr_quantized", "published\nSIDs": "ehr_reconstructed"}
_BUCKETS = ("rarest", "rare", "popular", "most\npopular")


def page_of(report: Report) -> str:
    """Return the page; the same report gives the same text."""
    asked = [one for one in report.metrics if one.verdict != "info"]
    values = {one.metric: one.value for one in report.metrics if one.level is None}
    pictures = thumbnails(report.items)
    return render(
        "page.html.j2",
        report=report,
        num_asked=len(asked),
        not_kept=[named(one) for one in asked if one.verdict != "pass"],
        num_possible=math.prod(report.widths),
        judged=judged_metrics(report.metrics),
        groups=grouped_metrics(report.metrics),
        use_chart=level_heat_map(report.code_counts),
        collision_chart=collision_chart(report.groups_before, report.groups_after),
        hit_chart=_hit_rates(values),
        popularity_chart=_by_popularity(values),
        row_of={item.item_id: row for row, item in report.items.items()},
        tree=tree_of_items(report, pictures),
        pictures=pictures,
    )


def _hit_rates(values: Mapping[str, float | None]) -> Markup | None:
    """Return the chart of hit rates; None where none was measured."""
    if all(values.get(name) is None for name in _RATES.values()):
        return None
    rates = [
        Rate(label=label, value=values.get(name), half_width=values.get(f"{name}_ci_half_width") or 0.0)
        for label, name in _RATES.items()
    ]
    return hit_rate_chart({"hit rate": rates}, floor=values.get("ehr_random_floor"))


def _by_popularity(values: Mapping[str, float | None]) -> Markup | None:
    """Return the chart of hit rates by how popular the item that was asked for is; None where these were not measured."""
    names = [name for name in ("cold", *(f"popularity_{number}" for number in range(1, 10))) if f"ehr_raw_{name}" in values]
    if not names:
        return None
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
    return hit_rate_chart(series)
