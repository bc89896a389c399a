"""Quality gates: metrics against a recipe's limits, and the verdicts that decide whether a release may be published.

A metric without a gate informs. A gate whose metric is missing, or is not a number, refuses whatever its severity: what was not
measured cannot pass, and a misspelt gate must not pass in silence. Only a gate marked `optional` lets its metric be absent (hit
rates need sessions, which a catalogue may not have), and warns then. Limits are absolute, or relative to the current release's
value; those pass where there is no earlier value. `MANDATORY` gates hold for every recipe. Not done here: measuring (see
`measure`) and storing verdicts.

A relative limit looks one release back: releases that each lose a little less pass one after the other, so a metric that matters
has an absolute limit too. The earlier interval and the present one are taken as independent, which they are not where both score
the same sessions: the limit is then more lenient than it had to be, never stricter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from sidlake.errors import GateFailed

__all__ = [
    "COLLAPSE",
    "GUARDS",
    "MANDATORY",
    "REMEDIES",
    "Earlier",
    "Gate",
    "Metric",
    "Outcome",
    "Severity",
    "Verdict",
    "gates_in_force",
    "judge",
    "remedy_for",
    "require_pass",
    "to_table",
    "worst",
]

Earlier = Mapping[tuple[str, int | None], float | None]
"""Values of the current release by metric and level."""

Severity = Literal["refuse", "warn"]
Outcome = Literal["pass", "warn", "refuse", "info"]

_RANK: dict[str, int] = {"info": 0, "pass": 1, "warn": 2, "refuse": 3}

REMEDIES: dict[str, str] = {
    "raw_collision_rate": "use wider or more levels, and look for items whose text is the same",
    "raw_largest_group_share": "look at the items of the largest group: same or empty text gives the same vector",
    "raw_largest_group": "look at the items of the largest group: same or empty text gives the same vector",
    "raw_leaf_gini": "use wider or more levels, and look for items whose text is the same",
    "unique_share": "published codes must be unique: run the collision resolver on all items, and report this as a bug if it did",
    "level_utilisation": "use narrower levels, or fit on more items; codes that died are revived only while fitting",
    "level_largest_share": "one code holds most items: look for a collapsed fit, or a direction that dominates the vectors",
    "level_normalised_entropy": "use narrower levels, or check that a few directions do not dominate the vectors (whiten them)",
    "level_perplexity": "use narrower levels, or check that a few directions do not dominate the vectors (whiten them)",
    "prefix_reconstruction_error": "use wider levels, or fit again on the present items",
    "relative_reconstruction_error": "use wider or more levels, or fit again on the present items: the vectors may have drifted",
    "moved_share": "use wider or more levels, so that fewer items collide",
    "spill_rate": "use a wider last level, so that a prefix has room for its items",
    "code_churn_relabelled": "items or vectors changed much since the last generation: train models again, or keep refreshing",
    "prefix_churn_relabelled": "items or vectors changed much since the last generation: train models again, or keep refreshing",
    "mean_move_cost": "use a wider last level, so that a free code lies nearer",
    "ehr_raw": "the embeddings do not predict what comes next: check the encoder, its text fields and the modality weights",
    "ehr_quantized": "compare with ehr_raw: a wide gap asks for wider or more levels, a low ceiling for better embeddings",
    "ehr_reconstructed": "compare with ehr_quantized: a gap between them is the cost of moving items or of undoing the fusion",
    "ehr_reconstructed_over_floor": "lists drawn at random hit as often: compare ehr_raw with ehr_random_floor; where that is near "
    "it too, the embeddings do not predict what comes next, else the codes are too few or too narrow",
    "ehr_fused_over_modality": "one modality alone predicts better than all fused: compare the ehr_modality_ figures, then give it "
    "more weight, or leave one out (encoders.fusion)",
    "ehr_unmoved": "compare with ehr_quantized: a gap between them is the cost of undoing the fusion",
    "leaked_session_share": "the generation learned from these events: run retrain, so that sessions ask for what it never saw",
    "gone_item_share": "see which: sidlake diff. One date far in the future makes all items quiet (retirement.after_days), a "
    "list without one of its files lacks that file's items (retirement.missing)",
    "changed_item_share": "see what changed: sidlake diff. A source column that changed its meaning changes every item",
    "lost_event_share": "see whether a file is missing, or items left and their events with them: sidlake status",
    "rejected_share_rise": "see which rule refuses them: sidlake rejected",
    "without_vector_share_rise": "see whether the column that the modality reads is still filled, and pictures can still be read",
    "confused_text_share": "the model cannot read these texts, or reads their beginning only: name one for the language "
    "(docs/reading-quality.md)",
    "foreign_item_share": "new vectors lie near no published one: is the encoder still the same? New kinds of items need retrain",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A measured value; `level` is None for the whole SID, `value` None where the metric does not apply."""

    metric: str
    level: int | None = None
    value: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """Limits a metric must keep, bounds included. Without `level` it applies to every level (or the whole SID) measured.

    `max_drop` and `max_rise` are shares of the current release's value: 0.03 lets a value fall by 3 %, and by as much as the two
    confidence half widths together where the metric has them (``<metric>_ci_half_width``). `severity` is the verdict when a limit
    is broken. An `optional` gate lets the metric be absent, and warns of it.
    Raises ValueError without a limit, with one that is not a number, a negative share, or with minimum > maximum.

    Attributes:
        metric: name of the metric, as `sid_quality` has it.
        level: the level that is judged; without it every level measured, or the whole SID.
        minimum: the least that the value may be.
        maximum: the most that the value may be.
        max_drop: share of the current release's value by which it may fall.
        max_rise: share of the current release's value by which it may rise.
        severity: the verdict when a limit is broken: ``refuse`` stops the release, ``warn`` does not.
        optional: let the metric be absent, and warn of it.
    """

    metric: str
    level: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    max_drop: float | None = None
    max_rise: float | None = None
    severity: Severity = "refuse"
    optional: bool = False

    def __post_init__(self) -> None:
        if not self.metric:
            msg = "a gate must name its metric"
            raise ValueError(msg)
        if self.severity not in ("refuse", "warn"):
            msg = f"gate on {self.metric}: severity must be 'refuse' or 'warn', got {self.severity!r}"
            raise ValueError(msg)
        limits = [limit for limit in (self.minimum, self.maximum) if limit is not None]
        shares = [share for share in (self.max_drop, self.max_rise) if share is not None]
        if not (limits or shares) or any(math.isnan(limit) for limit in (*limits, *shares)):
            given = f"{self.minimum}, {self.maximum}, {self.max_drop} and {self.max_rise}"
            msg = f"gate on {self.metric}: give minimum, maximum or both as numbers, or max_drop or max_rise, got {given}"
            raise ValueError(msg)
        if min(shares, default=0.0) < 0:
            msg = f"gate on {self.metric}: max_drop and max_rise are shares >= 0, got {self.max_drop} and {self.max_rise}"
            raise ValueError(msg)
        if len(limits) == 2 and limits[0] > limits[1]:
            msg = f"gate on {self.metric}: minimum {self.minimum} exceeds maximum {self.maximum}"
            raise ValueError(msg)


