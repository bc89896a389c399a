"""The study of metrics: what its correlations say of assignments whose answer is known."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "studying"
STUDY = SimpleNamespace(**runpy.run_path(str(FOLDER / "correlations.py")))
RNG = np.random.default_rng(1)


def rows(num=24):
    """Return assignments whose figure is 2 a + b, with one metric that is noise, one that never varies and one that few have."""
    a, b, noise = RNG.standard_normal((3, num))
    return [
        {
            "metrics": {
                "a": a[n],
                "b": b[n],
                "noise": noise[n],
                "same": 1.0,
                "rare": a[n] if n < 3 else None,
                "raw_collision_rate": n % 2 * 0.1,
            },
            "levels": 3 + n % 3,
            "ordered": n % 4 > 0,
            "damaged": n < 4,
            "recall@10": 2 * a[n] + b[n],
        }
        for n in range(num)
    ]


def test_a_metric_that_the_figure_is_made_of_comes_first_and_its_interval_holds_its_correlation():
    found = STUDY.correlations(rows(), "recall@10")
    first = found[0]
    assert (first["metric"], first["subset"], first["assignments"]) == ("a", "all", 24)
    assert first["spearman_low"] < first["spearman"] < first["spearman_high"] <= 1
    assert first["spearman"] > 0.6 > abs(next(one for one in found if one["metric"] == "noise")["spearman"])


def test_what_never_varies_or_few_assignments_have_is_not_correlated():
    assert not {"same", "rare"} & {one["metric"] for one in STUDY.correlations(rows(), "recall@10")}


def test_subsets_hold_the_assignments_that_they_name():
    numbers = {one["subset"]: one["assignments"] for one in STUDY.correlations(rows(), "recall@10") if one["metric"] == "a"}
    assert numbers == {"all": 24, "ordered": 18, "unique": 12, "published": 20}


def test_a_metric_that_only_says_the_length_of_the_codes_says_nothing_given_that_length():
    of = rows()
    for row in of:
        row["metrics"]["length"] = float(row["levels"])
        row["recall@10"] = row["levels"] + 0.01 * row["metrics"]["noise"]
    found = next(one for one in STUDY.correlations(of, "recall@10") if one["metric"] == "length" and one["subset"] == "all")
    assert found["spearman"] > 0.9
    assert found["spearman_given_length"] is None


def test_the_best_two_metrics_are_those_that_predict_an_assignment_left_out():
    of = rows()
    best = STUDY.best_pair(of, "recall@10")
    assert sorted(best["metrics"]) == ["a", "b"]
    assert 0.7 < best["r2"] <= 1
    for row in of:
        row["recall@10"] = float(RNG.standard_normal())
    assert STUDY.best_pair(of, "recall@10")["r2"] < 0.5


@pytest.mark.parametrize("num", [2, 7])
def test_too_few_assignments_have_no_correlation_and_no_pair(num):
    assert STUDY.correlations(rows(num), "recall@10") == []
    assert STUDY.best_pair(rows(num), "recall@10") is None
