from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.errors import GateFailed
from sidlake.quality.gates import MANDATORY, REMEDIES, Gate, Metric, judge, remedy_for, require_pass, to_table
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
def test_an_optional_gate_whose_metric_is_absent_warns_and_refuses_nothing(metrics):
    (result,) = judge(metrics, [Gate(metric="ehr_raw", minimum=0.1, optional=True)])
    assert (result.verdict, result.reason) == ("warn", "not measured")


@pytest.mark.parametrize("optional", [False, True])
def test_a_value_that_is_not_a_number_refuses(optional):
    (result,) = judge([Metric(metric="m", value=float("nan"))], [Gate(metric="m", maximum=9.0, optional=optional)])
    assert result.verdict == "refuse"
    assert "not a number" in result.reason


def against(before, value, *, widths=(None, None), **limits):
    """Judge a value against the current release's, each with the half width of its interval."""
    metrics = [Metric(metric="m", value=value), Metric(metric="m_ci_half_width", value=widths[1])]
    earlier = {("m", None): before, ("m_ci_half_width", None): widths[0]}
    return judge(metrics, [Gate(metric="m", **limits)], earlier=earlier)[0]


@pytest.mark.parametrize(
    ("value", "limits", "verdict", "threshold"),
    [
        (0.195, {"max_drop": 0.03}, "pass", 0.194),
        (0.193, {"max_drop": 0.03}, "refuse", 0.194),
        (0.193, {"max_drop": 0.03, "severity": "warn"}, "warn", 0.194),
        (0.9, {"max_drop": 0.03}, "pass", 0.194),
        (0.205, {"max_rise": 0.03}, "pass", 0.206),
        (0.207, {"max_rise": 0.03}, "refuse", 0.206),
        (0.1, {"max_rise": 0.03}, "pass", 0.206),
        (0.193, {"minimum": 0.1, "max_drop": 0.03}, "refuse", 0.194),
        (0.195, {"minimum": 0.1, "max_drop": 0.03}, "pass", 0.1),
        (0.09, {"minimum": 0.1, "max_drop": 0.03}, "refuse", 0.1),
    ],
)
def test_a_value_is_judged_against_the_current_release(value, limits, verdict, threshold):
    found = against(0.2, value, **limits)
    assert (found.verdict, found.threshold) == (verdict, pytest.approx(threshold))


@pytest.mark.parametrize(("value", "verdict"), [(0.186, "pass"), (0.184, "refuse")])
def test_a_fall_counts_only_beyond_both_intervals(value, verdict):
    found = against(0.2, value, widths=(0.01, 0.005), max_drop=0.03)  # 3 % are 0.006, the intervals 0.015 together
    assert (found.verdict, found.threshold) == (verdict, pytest.approx(0.185))


def test_the_reason_of_a_relative_refusal_names_the_earlier_value_and_what_was_allowed():
    assert (
        against(0.2, 0.19, max_drop=0.03).reason
        == "0.19 is below 0.194: the current release has 0.2, and the gate allows 0.03 of it"
    )
    assert "allows the intervals of both, 0.015 together" in against(0.2, 0.18, widths=(0.01, 0.005), max_drop=0.03).reason


@pytest.mark.parametrize("before", [None, float("nan")])
def test_without_an_earlier_value_a_relative_gate_passes(before):
    found = against(before, 0.001, max_drop=0.03)
    assert (found.verdict, found.threshold) == ("pass", None)


def test_a_relative_gate_whose_metric_is_missing_refuses_too():
    (found,) = judge([], [Gate(metric="mispelt", max_drop=0.03)], earlier={("mispelt", None): 0.2})
    assert found.verdict == "refuse"


def test_a_level_is_judged_against_the_same_level():
    metrics = [Metric(metric="m", level=level, value=0.5) for level in (0, 1)]
    found = judge(metrics, [Gate(metric="m", max_drop=0.1)], earlier={("m", 0): 0.5, ("m", 1): 0.9})
    assert [one.verdict for one in found] == ["pass", "refuse"]


@pytest.mark.parametrize(("metric", "bad"), [("unique_share", 0.99), ("leaked_session_share", 1e-4), ("foreign_item_share", 0.6)])
def test_what_is_never_right_is_refused_for_every_recipe(metric, bad):
    (found, *_) = judge([Metric(metric=metric, value=bad)], MANDATORY)
    assert found.verdict == "refuse"
    assert remedy_for(metric) == REMEDIES[metric]


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
        ({"max_drop": float("nan")}, "as numbers"),
        ({"minimum": 1.0, "max_drop": -0.1}, "shares >= 0"),
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


@pytest.mark.parametrize(
    ("metric", "value", "verdict"),
    [
        ("raw_collision_rate", 0.97, "warn"),
        ("raw_collision_rate", 0.4, "pass"),
    ],
)
def test_every_recipe_is_warned_of_codes_that_nearly_all_items_share(metric, value, verdict):
    assert judge([Metric(metric=metric, value=value)], MANDATORY)[0].verdict == verdict


def test_without_any_gate_a_hit_rate_that_is_not_above_chance_is_a_warning():
    beyond = [
        Metric(metric="ehr_reconstructed_over_floor", value=-0.028)
    ]  # a page once said "Passed" of .142 where chance gives .170
    (verdict,) = [found for found in judge(beyond, MANDATORY) if found.metric == "ehr_reconstructed_over_floor"]
    assert verdict.verdict == "warn"


def test_of_two_limits_that_are_kept_the_nearer_one_is_shown():
    gates = [*MANDATORY, Gate(metric="raw_collision_rate", maximum=0.3)]  # the built-in one says 0.9
    for order in (gates, gates[::-1]):
        (found,) = [
            one for one in judge([Metric(metric="raw_collision_rate", value=0.142)], order) if one.metric == "raw_collision_rate"
        ]
        assert (found.threshold, found.verdict) == (0.3, "pass")
