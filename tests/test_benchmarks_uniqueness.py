"""The benchmark of unique assignment: its items collide, none is left without a SID, and its own count can tell."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "uniqueness.py"


def load():
    spec = importlib.util.spec_from_file_location("benchmark_uniqueness", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


uniqueness = load()


def test_a_small_run_prints_one_json_object_and_leaves_nothing_unresolved():
    command = [sys.executable, str(FILE), "--items", "3000", "5000", "--runs", "1", "--json"]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert result["unresolved"] == 0
    assert result["items_per_s"] == min(row["items_per_s"] for row in result["sizes"]) > 0
    assert [(row["items"], row["name"]) for row in result["sizes"]] == [
        (items, name) for items in (3000, 5000) for name in ("clustered", "crowded")
    ]
    assert {"versions", "cores", "cpu", "python", "seed", "blas_threads"} <= result.keys()
    for row in result["sizes"]:
        assert row["colliding_share"] > row["moved_share"] > 0
        assert row["dimensions"] == 384
        assert row["unresolved"] == 0


def test_items_that_share_a_sid_are_all_counted():
    codes = np.array([[1, 2], [0, 2], [1, 2], [2, 1], [1, 2], [2, 1], [0, 0]], dtype=np.int32)
    assert uniqueness.sharing(codes) == 5
    assert uniqueness.sharing(codes[[0, 1, 3]]) == 0


def test_the_mixture_depends_on_the_seed_alone():
    case = uniqueness.cases_of(2000)[0]
    one = uniqueness.mixture(case)
    assert one.shape == (2000, 384)
    assert np.array_equal(one, uniqueness.mixture(case))
    assert not np.array_equal(one, uniqueness.mixture(case, seed=1))


def test_the_two_sizes_have_the_widths_that_the_other_benchmarks_use():
    assert [case.widths for case in uniqueness.cases_of(200_000)] == [(256, 256, 256)] * 2
    assert [case.widths for case in uniqueness.cases_of(2_000_000)] == [(512, 512, 512)] * 2
