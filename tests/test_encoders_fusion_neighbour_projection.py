"""The network that keeps neighbours: its teacher and its gradient against their definitions, and what it is for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidlake.encoders.fusion.config import FuseConfig
from sidlake.encoders.fusion.neighbour_projection import _gradient, fit_network, teach
from sidlake.encoders.fusion.network import apply_network, shapley_shares, unit_rows

CONFIG = FuseConfig(kind="neighbours", dim=4, hidden=16, num_epochs=6, num_neighbours=10)


def rows_of_length_one(num, dim, seed=0):
    return unit_rows(np.random.default_rng(seed).standard_normal((num, dim))).astype(np.float32)


def groups(seed=0, num=300, dim=40):
    """Items of 30 groups, which 6 directions tell apart; 34 louder directions say nothing of them."""
    rng = np.random.default_rng(seed)
    group = rng.integers(30, size=num)
    x = np.hstack(
        [rng.standard_normal((30, 6))[group] + 0.1 * rng.standard_normal((num, 6)), 1.5 * rng.standard_normal((num, dim - 6))]
    )
    pairs = np.array([(a, rng.choice(np.flatnonzero(group == group[a]))) for a in rng.integers(num, size=6000)])
    return x.astype(np.float32), group, pairs[pairs[:, 0] != pairs[:, 1]]


def principal(x, dim):
    values, axes = np.linalg.eigh(x.T.astype(np.float64) @ x)
    return axes[:, np.argsort(-values)[:dim]]


def test_the_teacher_scores_as_its_definition_says():
    x = rows_of_length_one(12, 5)
    pairs, gaps = np.array([[0, 1], [1, 0], [0, 2], [3, 4]]), np.array([1, 2, 2, 1])
    config = FuseConfig(kind="neighbours", num_neighbours=3, together_weight=0.5, popularity_weight=0.1)
    nearest, weights = teach(x, pairs, gaps, config=config)
    together = np.zeros((12, 12))
    for (a, b), gap in zip(pairs, gaps, strict=True):
        together[[a, b], [b, a]] += 1 / gap
    together /= np.maximum(together.max(axis=1, keepdims=True), 1e-12)
    taken = np.log1p(np.bincount(pairs.ravel(), minlength=12))
    scores = x @ x.T + 0.5 * together + 0.1 * (taken - taken.mean()) / taken.std()
    np.fill_diagonal(scores, -np.inf)
    for row in range(12):
        expected = np.argsort(-scores[row])[:3]
        assert set(nearest[row]) == set(expected)
        odds = np.exp(scores[row, nearest[row]] / 0.07)
        np.testing.assert_allclose(weights[row], odds / odds.sum(), rtol=1e-3)


def test_the_teacher_does_without_pairs():
    x = rows_of_length_one(40, 5)
    nearest, weights = teach(x, None, None, config=CONFIG)
    cosines = x @ x.T
    np.fill_diagonal(cosines, -np.inf)
    assert [set(row) for row in nearest] == [set(row) for row in np.argsort(-cosines, axis=1)[:, :10]]
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)


def test_the_gradient_is_that_of_autograd():
    unit = torch.nn.functional.normalize(torch.randn(300, 5, generator=torch.Generator().manual_seed(1)), dim=1).requires_grad_()
    nearest, weights = map(torch.from_numpy, teach(rows_of_length_one(300, 8), None, None, config=CONFIG))
    batch = torch.arange(7, 290)
    scores = unit[batch] @ unit.T / 0.1
    scores[torch.arange(len(batch)), batch] = float("-inf")
    logs = torch.log_softmax(scores, dim=1).gather(1, nearest[batch])
    (-(logs * weights[batch]).sum() / len(batch)).backward()
    torch.testing.assert_close(_gradient(unit.detach(), batch, nearest, weights), unit.grad)


def test_neighbours_survive_where_principal_axes_lose_them():
    x, group, pairs = groups()

    def purity(v):
        cosines = unit_rows(v) @ unit_rows(v).T
        np.fill_diagonal(cosines, -np.inf)
        return (group[np.argsort(-cosines, axis=1)[:, :5]] == group[:, None]).mean()

    axes = principal(x, 6)
    network = fit_network(x, pairs, None, axes_SD=axes, config=FuseConfig(kind="neighbours", dim=6, hidden=32, num_epochs=40))
    assert purity(apply_network(network, x.astype(np.float64))) > 2 * purity(x @ axes)


def test_torch_is_left_as_it_was_and_the_fit_repeats():
    x, _, pairs = groups()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    once, again = (
        fit_network(x, pairs[order], None, axes_SD=principal(x, 4), config=CONFIG) for order in (slice(None), slice(None, None, -1))
    )
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert np.abs(once["outer"]).max() > 0


def test_the_way_back_is_the_best_affine_guess():
    x, _, pairs = groups()
    network = fit_network(x, pairs, None, axes_SD=principal(x, 4), config=CONFIG)
    v = apply_network(network, x.astype(np.float64))
    error = x - (v @ network["back"][:-1] + network["back"][-1])
    np.testing.assert_allclose(np.c_[v, np.ones(len(v))].T @ error, 0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=4))
def test_shares_of_a_sum_are_its_parts(parts):
    assert shapley_shares(len(parts), lambda chosen: sum(parts[one] for one in chosen)) == pytest.approx(parts)
