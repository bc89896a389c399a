"""RQ-VAE against torch and against what happens without its safeguards."""

import numpy as np
import pytest
import torch
from neural_sample import fitted, rows
from torch.nn import functional

from sidlake.tokenizers.quantizers.mlp import MLP
from sidlake.tokenizers.quantizers.rq_vae import RQVAEConfig
from sidlake.tokenizers.quantizers.training import Quantizer, QuantizerSettings, info_nce, network, trained_mlp


def test_inference_is_what_the_trained_network_says():
    torch.manual_seed(0)
    layers = network((5, 7, 3))
    x = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    assert np.allclose(trained_mlp(layers)(x), layers(torch.from_numpy(x)).detach().numpy(), atol=1e-6)


def test_a_perceptron_by_hand():
    model = MLP([np.float32([[1, -1], [0, 2]]), np.float32([[1], [10]])], [np.float32([0, -1]), np.float32([0.5])])
    assert model(np.float32([[3, 1]])).tolist() == [[3.5]]  # relu(3, -3 + 2 - 1) = (3, 0)


def test_codes_are_the_nearest_by_brute_force():
    model, x = fitted("rq_vae"), rows()
    residual = model.latents(x)
    for level, code in enumerate(model.encode(x).T):
        squared = np.square(residual[:, None].astype(np.float64) - model.centroids[level]).sum(axis=2)
        assert np.array_equal(code, squared.argmin(axis=1))
        residual = residual - model.centroids[level][code]


def test_the_quantizers_gradient_goes_straight_through():
    quantizer = Quantizer([np.float32([[0.0], [1.0]])], QuantizerSettings(beta=0.25))
    z = torch.tensor([[0.8]], requires_grad=True)
    quantized, loss, codes = quantizer(z)
    quantized.sum().backward()
    assert (quantized.item(), codes.item(), z.grad.item()) == (1.0, 1, 1.0)
    assert loss.item() == pytest.approx(1.25 * 0.04)


def test_sinkhorn_spreads_a_batch_that_the_nearest_code_would_take_whole():
    rows_BE = np.linspace(0.0, 0.4, 64, dtype=np.float32)[:, None]
    books = [np.float32([[0.2], [2.0]])]
    near = Quantizer(books, QuantizerSettings())(torch.from_numpy(rows_BE))[2]
    spread = Quantizer(books, QuantizerSettings(sinkhorn_epsilon=0.05, sinkhorn_iterations=100))(torch.from_numpy(rows_BE))[2]
    assert near.unique().tolist() == [0]
    assert spread[:, 0].bincount().tolist() == [32, 32]


def test_sinkhorn_is_for_training_alone():
    model = fitted("rq_vae", sinkhorn_epsilon=0.5)
    x = rows()
    squared = np.square(model.latents(x)[:, None].astype(np.float64) - model.centroids[0]).sum(axis=2)
    assert np.array_equal(model.encode(x)[:, 0], squared.argmin(axis=1))


def test_without_its_safeguards_it_collapses_and_with_them_it_does_not():
    naive = fitted("rq_vae", widths=[32, 32], warm_start=0.0, standardise=False, revive_every=0)
    kept = fitted("rq_vae", widths=[32, 32], num_steps=240)
    used = [[len(np.unique(model.encode(rows())[:, level])) for level in (0, 1)] for model in (naive, kept)]
    assert used[0][0] <= 8
    assert min(used[1]) >= 31


def test_info_nce_is_the_mean_of_two_cross_entropies():
    torch.manual_seed(1)
    left, right, scale = torch.randn(4, 3), torch.randn(4, 3), torch.tensor(2.0)
    scores = functional.normalize(left) @ functional.normalize(right).T * scale.exp()
    forth = -torch.stack([scores[i, i] - scores[i].logsumexp(0) for i in range(4)]).mean()
    back = -torch.stack([scores[i, i] - scores[:, i].logsumexp(0) for i in range(4)]).mean()
    assert info_nce(left, right, scale).item() == pytest.approx(((forth + back) / 2).item(), rel=1e-5)


def test_an_item_twice_in_a_batch_is_no_negative_of_itself():
    torch.manual_seed(1)
    left, right, scale = torch.randn(3, 2), torch.randn(3, 2), torch.tensor(0.0)
    right[1] = right[0]
    left[1] = left[0]
    ids = torch.tensor([5, 5, 7])
    without = info_nce(left[[0, 2]], right[[0, 2]], scale).item()
    both = info_nce(left, right, scale, (ids, ids)).item()
    scores = functional.normalize(left[[0, 2]]) @ functional.normalize(right[[0, 2]]).T
    assert both != pytest.approx(info_nce(left, right, scale).item())
    assert without == pytest.approx((functional.cross_entropy(scores, torch.tensor([0, 1])) * 2).item() / 2, abs=0.2)


@pytest.mark.parametrize("wrong", [{"num_steps": 0}, {"warm_start": 1.0}, {"hidden": (0,)}, {"widths": (0,)}])
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="must be"):
        RQVAEConfig(**{"widths": (4,), **wrong})
