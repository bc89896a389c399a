"""What each fused modality knows of behaviour by itself, beside what the fused vectors know, on the same sessions.

Fusing is meant to gain: text helps where nobody has bought, behaviour where texts say little. Where one modality alone hits more
often than all together, the weights are wrong or a modality is noise, which no figure of the fused vectors alone can tell.

A modality is searched among the items that have it. A session that names none of them, or asks for another item, is a miss: all
rates have one denominator and can be paired. A modality of few items is searched in a smaller gallery, which is slightly easier.
Not done here: leaving a modality out and fusing the rest, which takes another fit.

Shapes: N items, D dimensions of a modality, S scored sessions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sidlake.quality.gates import Metric
from sidlake.quality.metrics.hit_rate import SessionHits, hit_rate_of, session_hits
from sidlake.quality.metrics.hit_rate_detail import hit_rate_difference
from sidlake.quality.metrics.neighbours import ExactSearch
from sidlake.quality.metrics.sessions import Sessions

__all__ = ["Alone", "hits_alone", "modality_metrics"]

Alone = tuple[str, npt.NDArray[np.floating[Any]], npt.NDArray[np.bool_]]
"""A modality: its name, its vectors (N, D) and which items have one (N,)."""

_CHANCE = 0.05


def modality_metrics(modalities: Iterable[Alone], fused: SessionHits, sessions: Sessions, *, k: int, tells: bool) -> list[Metric]:
    """Return ehr_modality_NAME with its half width per modality, and ehr_fused_over_modality; nothing without a modality.

    The latter is the upper end of the 95 % paired interval of the fused rate less the best modality's, widened for the number of
    modalities that the best was chosen from: below 0, fusing lost more than chance explains. None unless the rates tell anything.
    Memory: one modality's vectors at a time, and what `session_hits` takes.
    """
    rates: list[tuple[str, SessionHits]] = [(name, hits_alone(x, has, fused, sessions, k=k)) for name, x, has in modalities]
    metrics = []
    for name, hits in rates:
        result = hit_rate_of(hits)
        metrics += [
            Metric(metric=f"ehr_modality_{name}", value=result.value),
            Metric(metric=f"ehr_modality_{name}_ci_half_width", value=(result.ci_high - result.ci_low) / 2),
        ]
    if not rates:
        return []
    _, best = max(rates, key=lambda one: int(one[1].hits_S.sum()))
    over = hit_rate_difference(fused, best, level=1 - _CHANCE / len(rates)).ci_high if tells else None
    return [*metrics, Metric(metric="ehr_fused_over_modality", value=over)]


def hits_alone(
    vectors_ND: npt.NDArray[np.floating[Any]],
    present_N: npt.NDArray[np.bool_],
    fused: SessionHits,
    sessions: Sessions,
    *,
    k: int,
) -> SessionHits:
    """Return which of the sessions that `fused` scored hit by these vectors, searched among the items that have one."""
    rows = np.flatnonzero(present_N)
    place = np.full(len(present_N) + 1, -1, dtype=np.int64)  # the last one is where -1 leads
    place[rows] = np.arange(len(rows))
    among = Sessions(items_flat=place[sessions.items_flat], offsets=sessions.offsets, targets=place[sessions.targets])
    if len(rows) < 2 or not among.num_scorable:
        return replace(fused, hits_S=np.zeros(len(fused.hits_S), dtype=np.bool_), tie_rate=0.0)
    found = session_hits(ExactSearch(vectors_ND[rows]), among, num_items=len(rows), k=k)
    return replace(fused, hits_S=np.isin(fused.sessions_S, found.sessions_S[found.hits_S]), tie_rate=found.tie_rate)
