"""How to read each metric: a title and a unit for people, one sentence on what is good, what to compare with, what it cannot tell.

Names are those that `measure` gives. Metrics that come in a family (an interval, a tie rate, a popularity bucket of a hit rate)
share a sentence. Not done here: limits, which are the recipe's, and remedies (`gates.REMEDIES`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sidlake.quality.reading_rows import ROWS, Unit

__all__ = ["GROUPS", "READINGS", "Reading", "reading_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What a person needs to read a metric; `group` is one of `GROUPS`."""

    title: str
    unit: Unit
    group: str
    sentence: str


GROUPS: dict[str, str] = {
    "collisions": "Can the vectors tell items apart?",
    "use": "Does every code earn its place?",
    "tree": "Do prefixes divide the items evenly?",
    "fidelity": "Do SIDs keep what the vectors knew?",
    "uniqueness": "What did making SIDs unique cost?",
    "hit_rate": "Do SIDs predict what a user takes next?",
    "behaviour": "Do items taken together share prefixes?",
    "meaning": "Do prefixes agree with the categories?",
    "stability": "Do SIDs stay, and stay right?",
}
"""The question that each group of metrics answers, in the order of a page."""

READINGS: dict[str, Reading] = {
    metric: Reading(title=title, unit=unit, group=group, sentence=sentence)
    for group, rows in ROWS.items()
    for metric, title, unit, sentence in rows
}
"""Every metric that stands for itself, in the order of a page."""

_FAMILIES: tuple[tuple[str, str, Unit, str], ...] = (
    (
        r"(.+)_ci_half_width",
        "{}, half of the interval",
        "share",
        "Half the width of the 95% interval: smaller differences mean nothing.",
    ),
    (r"(.+)_bootstrap_low", "{}, low end", "share", "Low end of the 95% bootstrap interval."),
    (r"(.+)_bootstrap_high", "{}, high end", "share", "High end of the 95% bootstrap interval."),
    (
        r"(.+)_tie_rate",
        "{}, ties",
        "share",
        "Candidates at exactly equal distance, which the vectors then order; near 100% the rate is the vectors', not the codes'.",
    ),
    (r"(.+)_cold", "{}, new items", "", "For items that nobody in these sessions took before."),
    (r"(.+)_popularity_(\d+)", "{}, popularity {}", "", "For one part of the items: 1 is the rarest, 4 the most popular."),
)


_ALONE = "ehr_modality_"
"""What the hit rates of single modalities begin with; the modality's name follows."""


def reading_of(metric: str) -> Reading:
    """Return how to read `metric`; one that nothing was written for keeps its name as the title, without a sentence.

    >>> reading_of("ehr_raw_popularity_1").title
    'Hit rate of the vectors, popularity 1'
    """
    if metric in READINGS:
        return READINGS[metric]
    for pattern, title, unit, sentence in _FAMILIES:
        found = re.fullmatch(pattern, metric)
        of = reading_of(found[1]) if found else None
        if found and of and of.sentence:
            return Reading(
                title=title.format(of.title, *found.groups()[1:]), unit=unit or of.unit, group=of.group, sentence=sentence
            )
    if metric.startswith(_ALONE):
        title = f"Hit rate of {metric.removeprefix(_ALONE)} alone"
        sentence = "How often the next item is among the 30 nearest, by one modality's own vectors; items without one never are."
        return Reading(title=title, unit="share", group="hit_rate", sentence=sentence)
    return Reading(title=metric, unit="", group="", sentence="")