MANDATORY: tuple[Gate, ...] = (
    Gate(metric="unique_share", minimum=1.0),
    Gate(metric="leaked_session_share", maximum=0.0, optional=True),
    # The lower end of a 95 % interval: 1 % is expected; of new items that all lie far out, 4 are the first to be refused.
    Gate(metric="foreign_item_share", maximum=0.5, optional=True),
    # What collapses when vectors or codes do: hundreds of items of one text, or a first level of one code.
    Gate(metric="level_largest_share", level=0, maximum=0.5, severity="warn", optional=True),
    Gate(metric="raw_largest_group_share", maximum=0.5, severity="warn", optional=True),
    Gate(metric="raw_collision_rate", maximum=0.9, severity="warn", optional=True),
    # Hits that lists drawn at random have as well: the SIDs say nothing of what users do next.
    Gate(metric="ehr_reconstructed_over_floor", minimum=0.0, severity="warn", optional=True),
)
"""Gates of every recipe: what is never right, whatever the catalogue."""

_JUMP = 0.1
GUARDS: tuple[Gate, ...] = (
    Gate(metric="gone_item_share", maximum=_JUMP, severity="warn", optional=True),
    Gate(metric="changed_item_share", maximum=0.5, severity="warn", optional=True),
    Gate(metric="lost_event_share", maximum=_JUMP, severity="warn", optional=True),
    Gate(metric="rejected_share_rise", maximum=0.05, severity="warn", optional=True),
    Gate(metric="without_vector_share_rise", maximum=_JUMP, severity="warn", optional=True),
    Gate(metric="code_churn_relabelled", level=0, maximum=0.5, severity="warn", optional=True),
    Gate(metric="confused_text_share", maximum=_JUMP, severity="warn", optional=True),
    Gate(metric="ehr_fused_over_modality", minimum=0.0, severity="warn", optional=True),
)
"""Warnings of every recipe that says nothing of their metrics: what changes much at once, what a model could not tell apart, and
fusions that lose what one modality knew.

They warn and do not refuse: a catalogue may lose half of its items because somebody meant it.
"""

