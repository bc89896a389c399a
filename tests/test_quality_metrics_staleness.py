"""Staleness counts the items whose vector would choose other codes today, and says how much nearer those would be."""

import numpy as np
import pytest

from sidlake.quality.metrics.staleness import staleness
from sidlake.tokenizers.quantizers.residual_kmeans import ResidualKMeans, ResidualKMeansConfig


@pytest.fixture(scope="module")
def model():
    """Codebooks of two levels over 300 seeded vectors."""
    x_ND = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    return ResidualKMeans.fit(x_ND, ResidualKMeansConfig(widths=(4, 8)))


def values(metrics):
    return {(metric.metric, metric.level): metric.value for metric in metrics}


def test_items_that_never_changed_are_not_stale(model):
    x_ND = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    codes_NL = model.encode(x_ND)
    assert set(values(staleness(model, x_ND, codes_NL, model.encode(x_ND))).values()) == {0.0}


def test_changed_items_are_counted_and_their_distance_is_measured(model):
    rng = np.random.default_rng(2)
    before_ND = rng.normal(size=(40, 8)).astype(np.float32)
    now_ND = before_ND.copy()
    now_ND[:10] = -now_ND[:10]
    stored_NL, now_NL = model.encode(before_ND), model.encode(now_ND)
    found = values(staleness(model, now_ND, stored_NL, now_NL))
    other = [row for row in range(40) if tuple(stored_NL[row]) != tuple(now_NL[row])]
    nearer = [
        np.linalg.norm(now_ND[row] - model.decode(stored_NL[[row]])[0])
        - np.linalg.norm(now_ND[row] - model.decode(now_NL[[row]])[0])
        for row in other
    ]
    assert 0 < len(other) <= 10
    assert found[("staleness_share", None)] == pytest.approx(len(other) / 40)
    assert found[("staleness_growth", None)] == pytest.approx(np.mean(nearer), rel=1e-5)
    assert found[("staleness_growth", None)] > 0
    assert found[("staleness_level_share", 0)] == pytest.approx(np.mean(stored_NL[:, 0] != now_NL[:, 0]))
