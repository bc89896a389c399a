"""Quality gates: metrics against a recipe's limits, and the verdicts that decide whether a release may be published.

A metric without a gate informs. A gate whose metric is missing, or is not a number, refuses whatever its severity: what was not
measured cannot pass, and a misspelt gate must not pass in silence. Only a gate marked `optional` lets its metric be absent (hit
rates need sessions, which a catalogue may not have). Not done here: measuring (see `measure`) and storing verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from sidlake.tokenizers.errors import GateFailed

__all__ = ["REMEDIES", "Gate", "Metric", "Outcome", "Severity", "Verdict", "judge", "require_pass", "to_table"]

Severity = Literal["refuse", "warn"]
Outcome = Literal["pass", "warn", "refuse", "info"]

_RANK: dict[Outcome, int] = {"info": 0, "pass": 1, "warn": 2, "refuse": 3}

REMEDIES: dict[str, str] = {
    "raw_collision_rate": "use wider or more levels, and look for items whose text is the same",
    "raw_largest_group": "look at the items of the largest group: same or empty text gives the same vector",
    "raw_leaf_gini": "use wider or more levels, and look for items whose text is the same",
    "unique_share": "published codes must be unique: run the collision resolver on all items, and report this as a bug if it did",
    "level_utilisation": "use narrower levels, or fit on more items; codes that died are revived only while fitting",
    "level_perplexity": "use narrower levels, or check that a few directions do not dominate the vectors (whiten them)",
    "prefix_reconstruction_error": "use wider levels, or fit again on the present items",
    "relative_reconstruction_error": "use wider or more levels, or fit again on the present items: the vectors may have drifted",
    "moved_share": "use wider or more levels, so that fewer items collide",
    "mean_move_cost": "use a wider last level, so that a free code lies nearer",
    "ehr_raw": "the embeddings do not predict what comes next: check the encoder, its text fields and the modality weights",
    "ehr_quantized": "compare with ehr_raw: a wide gap asks for wider or more levels, a low ceiling for better embeddings",
    "ehr_reconstructed": "compare with ehr_quantized: a gap between them is the cost of moving items or of undoing the fusion",
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

    `severity` is the verdict when a limit is broken. An `optional` gate lets the metric be absent.
    Raises ValueError without a limit, with one that is not a number, or with minimum > maximum.
    """

    metric: str
    level: int | None = None
    minimum: float | None = None
    maximum: float | None = None
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
        if not limits or any(math.isnan(limit) for limit in limits):
            msg = f"gate on {self.metric}: give minimum, maximum or both as numbers, got {self.minimum} and {self.maximum}"
            raise ValueError(msg)
        if len(limits) == 2 and limits[0] > limits[1]:
            msg = f"gate on {self.metric}: minimum {self.minimum} exceeds maximum {self.maximum}"
            raise ValueError(msg)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a gate says of a metric: `threshold` is the limit that was broken, else the minimum or, without one, the maximum."""

    metric: str
    level: int | None
    value: float | None
    threshold: float | None
    verdict: Outcome
    reason: str = ""
    examples: tuple[str, ...] = ()


def judge(metrics: Sequence[Metric], gates: Sequence[Gate]) -> list[Verdict]:
    """Return one verdict per metric, in order, the strictest of its gates'; then one per gate that found no metric.

    Raises ValueError where two metrics have the same name and level.

    >>> judge([Metric(metric="moved_share", value=0.2)], [Gate(metric="moved_share", maximum=0.1)])[0].verdict
    'refuse'
    """
    names = [(metric.metric, metric.level) for metric in metrics]
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        msg = f"metrics must differ in name or level, got {', '.join(repeated)} more than once"
        raise ValueError(msg)
    verdicts = [_strictest(metric, [gate for gate in gates if _applies(gate, metric)]) for metric in metrics]
    absent = [gate for gate in gates if not any(_applies(gate, metric) for metric in metrics)]
    return verdicts + [_unmeasured(gate, gate.level, None) for gate in absent]


def _applies(gate: Gate, metric: Metric) -> bool:
    return gate.metric == metric.metric and gate.level in (None, metric.level)


def _strictest(metric: Metric, gates: Sequence[Gate]) -> Verdict:
    if not gates:
        return Verdict(metric=metric.metric, level=metric.level, value=metric.value, threshold=None, verdict="info")
    return max((_verdict(metric, gate) for gate in gates), key=lambda verdict: _RANK[verdict.verdict])


def _verdict(metric: Metric, gate: Gate) -> Verdict:
    value = metric.value
    if value is None or math.isnan(value):
        return _unmeasured(gate, metric.level, value)
    threshold = gate.minimum if gate.minimum is not None else gate.maximum
    outcome: Outcome = "pass"
    reason = ""
    if gate.minimum is not None and value < gate.minimum:
        outcome, threshold, reason = gate.severity, gate.minimum, f"{value:.6g} is below the minimum {gate.minimum:.6g}"
    elif gate.maximum is not None and value > gate.maximum:
        outcome, threshold, reason = gate.severity, gate.maximum, f"{value:.6g} is above the maximum {gate.maximum:.6g}"
    return Verdict(metric=metric.metric, level=metric.level, value=value, threshold=threshold, verdict=outcome, reason=reason)


def _unmeasured(gate: Gate, level: int | None, value: float | None) -> Verdict:
    threshold = gate.minimum if gate.minimum is not None else gate.maximum
    outcome: Outcome = "info" if gate.optional and value is None else "refuse"
    reason = "not measured" if value is None else "not a number: the metric is undefined for these items"
    return Verdict(metric=gate.metric, level=level, value=value, threshold=threshold, verdict=outcome, reason=reason)


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
    remedy = REMEDIES.get(verdict.metric, "check the gate's name and limit in the recipe")
    limit = "none" if verdict.threshold is None else f"{verdict.threshold:.6g}"
    return f"  {verdict.metric}{where}: {verdict.reason} (limit {limit}); try: {remedy}"


def to_table(verdicts: Sequence[Verdict]) -> pa.Table:
    """Return the verdicts as rows of `sid_quality`, in the order of its columns. NaN values, no reason and no examples become null."""
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
