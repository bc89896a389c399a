"""Nothing hangs, degrades in silence or dies of an internal error, whatever rows, facts and settings a kind is given."""

import json
import subprocess
import sys
from pathlib import Path

import degenerate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FILE = Path(degenerate.__file__)
QUICK = ("residual_kmeans", "beam_kmeans", "product", "random_index", "fusion.concat", "fusion.rank", "fusion.pca", "fusion.cca")


@pytest.mark.slow
@pytest.mark.parametrize("kind", degenerate.all_kinds())
def test_every_case_of_a_kind_ends_well_or_by_name(kind):
    degenerate.prepare(kind)
    ended = {case.name: degenerate.outcome(case) for case in degenerate.cases(kind)}
    assert {name: said for name, (how, said) in ended.items() if how not in ("good", "named")} == {}


def test_it_prints_one_json_object_with_the_counts():
    command = [sys.executable, str(FILE), "--kinds", "random_index", "fusion.concat", "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (found["hangs"], found["silent"], found["tracebacks"], found["wrong"]) == (0, 0, 0, [])
    assert found["cases"] == found["good"] + found["named"] > 90


def test_it_can_tell_each_way_to_end():
    def endless():
        while True:
            pass

    def act(run):
        return degenerate.outcome(degenerate.Case(kind="any", name="any", run=run))[0]

    limit, degenerate.LIMIT_S = degenerate.LIMIT_S, 1
    try:
        assert act(endless) == "hang"
    finally:
        degenerate.LIMIT_S = limit
    assert act(lambda: "good") == "good"
    assert act(lambda: "far worse") == "silent"
    assert act(lambda: [][0]) == "traceback"
    assert act(lambda: int("x")) == "named"


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from([*QUICK, "balanced_kmeans"]),
    exponent=st.integers(-30, 30),
    offset=st.sampled_from([0.0, 3.0, 300.0]),
    outlier=st.sampled_from([None, 5.0, 1e3, 1e12]),
    num_distinct=st.sampled_from([1, 2, 13, degenerate.NUM_ROWS]),
    dim=st.sampled_from([3, 8]),
)
def test_scales_offsets_outliers_and_copies_together_end_well_or_by_name(kind, exponent, offset, outlier, num_distinct, dim):
    x = degenerate.tame(dim=dim)[np.arange(degenerate.NUM_ROWS) % num_distinct] + offset
    if outlier is not None:
        x = degenerate.with_outlier(x, outlier + offset)
    with np.errstate(over="ignore"):
        rows = (x * 10.0**exponent).astype(np.float32)  # beyond float32 is infinite, and to be named
    judge = degenerate.fusion_outcome if kind.startswith("fusion.") else degenerate.tokenizer_outcome
    how, said = degenerate.outcome(
        degenerate.Case(kind=kind, name="all at once", run=lambda: judge(kind.removeprefix("fusion."), rows, None))
    )
    assert how in ("good", "named"), said