_OF_COLLAPSE = ("level_largest_share", "raw_largest_group_share", "raw_collision_rate")
COLLAPSE: tuple[Gate, ...] = tuple(
    Gate(metric=gate.metric, level=gate.level, maximum=gate.maximum) for gate in MANDATORY if gate.metric in _OF_COLLAPSE
)
"""What refuses SIDs from elsewhere: of our own, whose vectors one can look at, it is a warning."""


def gates_in_force(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """Return the gates of a recipe with those of every recipe: the mandatory ones, and guards of metrics that it says nothing of.

    >>> gates_in_force([Gate(metric="gone_item_share", maximum=0.3)]).count(GUARDS[0])
    0
    """
    own = {gate.metric for gate in gates}
    return (*MANDATORY, *(guard for guard in GUARDS if guard.metric not in own), *gates)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a gate says of a metric: `threshold` is the limit that was broken, else the gate's first limit."""

    metric: str
    level: int | None
    value: float | None
    threshold: float | None
    verdict: Outcome
    reason: str = ""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Limit:
    """The least (or most) that a value may be, and how to say so."""

    at: float
    is_least: bool
    words: str

    def broken_by(self, value: float) -> bool:
        return value < self.at if self.is_least else value > self.at


def judge(metrics: Sequence[Metric], gates: Sequence[Gate], *, earlier: Earlier | None = None) -> list[Verdict]:
    """Return one verdict per metric, in order, the strictest of its gates'; then one per gate that found no metric.

    `earlier` holds the current release's values, its confidence half widths among them. Raises ValueError where two metrics have
    the same name and level.

    >>> judge([Metric(metric="moved_share", value=0.2)], [Gate(metric="moved_share", maximum=0.1)])[0].verdict
    'refuse'
    """
    names = [(metric.metric, metric.level) for metric in metrics]
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        msg = f"metrics must differ in name or level, got {', '.join(repeated)} more than once"
        raise ValueError(msg)
    now = {(metric.metric, metric.level): metric.value for metric in metrics}
    verdicts = [
        _strictest(metric, [(gate, _limits(gate, metric, now, earlier or {})) for gate in gates if _applies(gate, metric)])
        for metric in metrics
    ]
    absent = [gate for gate in gates if not any(_applies(gate, metric) for metric in metrics)]
    return verdicts + [_unmeasured(gate, gate.level, None) for gate in absent]


def worst(outcomes: Iterable[str], *, least: Outcome = "pass") -> str:
    """Return the most severe of `outcomes`, and no less than `least`: the verdict on a whole release, or on a metric's levels.

    >>> worst(["info", "warn", "pass"]), worst([])
    ('warn', 'pass')
    """
    return max((least, *outcomes), key=_RANK.__getitem__)


def _applies(gate: Gate, metric: Metric) -> bool:
    return gate.metric == metric.metric and gate.level in (None, metric.level)


def _strictest(metric: Metric, gates: Sequence[tuple[Gate, list[_Limit]]]) -> Verdict:
    if not gates:
        return Verdict(metric=metric.metric, level=metric.level, value=metric.value, threshold=None, verdict="info")
    return max((_verdict(metric, gate, limits) for gate, limits in gates), key=_strictness)


def _strictness(verdict: Verdict) -> tuple[int, float]:
    """Return what verdicts of one metric are compared by: the outcome, and of equal ones how near the limit is."""
    far = math.inf if verdict.value is None or verdict.threshold is None else abs(verdict.value - verdict.threshold)
    return _RANK[verdict.verdict], -far


def _verdict(metric: Metric, gate: Gate, limits: Sequence[_Limit]) -> Verdict:
    value = metric.value
    if value is None or math.isnan(value):
        return _unmeasured(gate, metric.level, value)
    broken = next((limit for limit in limits if limit.broken_by(value)), None)
    return Verdict(
        metric=metric.metric,
        level=metric.level,
        value=value,
        threshold=broken.at if broken else next((limit.at for limit in limits), None),
        verdict=gate.severity if broken else "pass",
        reason=f"{value:.6g} is {'below' if broken.is_least else 'above'} {broken.words}" if broken else "",
    )


def _limits(gate: Gate, metric: Metric, now: Earlier, earlier: Earlier) -> list[_Limit]:
    """Return the gate's limits, absolute ones first; those relative to a value that is not there are left out."""
    limits = [_Limit(gate.minimum, True, f"the minimum {gate.minimum:.6g}")] if gate.minimum is not None else []
    limits += [_Limit(gate.maximum, False, f"the maximum {gate.maximum:.6g}")] if gate.maximum is not None else []
    before = earlier.get((metric.metric, metric.level))
    if before is None or math.isnan(before):
        return limits
    width = (f"{metric.metric}_ci_half_width", metric.level)
    chance = (now.get(width) or 0.0) + (earlier.get(width) or 0.0)
    for share, sign in ((gate.max_drop, -1), (gate.max_rise, 1)):
        if share is not None:
            at = before + sign * max(share * abs(before), chance)
            allowed = f"{share:.3g} of it" if share * abs(before) >= chance else f"the intervals of both, {chance:.3g} together"
            limits.append(_Limit(at, sign < 0, f"{at:.6g}: the current release has {before:.6g}, and the gate allows {allowed}"))
    return limits


def _unmeasured(gate: Gate, level: int | None, value: float | None) -> Verdict:
    threshold = gate.minimum if gate.minimum is not None else gate.maximum
    absent: Outcome = (
        "info" if gate in MANDATORY or gate in GUARDS else "warn"
    )  # what a recipe asks for and nothing measures is a finding
    outcome: Outcome = absent if gate.optional and value is None else "refuse"
    reason = "not measured" if value is None else "not a number: the metric is undefined for these items"
    return Verdict(metric=gate.metric, level=level, value=value, threshold=threshold, verdict=outcome, reason=reason)


def remedy_for(metric: str) -> str:
    """Return what to try where a gate on `metric` does not pass."""
    return REMEDIES.get(metric, "check the gate's name and limit in the recipe")


def require_pass(verdicts: Iterable[Verdict]) -> None:
    """Return when nothing refuses; else raise `GateFailed` naming every refused metric, its value, its limit and what to try."""
    refused = [verdict for verdict in verdicts if verdict.verdict == "refuse"]
    if not refused:
        return
    lines = [f"quality gates refused publication: {len(refused)} failed, 0 allowed", *(_line(verdict) for verdict in refused)]
    failing = [
        {"metric": v.metric, "level": v.level, "value": v.value, "threshold": v.threshold, "reason": v.reason} for v in refused
    ]
    raise GateFailed("\n".join(lines), failing=failing)


def _line(verdict: Verdict) -> str:
    where = "" if verdict.level is None else f" (level {verdict.level})"
    limit = "none" if verdict.threshold is None else f"{verdict.threshold:.6g}"
    return f"  {verdict.metric}{where}: {verdict.reason} (limit {limit}); try: {remedy_for(verdict.metric)}"


def to_table(verdicts: Sequence[Verdict]) -> pa.Table:
    """Return the verdicts as rows of `sid_quality`, in its columns' order. NaN values, no reason and no examples become null."""
    values = [None if v.value is None or math.isnan(v.value) else v.value for v in verdicts]
    return pa.table(
        {
            "metric": pa.array([v.metric for v in verdicts], pa.string()),
            "level": pa.array([v.level for v in verdicts], pa.int32()),
            "value": pa.array(values, pa.float64()),
            "threshold": pa.array([v.threshold for v in verdicts], pa.float64()),
            "verdict": pa.array([v.verdict for v in verdicts], pa.string()),
            "reason": pa.array([v.reason or None for v in verdicts], pa.string()),
            "examples": pa.array([list(v.examples) or None for v in verdicts], pa.list_(pa.string())),
        }
    )
