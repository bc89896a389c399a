"""The five lines of a notebook: fit, encode, unique, save and load, decode; from one import."""

import subprocess
import sys

import numpy as np
import pytest
from neural_sample import rows

import sidlake.tokenizers
from sidlake.tokenizers import ResidualKMeans, ResidualKMeansConfig, load, save, unique


def test_fit_encode_unique_save_load_decode(tmp_path):
    x, ids = rows(), [f"item-{row}" for row in range(400)]
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(32, 32)))
    sids = unique(model, x, ids)
    save(model, tmp_path / "codebook.safetensors")
    decoded = load(tmp_path / "codebook.safetensors").decode(sids)
    assert len(np.unique(model.encode(x), axis=0)) < len(np.unique(sids, axis=0)) == 400
    assert np.square(x - decoded).sum() < 0.3 * np.square(x - x.mean(axis=0)).sum()


def test_the_order_of_rows_changes_no_items_sid():
    x, ids, order = rows(), [f"item-{row}" for row in range(400)], np.random.default_rng(0).permutation(400)
    model = ResidualKMeans.fit(x, ResidualKMeansConfig(widths=(32, 32)))
    assert np.array_equal(unique(model, x[order], [ids[row] for row in order]), unique(model, x, ids)[order])


def test_every_name_it_lists_is_there_and_no_other():
    assert all(getattr(sidlake.tokenizers, name) is not None for name in dir(sidlake.tokenizers))
    with pytest.raises(AttributeError, match=r"sidlake\.tokenizers has no 'KMeans': it has .*ResidualKMeans"):
        sidlake.tokenizers.KMeans  # noqa: B018


def test_params_make_the_config_again_and_configs_are_equal_by_value():
    model = ResidualKMeans.fit(rows(), ResidualKMeansConfig(widths=(32, 32)))
    assert ResidualKMeansConfig(**model.get_params()) == ResidualKMeansConfig(widths=[32, 32]) == model.config
    assert repr(model).startswith(
        "<ResidualKMeans of 10 dimensions, widths (32, 32), fitted as ResidualKMeansConfig(widths=(32, 32), "
    )


def test_lists_and_tensors_that_want_a_gradient_are_rows_and_codes_too():
    import torch

    x, config = rows(), ResidualKMeansConfig(widths=(32, 32))
    model, tensor = ResidualKMeans.fit(x, config), torch.from_numpy(x).requires_grad_()
    codes = model.encode(x)
    for like in (x.tolist(), tensor, tensor.double()):
        assert np.array_equal(ResidualKMeans.fit(like, config).encode(like), codes)
    assert np.array_equal(model.encode(tensor.bfloat16()), model.encode(tensor.bfloat16().float()))
    assert np.array_equal(model.decode(torch.from_numpy(codes)), model.decode(codes.tolist()))


def test_codes_that_are_no_whole_numbers_are_refused_by_a_sentence():
    model = ResidualKMeans.fit(rows(), ResidualKMeansConfig(widths=(32, 32)))
    with pytest.raises(ValueError, match="codes must be whole numbers, got float64"):
        model.decode([[0.5, 1.0]])


def test_k_means_does_not_wait_for_torch():
    code = "import sys; from sidlake.tokenizers import ResidualKMeans; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("ids", [["a"] * 400, ["a", "b"]])
def test_ids_that_do_not_name_the_rows_are_refused(ids):
    model = ResidualKMeans.fit(rows(), ResidualKMeansConfig(widths=(32, 32)))
    with pytest.raises(ValueError, match="item_ids must be one per vector and distinct"):
        unique(model, rows(), ids)
