from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.quality.gates import REMEDIES, Gate, Metric, judge, require_pass, to_table
from sidlake.tokenizers.errors import GateFailed
from sidlake.warehouse.contracts import conform

finite = st.floats(-10, 10)


@pytest.mark.parametrize(
    ("value", "limits", "verdict", "threshold"),
    [
        (0.5, {"minimum": 0.5}, "pass", 0.5),
        (0.49, {"minimum": 0.5}, "refuse", 0.5),
        (0.5, {"maximum": 0.5}, "pass", 0.5),
        (0.51, {"maximum": 0.5, "severity": "warn"}, "warn", 0.5),
        (0.7, {"minimum": 0.1, "maximum": 0.6}, "refuse", 0.6),
        (0.0, {"minimum": 0.1, "maximum": 0.6}, "refuse", 0.1),
        (0.3, {"minimum": 0.1, "maximum": 0.6}, "pass", 0.1),
        (float("inf"), {"maximum": 0.6}, "refuse", 0.6),
    ],
)
def test_a_value_is_judged_by_its_limits(value, limits, verdict, threshold):
    (result,) = judge([Metric(metric="m", value=value)], [Gate(metric="m", **limits)])
    assert (result.verdict, result.threshold, result.value) == (verdict, threshold, value)


def test_a_metric_without_a_gate_informs():
    (result,) = judge([Metric(metric="m", level=1, value=0.5)], [Gate(metric="m", level=0, minimum=0.9, optional=True)])[:1]
    assert (result.verdict, result.threshold) == ("info", None)


def test_a_gate_without_level_judges_every_level():
    metrics = [Metric(metric="m", level=level, value=value) for level, value in enumerate([0.9, 0.2, 0.8])]
    assert [v.verdict for v in judge(metrics, [Gate(metric="m", minimum=0.5)])] == ["pass", "refuse", "pass"]


def test_the_strictest_of_several_gates_decides():
    gates = [Gate(metric="m", maximum=0.5), Gate(metric="m", maximum=0.1, severity="warn")]
    assert [judge([Metric(metric="m", value=v)], gates)[0].verdict for v in (0.05, 0.3, 0.7)] == ["pass", "warn", "refuse"]


@pytest.mark.parametrize("severity", ["warn", "refuse"])
def test_a_gate_whose_metric_is_missing_refuses_whatever_its_severity(severity):
    (result,) = judge([], [Gate(metric="mispelt", level=2, minimum=0.5, severity=severity)])
    assert (result.metric, result.level, result.value, result.verdict, result.reason) == (
        "mispelt",
        2,
        None,
        "refuse",
        "not measured",
    )


@pytest.mark.parametrize("metrics", [[], [Metric(metric="ehr_raw")]])
def test_an_optional_gate_lets_its_metric_be_absent(metrics):
    (result,) = judge(metrics, [Gate(metric="ehr_raw", minimum=0.1, optional=True)])
    assert (result.verdict, result.reason) == ("info", "not measured")


@pytest.mark.parametrize("optional", [False, True])
def test_a_value_that_is_not_a_number_refuses(optional):
    (result,) = judge([Metric(metric="m", value=float("nan"))], [Gate(metric="m", maximum=9.0, optional=optional)])
    assert result.verdict == "refuse"
    assert "not a number" in result.reason


def test_metrics_of_the_same_name_and_level_are_refused():
    with pytest.raises(ValueError, match="more than once"):
        judge([Metric(metric="m", value=1.0), Metric(metric="m", value=2.0)], [])


@given(finite, finite, st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_refusal_and_only_a_refusal_raises(value, limit, warn):
    verdicts = judge([Metric(metric="m", value=value)], [Gate(metric="m", minimum=limit, severity="warn" if warn else "refuse")])
    if value < limit and not warn:
        with pytest.raises(GateFailed):
            require_pass(verdicts)
    else:
        require_pass(verdicts)


def test_the_error_names_every_failing_metric_its_value_limit_and_remedy():
    metrics = [Metric(metric="raw_collision_rate", value=0.4), Metric(metric="level_utilisation", level=1, value=0.25)]
    gates = [Gate(metric="raw_collision_rate", maximum=0.3), Gate(metric="level_utilisation", minimum=0.5)]
    with pytest.raises(GateFailed) as caught:
        require_pass(judge(metrics, gates))
    text = str(caught.value)
    for part in (
        "2 failed",
        "raw_collision_rate",
        "0.4",
        "0.3",
        "level_utilisation (level 1)",
        "0.25",
        REMEDIES["level_utilisation"],
    ):
        assert part in text
    assert [row["metric"] for row in caught.value.details["failing"]] == ["raw_collision_rate", "level_utilisation"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give minimum"),
        ({"minimum": float("nan")}, "as numbers"),
        ({"minimum": 2.0, "maximum": 1.0}, "exceeds"),
        ({"minimum": 1.0, "severity": "shout"}, "severity"),
        ({"minimum": 1.0, "metric": ""}, "name its metric"),
    ],
)
def test_gates_that_cannot_judge_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Gate(**{"metric": "m", **arguments})


def test_the_table_keeps_the_contract_of_sid_quality():
    metrics = [Metric(metric="a", value=1.0), Metric(metric="b", level=2, value=float("nan")), Metric(metric="c")]
    table = conform(to_table(judge(metrics, [Gate(metric="a", minimum=0.5), Gate(metric="b", maximum=1.0)])), "sid_quality")
    reason = "not a number: the metric is undefined for these items"
    assert table.to_pylist() == [
        {"metric": "a", "level": None, "value": 1.0, "threshold": 0.5, "verdict": "pass", "reason": None, "examples": None},
        {"metric": "b", "level": 2, "value": None, "threshold": 1.0, "verdict": "refuse", "reason": reason, "examples": None},
        {"metric": "c", "level": None, "value": None, "threshold": None, "verdict": "info", "reason": None, "examples": None},
    ]


def test_no_verdicts_give_an_empty_table_of_the_contract():
    assert conform(to_table([]), "sid_quality").num_rows == 0
