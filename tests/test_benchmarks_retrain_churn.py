"""The benchmark of retrains, on made-up items: alignment never raises churn, and names do not touch quality."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from sidlake.quality.metrics.sessions import Sessions

FILE = Path(__file__).resolve().parent.parent / "benchmarks" / "retrain_churn.py"


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(FILE.parent))  # for its neighbour `machine`
    try:
        spec = importlib.util.spec_from_file_location("benchmark_retrain_churn", FILE)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for it
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FILE.parent))
    return module


def catalogues(benchmark):
    """150 items in clusters, then 180 of which 150 are the same, all of them turned into another space."""
    rng = np.random.default_rng(2)
    x = (3 * rng.standard_normal((12, 6))[rng.integers(12, size=180)] + rng.standard_normal((180, 6))).astype(np.float32)
    turned = (x @ np.linalg.qr(rng.standard_normal((6, 6)))[0] + 0.1 * rng.standard_normal(x.shape)).astype(np.float32)
    taken = np.stack([rng.permutation(150)[:3] for _ in range(40)])
    sessions = Sessions(items_flat=taken[:, :2].ravel(), offsets=np.arange(0, 81, 2), targets=taken[:, 2])
    ids = [f"item-{row:03d}" for row in range(180)]
    before = benchmark.Catalogue(item_ids=ids[:150], x_ND=x[:150], sessions=sessions)
    return before, benchmark.Catalogue(item_ids=ids, x_ND=turned, sessions=sessions)


def test_alignment_lowers_churn_and_leaves_quality_as_it_is(benchmark):
    found = benchmark.compare(*catalogues(benchmark), seeds=range(1, 3))
    assert (found["items_before"], found["items_after"], found["items_of_both"]) == (150, 180, 150)
    assert found["never_higher"]
    rows = {row["variant"]: row for row in found["variants"]}
    assert rows["cold_aligned"]["code_churn"][0] < rows["cold"]["code_churn"][0] - 0.3
    assert rows["warm"]["code_churn"][0] < rows["centroids"]["code_churn"][0]
    for metric in ("reconstruction_error", "raw_collision_rate", "ehr"):
        assert rows["cold_aligned"][metric] == pytest.approx(rows["cold"][metric])
