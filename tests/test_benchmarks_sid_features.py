"""The benchmark of features: a cold item is in no training example and has no row of its own, and the truth is told first."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.append(str(FOLDER))  # it imports its neighbours, as a script does
    spec = importlib.util.spec_from_file_location("benchmark_sid_features", FOLDER / "sid_features.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    sys.path.remove(str(FOLDER))
    return module


def test_a_cold_item_is_in_no_training_example_and_users_last_items_are_the_tests(benchmark):
    cold = np.array([False, True, False, False])
    train, test = benchmark.examples([np.array([0, 1, 2, 3]), np.array([2, 0, 1])], cold)
    assert [(row[row >= 0].tolist(), item) for row, item in zip(*train, strict=True)] == [([0], 2), ([2], 0)]
    assert [(row[row >= 0].tolist(), item) for row, item in zip(*test, strict=True)] == [([0, 2], 3), ([2, 0], 1)]


def test_cold_items_share_one_id_and_keep_features_of_their_own(benchmark):
    codes, cold = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([False, True, True, False])
    rows = {name: values for name, (values, _) in benchmark.features(codes, cold).items()}
    assert rows["ids"].ravel().tolist() == [2, 1, 1, 5]
    assert len(np.unique(rows["ngrams"][:, 1])) == 4
    assert all((values < size).all() for values, size in benchmark.features(codes, cold).values())
