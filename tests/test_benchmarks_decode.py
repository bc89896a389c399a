"""The benchmark of decoding: its peers search the same, and it says so where they do not."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def decode():
    sys.path.insert(0, str(FOLDER))
    spec = importlib.util.spec_from_file_location("benchmark_decode", FOLDER / "decode.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def test_a_small_run_prints_one_json_object_and_agrees_with_its_peers():
    command = [sys.executable, str(FOLDER / "decode.py"), "--items", "300", "2000", "--users", "4", "--runs", "1", "--json"]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert result["equal"] is True
    assert [row["items"] for row in result["sizes"]] == [300, 2000]
    assert result["users_per_s"] == min(row["users_per_s"] for row in result["sizes"]) > 0
    assert all(0 < row["p50"] <= row["p99"] for row in result["sizes"])


@pytest.mark.parametrize("levels", [3, 4])
def test_all_three_searches_agree_where_many_scores_are_equal(decode, levels):
    codes = decode.unique_codes(20_000, levels)
    scorer = decode.scorer_of(3)
    coarse = decode.TableScorer(scorer.user_BK.round(), scorer.table_KK.round())
    found = decode.search(coarse, (0,) * levels, decode.trie_of(codes), beams=decode.BEAMS, k=decode.RESULTS)
    assert len(np.unique(found[1])) < found[1].size / 3  # scores are equal, so that their order is what is compared
    for check in (decode.in_each, decode.in_sorted):
        peer = decode.checked_search(coarse, decode.valid_prefixes(codes), check)
        assert found[0].tolist() == peer[0].tolist()
        assert found[1].tolist() == peer[1].tolist()


def test_half_of_the_codes_crowd_and_all_are_unique(decode):
    codes = decode.unique_codes(5000, 3)
    assert len(np.unique(codes, axis=0)) == len(codes) == 5000
    counts = np.bincount(codes[:, 0], minlength=decode.WIDTH)
    assert counts[0] > 10 * np.median(counts) > 0


def test_the_two_checks_find_the_same_prefixes(decode):
    valid = torch.tensor([2, 5, 9])
    keys = torch.tensor([[1, 2], [9, 10]])
    assert decode.in_each(keys, valid).tolist() == decode.in_sorted(keys, valid).tolist() == [[False, True], [True, False]]
